/* hv/leave.h - a waiter leaves, comes back, or puts its wait aside. */
#ifndef PLK_HV_LEAVE_H
#define PLK_HV_LEAVE_H

#include "recover/segment.h"

int plk_leave(struct plk_wait *w);
int plk_resume(struct plk_wait *w);
int plk_crowded(struct plk_domain *domain);

/* Pass over abandoned tickets from `head` on; which is served then. */
uint64_t plk_pass(struct plk_segment *s, struct plk_vcpu *me, struct plk_cell *cell, uint64_t id,
                  uint64_t head);

/* Ticket `head` is served: pass over it if it is abandoned, else kick its waiter. */
void plk_serve(struct plk_segment *s, struct plk_vcpu *me, struct plk_cell *cell, uint64_t id,
               uint64_t head);

/* The unlocker's half: ticket `head` is served now; pass over abandoned
 * tickets and kick the first that somebody waits for. */
void plk_serve_next(struct plk_lock *lock, struct plk_seat *seat, uint64_t head);

int plk_nest(struct plk_wait *w);
int plk_unnest(struct plk_wait *w);

#endif
