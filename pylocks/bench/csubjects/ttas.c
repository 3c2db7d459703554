/* Test and test-and-set: no order at all, and nobody sleeps. */
#include "subject.h"

static int create(void *place, const struct bench_env *env)
{
    (void)place; /* zeros are a free lock */
    (void)env;
    return 0;
}

static inline int lock(void *place)
{
    uint32_t *word = place;

    while (__atomic_exchange_n(word, 1, __ATOMIC_ACQUIRE) != 0)
        while (BENCH_LOAD(word) != 0)
            bench_pause();
    return 0;
}

static inline int unlock(void *place)
{
    __atomic_store_n((uint32_t *)place, 0, __ATOMIC_RELEASE);
    return 0;
}

static void destroy(void *place) { (void)place; }

BENCH_SUBJECT(ttas, 1, "test and test-and-set, spins");
