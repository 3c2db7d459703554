/* The same with priority inheritance: the kernel keeps the queue. */
#include "pthread_shared.h"

static int create(void *place, const struct bench_env *env)
{
    (void)env;
    return create_mutex(place, PTHREAD_MUTEX_STALLED, PTHREAD_PRIO_INHERIT);
}

BENCH_SUBJECT(pthread_pi, 1, "pthread mutex, process-shared, with priority inheritance");
