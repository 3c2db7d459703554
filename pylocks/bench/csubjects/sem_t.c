/* A process-shared POSIX semaphore of 1: what multiprocessing.Lock and posix_ipc wrap. */
#include <semaphore.h>

#include "subject.h"

static int create(void *place, const struct bench_env *env)
{
    (void)env;
    return sem_init(place, 1, 1) == 0 ? 0 : -errno;
}

static inline int lock(void *place) { return sem_wait(place) == 0 ? 0 : -errno; }
static inline int unlock(void *place) { return sem_post(place) == 0 ? 0 : -errno; }
static void destroy(void *place) { sem_destroy(place); }

BENCH_SUBJECT(sem_t, 1, "POSIX semaphore, process-shared");
