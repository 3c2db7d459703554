/* recover/abandon.h - tickets that nobody waits for any more. */
#ifndef PLK_RECOVER_ABANDON_H
#define PLK_RECOVER_ABANDON_H

#include "recover/segment.h"

/* `me` is, in all of these, the slot of whoever does it, or of the dead vCPU on
 * whose behalf it is done: [D4]. */

/* Put up the tombstone of (id, ticket); one that stands already will do.  0, or
 * -ENOSPC. */
int plk_tomb_put(struct plk_segment *s, struct plk_vcpu *me, uint64_t id, uint64_t ticket);

/* Nonzero: the ticket is abandoned, and perhaps being passed over. */
int plk_tomb_stands(struct plk_segment *s, uint64_t id, uint64_t ticket);

/* Take back a ticket of one's own.  1: the tombstone stood and is gone, the
 * caller possesses the ticket again; 0: it has been passed over, or is being. */
int plk_tomb_retract(struct plk_segment *s, struct plk_vcpu *me, uint64_t id, uint64_t ticket);

/* Move head from `head` past every abandoned ticket.  Anybody may call this at
 * any time.  Returns the ticket now served, whose waiter the caller must kick;
 * *passed: how many tickets this call moved head past. */
uint64_t plk_pass_on(struct plk_segment *s, struct plk_vcpu *me, struct plk_cell *cell, uint64_t id,
                     uint64_t head, unsigned *passed);

/* Finish the passing that the mark at `slot` of the table announces: its passer
 * may have died.  The caller serves the cell afterwards. */
void plk_pass_finish(struct plk_segment *s, struct plk_vcpu *me, struct plk_cell *cell, uint64_t *slot,
                     uint64_t mark);

#endif
