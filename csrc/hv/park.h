/* hv/park.h - event channels: sleep until kicked, kick. */
#ifndef PLK_HV_PARK_H
#define PLK_HV_PARK_H

#include "recover/segment.h"

/* Longest wait before a waiter looks after its queue and the dead: this for itself and
 * as much for everyone who was ahead of it when it came, up to PLK_WATCHDOG_FAR of
 * them.  So a death is found within 30 ms by one that came next in line, and within
 * 135 ms by anybody.  In a longer queue than PLK_WATCHDOG_MANY the times grow with it, to 2 s
 * at the most: or a thousand sleepers would keep a CPU busy by looking. */
#define PLK_WATCHDOG_NS 15000000ull
#define PLK_WATCHDOG_FAR 8u
#define PLK_WATCHDOG_MANY 64u
#define PLK_WATCHDOG_MOST 1024u

/* Bounds of what is learned about a wake: below lie clock readings, above waits for a CPU. */
#define PLK_WAKE_LEAST_NS 1000u
#define PLK_WAKE_MOST_NS 100000u

/* PLK_WATCHDOG_NS, or what has been set instead in this process; 0 sets it back. */
uint64_t plk_watchdog(void);
void plk_watchdog_set(uint64_t ns);

/* So many times that, for one with so many ahead of it. */
uint64_t plk_watch_times(uint64_t distance);

/* plk_watch, if it is time for that. */
void plk_watch_by_clock(struct plk_wait *w);

/* Sleep on w's event channel until its ticket is kicked, the watchdog bound,
 * w's deadline or pause, or a signal.  Returns a plk_hint. */
long plk_park(struct plk_wait *w);

/* The event channel of a ticket, and its bit there. */
struct plk_channel *plk_channel_of(const struct plk_segment *s, uint64_t id, uint64_t ticket, uint32_t *bit);

enum plk_kick {
    PLK_KICK_ONCE,  /* unless it has been kicked since it fell asleep */
    PLK_KICK_AGAIN, /* in any case: whoever kicked it may have died at that */
};

/* Wake the waiter for a ticket, if it is parked.  1: a wake was sent. */
int plk_kick(struct plk_segment *s, struct plk_vcpu *me, uint64_t id, uint64_t ticket, enum plk_kick how);

#endif
