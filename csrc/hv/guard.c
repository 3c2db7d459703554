/* hv/guard.c - the robust domain mutex.
 *
 * Whoever holds it may die at any instruction.  What it protects is arranged so
 * that every intermediate state is recognisable and can simply be thrown away:
 * a vCPU slot is CLAIMED, a directory entry is FILLING, until the one store that
 * publishes it; a cell is allocated by setting its flag after the counters that
 * only serve as hints.  The next holder throws them away (plk_guard_clean). */
#include "hv/guard.h"

#include <time.h>

int plk_robust_init(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attr;
    int rc = pthread_mutexattr_init(&attr);

    if (rc == 0)
        rc = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    if (rc == 0)
        rc = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    if (rc == 0)
        rc = pthread_mutex_init(mutex, &attr);
    pthread_mutexattr_destroy(&attr);
    return -rc;
}

void plk_guard_clean(struct plk_segment *s)
{
    uint32_t i, used = PLK_LOAD(&s->header->vcpus_next);

    for (i = 0; i < used && i < s->geometry.vcpus; i++) {
        struct plk_vcpu *v = plk_vcpu_at(s, i);

        /* CLAIMED under a dead guard holder: never went online, holds nothing. */
        if (PLK_LOAD(&v->state) == PLK_VCPU_CLAIMED)
            PLK_STORE_RELEASE(&v->state, PLK_VCPU_FREE);
    }
    used = PLK_LOAD(&s->header->entries_next); /* those beyond may not have memory yet */
    for (i = 0; i < used && i < s->geometry.entries; i++) {
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
    }
    return -rc;
}

int plk_guard_lock(struct plk_segment *s)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until); /* the clock that this call goes by */
    until.tv_sec += PLK_GUARD_PATIENCE_S;
    return plk_guard_inherit(s, pthread_mutex_timedlock(&s->header->guard.mutex, &until));
}

int plk_guard_trylock(struct plk_segment *s)
{
    return plk_guard_inherit(s, pthread_mutex_trylock(&s->header->guard.mutex));
}

void plk_guard_unlock(struct plk_segment *s)
{
    pthread_mutex_unlock(&s->header->guard.mutex);
}
