/* The mutex that C programs share between processes. */
#include "pthread_shared.h"

static int create(void *place, const struct bench_env *env)
{
    (void)env;
    return create_mutex(place, PTHREAD_MUTEX_STALLED, PTHREAD_PRIO_NONE);
}

BENCH_SUBJECT(pthread_mutex, 1, "pthread mutex, process-shared");
