/* recover/life.h - is the thread behind a vCPU alive, and has it left anything? */
#ifndef PLK_RECOVER_LIFE_H
#define PLK_RECOVER_LIFE_H

#include <linux/futex.h>

#include "recover/segment.h"

/* Offset of the lock word in pthread_mutex_t; tells C libraries apart and is
 * where the kernel marks a dead owner. */
#if defined(__GLIBC__)
#define PLK_LIFE_WORD 0u
#else
#define PLK_LIFE_WORD 4u /* musl: _m_lock is the second int */
#endif

enum plk_life { PLK_LIFE_NONE, PLK_LIFE_ALIVE, PLK_LIFE_DEAD };

/* What the kernel says of the thread that holds a life word. */
static inline enum plk_life plk_life_of(const struct plk_vcpu *v)
{
    uint32_t word = PLK_LOAD_ACQUIRE((const uint32_t *)(const void *)(v->life.bytes + PLK_LIFE_WORD));

    if (word & FUTEX_OWNER_DIED)
        return PLK_LIFE_DEAD;
    return (word & FUTEX_TID_MASK) != 0 ? PLK_LIFE_ALIVE : PLK_LIFE_NONE;
}

/* Nonzero: it holds a lock or a ticket, or was about to change a shared count. */
static inline int plk_vcpu_busy(const struct plk_vcpu *v)
{
    return PLK_LOAD(&v->held) != 0 || PLK_LOAD(&v->pending) != 0 || PLK_LOAD(&v->depth) != 0 ||
           PLK_LOAD(&v->channel) != 0 || PLK_LOAD(&v->burying) != 0;
}

/* Died with something to recover. */
static inline int plk_vcpu_dirty(const struct plk_vcpu *v)
{
    return PLK_LOAD_ACQUIRE(&v->state) == PLK_VCPU_ONLINE && plk_life_of(v) == PLK_LIFE_DEAD &&
           plk_vcpu_busy(v);
}

#endif
