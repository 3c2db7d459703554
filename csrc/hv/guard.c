/* hv/guard.c - the robust domain mutex.
 *
 * Whoever holds it may die at any instruction.  What it protects is arranged so
 * that nothing has to be done about it: a vCPU slot is CLAIMED, a directory entry
 * is FILLING, until the one store that publishes it, and nobody makes more of
 * either than of one that is free, so that the next holder who needs one takes it
 * and writes it over; a cell is allocated by setting its flag after the counters
 * that only serve as hints. */
#include "hv/guard.h"

#include <time.h>

#include "hv/robust.h"

/* What a lock call on the guard returned. */
static int plk_guard_inherit(struct plk_segment *s, int rc)
{
    if (rc == EOWNERDEAD) {
        rc = pthread_mutex_consistent(&s->header->guard.mutex);
        if (rc != 0)
            plk_guard_unlock(s);
    }
    /* Neither of the two comes of what a holder does, at whatever instruction it dies. */
    return rc == EINVAL ? -ENOTRECOVERABLE : -rc;
}

int plk_guard_lock(struct plk_segment *s)
{
    struct timespec until;

    if (!plk_robust_sound(&s->header->guard.mutex))
        return -ENOTRECOVERABLE;
    clock_gettime(CLOCK_REALTIME, &until); /* the clock that this call goes by */
    until.tv_sec += PLK_GUARD_PATIENCE_S;
    return plk_guard_inherit(s, pthread_mutex_timedlock(&s->header->guard.mutex, &until));
}

int plk_guard_trylock(struct plk_segment *s)
{
    if (!plk_robust_sound(&s->header->guard.mutex))
        return -ENOTRECOVERABLE;
    return plk_guard_inherit(s, pthread_mutex_trylock(&s->header->guard.mutex));
}

void plk_guard_unlock(struct plk_segment *s)
{
    plk_robust_unlock(&s->header->guard.mutex);
}
