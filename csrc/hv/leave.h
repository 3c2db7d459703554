/* hv/leave.h - a waiter leaves, comes back, or looks after an abandoned head. */
#ifndef PLK_HV_LEAVE_H
#define PLK_HV_LEAVE_H

#include "recover/segment.h"

int plk_leave(struct plk_wait *w);
int plk_resume(struct plk_wait *w);
void plk_watch(struct plk_wait *w);
int plk_crowded(struct plk_domain *domain);

/* The unlocker's half: ticket `head` is served now; pass over abandoned
 * tickets and kick the first that somebody waits for. */
void plk_serve_next(struct plk_lock *lock, struct plk_seat *seat, uint64_t head);

int plk_nest(struct plk_wait *w);
int plk_unnest(struct plk_wait *w);

#endif
