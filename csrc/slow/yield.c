/* slow/yield.c - let whoever is runnable on this CPU run.  No sleep, no kick
 * needed; costs CPU time for as long as the wait lasts, and grants in order. */
#include "slow/slow.h"

#include <sched.h>

#include "hv/park.h"

/* Turns between looks at the clock. */
#define PLK_YIELD_TURNS 16u

long plk_slow_yield(struct plk_wait *w, uint64_t head)
{
    PLK_SITE_FRAME();
    (void)head;
    PLK_EVENT(w->seat->vcpu, yields);
    sched_yield();
    /* Look after the queue as often as a sleeper's watchdog would: by the clock, for
     * where there is a crowd a turn can take as long as all others' time slices. */
    if (w->rounds % PLK_YIELD_TURNS == 0)
        plk_watch_by_clock(w);
    return PLK_HINT_NONE;
}
