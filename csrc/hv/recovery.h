/* hv/recovery.h - what the dead held goes to the living. */
#ifndef PLK_HV_RECOVERY_H
#define PLK_HV_RECOVERY_H

#include "recover/segment.h"

/* A waiter looks after its queue: recover whoever died, pass over an abandoned
 * head, kick whom a dead kicker left asleep.  Also for one that found the lock
 * busy and does not wait (w->ticket == PLK_NO_TICKET). */
void plk_watch(struct plk_wait *w);

/* Recover the vCPU in slot `index`, which is dirty, and free the slot; with the
 * domain mutex held.  0; -EAGAIN or -ENOSPC: not all of it, try again. */
int plk_recover_vcpu(struct plk_segment *s, uint32_t index);

/* Mark the life words of all whose threads are gone without the kernel's having done
 * so (hv/identity.h); with the domain mutex held.  How many there were. */
unsigned plk_recover_lapsed(struct plk_segment *s, uint64_t pid_ns);

/* Recover every vCPU whose thread has died, free all their slots, and mend all
 * counts.  How many there were, or a negative errno of the domain mutex, or of
 * plk_reserve. */
int plk_recover(struct plk_segment *s);

#endif
