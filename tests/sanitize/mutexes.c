/* mutexes.c - the C library's mutexes as the core sees them: which of the segment's this thread
 * holds is noted here, whatever the words in them say later. */
#include "fuzz.h"

#include <time.h>

int __real_pthread_mutex_lock(pthread_mutex_t *mutex);
int __real_pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *until);
int __real_pthread_mutex_trylock(pthread_mutex_t *mutex);
int __real_pthread_mutex_unlock(pthread_mutex_t *mutex);

/* What a call that locks has returned. */
static int locked(const pthread_mutex_t *mutex, int rc)
{
    uint64_t offset = world_offset(mutex);

    if ((rc != 0 && rc != EOWNERDEAD) || offset == UINT64_MAX)
        return rc;
    if (world.held_count == HELD_MAX)
        fail("this thread holds %u mutexes of the segment", HELD_MAX);
    world.held[world.held_count++] = offset;
    return rc;
}

int world_holds(uint64_t offset, uint64_t size)
{
    const uint64_t links = offsetof(pthread_mutex_t, __data.__list);
    unsigned i;

    for (i = 0; i < world.held_count; i++)
        if (offset < world.held[i] + sizeof(pthread_mutex_t) && offset + size > world.held[i] + links)
            return 1;
    return 0;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex) { return locked(mutex, __real_pthread_mutex_lock(mutex)); }

/* Nobody else runs: a mutex that is not to be had now will not be had later. */
int __wrap_pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *until)
{
    struct timespec soon = {0, 1};

    (void)until;
    world.locking = 1;
    world_others_act();
    world.locking = 0;
    return locked(mutex, __real_pthread_mutex_timedlock(mutex, &soon));
}

int __wrap_pthread_mutex_trylock(pthread_mutex_t *mutex)
{
    return locked(mutex, __real_pthread_mutex_trylock(mutex));
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    uint64_t offset = world_offset(mutex);
    unsigned i;

    for (i = 0; i < world.held_count && world.held[i] != offset; i++)
        ;
    if (i < world.held_count)
        world.held[i] = world.held[--world.held_count];
    return __real_pthread_mutex_unlock(mutex);
}
