/* hv/park.h - event channels: sleep until kicked, kick. */
#ifndef PLK_HV_PARK_H
#define PLK_HV_PARK_H

#include "recover/segment.h"

/* Longest sleep before a waiter looks at head again, for the next in line; those
 * further behind may sleep proportionally longer, up to PLK_WATCHDOG_FAR of them. */
#define PLK_WATCHDOG_NS 50000000ull
#define PLK_WATCHDOG_FAR 20u

/* Sleep on w's event channel until its ticket is kicked, the watchdog bound,
 * w's deadline or pause, or a signal.  Returns a plk_hint. */
long plk_park(struct plk_wait *w);

/* Ticket `head` of (id) is now served: wake its waiter if it is parked. */
void plk_kick(struct plk_segment *s, struct plk_vcpu *me, uint64_t id, uint64_t head);

#endif
