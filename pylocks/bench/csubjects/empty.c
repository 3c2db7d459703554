/* Nothing: what is left is the harness. */
#include "subject.h"

static int create(void *place, const struct bench_env *env)
{
    (void)place;
    (void)env;
    return 0;
}

static inline int lock(void *place)
{
    (void)place;
    return 0;
}

static inline int unlock(void *place)
{
    (void)place;
    return 0;
}

static void destroy(void *place) { (void)place; }

BENCH_SUBJECT(empty, 0, "no lock: the cost of the loop");
