/* hv/guard.h - the domain mutex: registration of vCPUs, directory, allocation.
 * Never taken by an acquisition. */
#ifndef PLK_HV_GUARD_H
#define PLK_HV_GUARD_H

#include "recover/segment.h"

/* It is held for microseconds, or for milliseconds where the dead are recovered among
 * a million cells; whoever holds it for seconds is stopped. */
#define PLK_GUARD_PATIENCE_S 10

/* 0 or a negative errno; -ETIMEDOUT: its holder does not get on with it;
 * -ENOTRECOVERABLE: it was written over.  A predecessor that died inside is cleaned up
 * after. */
int plk_guard_lock(struct plk_segment *s);
/* The same without waiting; -EBUSY. */
int plk_guard_trylock(struct plk_segment *s);
void plk_guard_unlock(struct plk_segment *s);

/* Throw away what a holder that died left half-done; with the guard held. */
void plk_guard_clean(struct plk_segment *s);

#endif
