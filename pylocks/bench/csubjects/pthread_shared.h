/* pthread_shared.h - what the process-shared pthread mutexes have in common. */
#ifndef BENCH_PTHREAD_SHARED_H
#define BENCH_PTHREAD_SHARED_H

#include <pthread.h>

#include "subject.h"

static int create_mutex(void *place, int robustness, int inheritance)
{
    pthread_mutexattr_t attr;
    int rc = pthread_mutexattr_init(&attr);

    if (rc != 0)
        return -rc;
    rc = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    if (rc == 0)
        rc = pthread_mutexattr_setrobust(&attr, robustness);
    if (rc == 0)
        rc = pthread_mutexattr_setprotocol(&attr, inheritance);
    if (rc == 0)
        rc = pthread_mutex_init(place, &attr);
    pthread_mutexattr_destroy(&attr);
    return -rc;
}

static inline int lock(void *place)
{
    int rc = pthread_mutex_lock(place);

    /* Only a robust one says so, and the data of a benchmark is always in order. */
    if (__builtin_expect(rc == EOWNERDEAD, 0))
        rc = pthread_mutex_consistent(place);
    return -rc;
}

static inline int unlock(void *place) { return -pthread_mutex_unlock(place); }
static void destroy(void *place) { pthread_mutex_destroy(place); }

#endif
