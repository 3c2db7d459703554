/* recover/abandon.h - tickets that nobody waits for any more. */
#ifndef PLK_RECOVER_ABANDON_H
#define PLK_RECOVER_ABANDON_H

#include "recover/segment.h"

/* Put up the tombstone of (id, ticket).  0, or -ENOSPC. */
int plk_tomb_put(struct plk_segment *s, uint64_t id, uint64_t ticket);

/* Take it down.  1: it stood and this call took it, so the caller now
 * possesses the ticket; 0: it did not stand. */
int plk_tomb_claim(struct plk_segment *s, uint64_t id, uint64_t ticket);

/* The caller possesses ticket `head` of the cell, which nobody will use: give
 * it up, and every abandoned ticket behind it.  Returns the ticket now served,
 * which its waiter must be kicked for; *passed counts tombstones claimed. */
uint64_t plk_pass_on(struct plk_segment *s, struct plk_cell *cell, uint64_t id, uint64_t head,
                     unsigned *passed);

#endif
