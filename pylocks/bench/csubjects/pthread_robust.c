/* The same, and the kernel tells the next one if its holder dies. */
#include "pthread_shared.h"

static int create(void *place, const struct bench_env *env)
{
    (void)env;
    return create_mutex(place, PTHREAD_MUTEX_ROBUST, PTHREAD_PRIO_NONE);
}

BENCH_SUBJECT(pthread_robust, 1, "pthread mutex, process-shared and robust");
