/* recover/claims.h - whose is a ticket? */
#ifndef PLK_RECOVER_CLAIMS_H
#define PLK_RECOVER_CLAIMS_H

#include "recover/segment.h"

#define PLK_CLAIMS_MOST (1u + PLK_PEND_DEPTH)

/* What a dead vCPU was acquiring: pending first, then the waits that it
 * interrupted.  A wait that was being moved between the two counts once. */
unsigned plk_claims_of_dead(const struct plk_vcpu *dead, struct plk_pend claims[PLK_CLAIMS_MOST]);

#define PLK_ORPHAN_SPAN 4096u /* tickets looked at together */

/* The first ticket in [from, until), of which PLK_ORPHAN_SPAN are looked at, of cell id that belongs to nobody alive: 1
 * and *ticket; 0: none; -EAGAIN: a living vCPU is just taking a ticket there, or
 * tombstones came and went: ask again.  With the domain mutex held. */
int plk_orphan(struct plk_segment *s, const struct plk_cell *cell, uint64_t id, uint64_t from,
               uint64_t until, uint64_t *ticket);

#endif
