/* The adaptive mutex of the literature: spin for about as long as a sleep would cost, then sleep.
 * Whoever comes by may take it, waiting or not. */
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "subject.h"

#define SPIN_NS 50000
#define SPINS_A_LOOK 64u

enum { FREE, HELD, HELD_AND_AWAITED };

static uint64_t spin_ticks; /* set before the fork */

static int create(void *place, const struct bench_env *env)
{
    (void)place; /* zeros are a free lock */
    (void)env;
    if (spin_ticks == 0)
        spin_ticks = (uint64_t)(SPIN_NS * bench_ticks_per_ns());
    return 0;
}

static inline int take(uint32_t *word)
{
    uint32_t free = FREE;

    return __atomic_compare_exchange_n(word, &free, HELD, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static __attribute__((noinline)) void wait_for(uint32_t *word)
{
    uint64_t began = bench_stamp();

    for (uint32_t round = 1; round % SPINS_A_LOOK != 0 || bench_stamp() - began < spin_ticks; round++) {
        if (BENCH_LOAD(word) == FREE && take(word))
            return;
        bench_pause();
    }
    /* From here on it can't know whether others sleep, so it leaves the mark behind. */
    while (__atomic_exchange_n(word, HELD_AND_AWAITED, __ATOMIC_ACQUIRE) != FREE)
        syscall(SYS_futex, word, FUTEX_WAIT, HELD_AND_AWAITED, NULL, NULL, 0);
}

static inline int lock(void *place)
{
    if (!take(place))
        wait_for(place);
    return 0;
}

static inline int unlock(void *place)
{
    if (__atomic_exchange_n((uint32_t *)place, FREE, __ATOMIC_RELEASE) == HELD_AND_AWAITED)
        syscall(SYS_futex, place, FUTEX_WAKE, 1, NULL, NULL, 0);
    return 0;
}

static void destroy(void *place) { (void)place; }

BENCH_SUBJECT(adaptive, 1, "futex mutex that spins 50 us, then sleeps");
