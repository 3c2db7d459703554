/* hv/park.h - event channels: sleep until kicked, kick. */
#ifndef PLK_HV_PARK_H
#define PLK_HV_PARK_H

#include "recover/segment.h"

/* Longest sleep before a waiter looks at head again, and after the dead: this for
 * itself and as much for everyone ahead of it, up to PLK_WATCHDOG_FAR of them.  So
 * the next in line learns of its predecessor's death within 30 ms. */
#define PLK_WATCHDOG_NS 15000000ull
#define PLK_WATCHDOG_FAR 20u

/* PLK_WATCHDOG_NS, or what has been set instead in this process; 0 sets it back. */
uint64_t plk_watchdog(void);
void plk_watchdog_set(uint64_t ns);

/* Sleep on w's event channel until its ticket is kicked, the watchdog bound,
 * w's deadline or pause, or a signal.  Returns a plk_hint. */
long plk_park(struct plk_wait *w);

/* Ticket `head` of (id) is now served: wake its waiter if it is parked. */
void plk_kick(struct plk_segment *s, struct plk_vcpu *me, uint64_t id, uint64_t head);

#endif
