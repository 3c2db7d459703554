/* hv/watch.h - waiters look after their queue and each other. */
#ifndef PLK_HV_WATCH_H
#define PLK_HV_WATCH_H

#include "recover/segment.h"

/* Recover whoever died, pass over a head that is abandoned or nobody's, kick whom a
 * dead kicker left asleep.  Also for one that found the lock busy and does not wait
 * (w->ticket == PLK_NO_TICKET).  All vCPUs are looked at every few milliseconds at
 * most, whoever calls. */
void plk_watch(struct plk_wait *w);

/* For plk_api. */
int plk_held_elsewhere(const struct plk_lock *lock, const struct plk_seat *seat);

#endif
