/* hv/recovery.h - what the dead held goes to the living. */
#ifndef PLK_HV_RECOVERY_H
#define PLK_HV_RECOVERY_H

#include "recover/segment.h"

/* All of these with the domain mutex held, but for plk_recover. */

/* Recover every vCPU that is dirty now and free its slot; how many.  One that can't be
 * recovered in full stays dirty: tombstones are full, or somebody is just taking a
 * ticket where a dead one's is looked for. */
uint32_t plk_recover_dead(struct plk_segment *s);

/* Mark the life words of all whose threads are gone without the kernel's having done
 * so (hv/identity.h).  How many there were. */
unsigned plk_recover_lapsed(struct plk_segment *s, uint64_t pid_ns);

/* Ticket t belongs to nobody alive: abandon it, or, if it is served, move head on.  0,
 * or -ENOSPC.  me: the dead, or who does it. */
int plk_leave_for(struct plk_segment *s, struct plk_vcpu *me, struct plk_cell *cell, uint64_t id, uint64_t t);

/* Ticket t is served and nobody's alive: move head on.  Nobody else would, unless it
 * had been abandoned: then a passer may be quicker, and the tombstone has to go. */
void plk_release_for(struct plk_segment *s, struct plk_vcpu *me, struct plk_cell *cell, uint64_t id,
                     uint64_t t);

/* Recover every vCPU whose thread has died, free all their slots, and mend all
 * counts.  How many there were, or a negative errno of the domain mutex, or of
 * plk_reserve. */
int plk_recover(struct plk_segment *s);

#endif
