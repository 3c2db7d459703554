/* slow/yield.c - let whoever is runnable on this CPU run.  No sleep, no kick
 * needed; costs CPU time for as long as the wait lasts, and grants in order. */
#include "slow/slow.h"

#include <sched.h>

#include "hv/futex.h"
#include "hv/recovery.h"

/* Look after an abandoned or forgotten head now and then, as a sleeper's
 * watchdog would. */
#define PLK_YIELD_WATCH 1024u

long plk_slow_yield(struct plk_wait *w, uint64_t head)
{
    PLK_SITE_FRAME();
    (void)head;
    PLK_EVENT(w->seat->vcpu, yields);
    sched_yield();
    if (w->rounds % PLK_YIELD_WATCH == 0)
        plk_watch(w);
    return PLK_HINT_NONE;
}
