/* hv/guard.h - the domain mutex: registration of vCPUs, directory, allocation.
 * Never taken by an acquisition. */
#ifndef PLK_HV_GUARD_H
#define PLK_HV_GUARD_H

#include "recover/segment.h"

/* Offset of the lock word in pthread_mutex_t; tells C libraries apart and is
 * where the kernel marks a dead owner. */
#if defined(__GLIBC__)
#define PLK_LIFE_WORD 0u
#else
#define PLK_LIFE_WORD 4u /* musl: _m_lock is the second int */
#endif

int plk_robust_init(pthread_mutex_t *mutex);

/* It is held for microseconds; whoever holds it longer is stopped. */
#define PLK_GUARD_PATIENCE_S 10

/* 0 or a negative errno; -ETIMEDOUT: its holder does not get on with it.  A predecessor that died inside is cleaned up after. */
int plk_guard_lock(struct plk_segment *s);
void plk_guard_unlock(struct plk_segment *s);

/* Throw away what a holder that died left half-done; with the guard held. */
void plk_guard_clean(struct plk_segment *s);

enum plk_life { PLK_LIFE_NONE, PLK_LIFE_ALIVE, PLK_LIFE_DEAD };

/* What the kernel says of the thread that holds a life word. */
enum plk_life plk_life_of(const struct plk_vcpu *v);

#endif
