/* hv/guard.c - the robust domain mutex.
 *
 * Whoever holds it may die at any instruction.  What it protects is arranged so
 * that every intermediate state is recognisable and can simply be thrown away:
 * a vCPU slot is CLAIMED, a directory entry is FILLING, until the one store that
 * publishes it; a cell is allocated by setting its flag after the counters that
 * only serve as hints.  The next holder throws them away (plk_guard_clean). */
#include "hv/guard.h"

#include <time.h>

#include "hv/reserve.h"
#include "hv/robust.h"

void plk_guard_clean(struct plk_segment *s)
{
    int64_t used = plk_slots_ready(s); /* negative: no memory; what is half-done stays so */
    uint32_t i;

    for (i = 0; i < used; i++) {
        struct plk_vcpu *v = plk_vcpu_at(s, i);

        /* CLAIMED under a dead guard holder: never went online, holds nothing. */
        if (PLK_LOAD(&v->state) == PLK_VCPU_CLAIMED)
            PLK_STORE_RELEASE(&v->state, PLK_VCPU_FREE);
    }
    used = plk_entries_ready(s);
    for (i = 0; i < used; i++) {
        struct plk_entry *e = &plk_entries(s)[i];

        if (PLK_LOAD(&e->state) == PLK_ENTRY_FILLING)
            PLK_STORE_RELEASE(&e->state, PLK_ENTRY_EMPTY);
    }
}

/* What a lock call on the guard returned. */
static int plk_guard_inherit(struct plk_segment *s, int rc)
{
    if (rc == EOWNERDEAD) {
        plk_guard_clean(s);
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
