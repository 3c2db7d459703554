/* slow/futex.c - sleep until kicked, but not in a short queue and not when the turn is near.
 *
 * Strict order has its price where there are more waiters than CPUs: each handover
 * is a switch to one particular thread.  To an idle CPU it costs a wake, up to 60 us
 * in a virtual machine; on one CPU, from a thread that gives way to one that is
 * awake, a sched_yield or a wake without an interrupt: 1 to 2 us.  Hence:
 *
 *   up to `crowd` in the queue   all stay awake and give way to each other
 *   more                         the next `ahead` do; the others sleep, and each of
 *                                them, when it falls asleep, wakes one of those (hv/park.c)
 *   the holder takes its time    nobody stays awake: PLK_STAY_WAKES wakes without
 *                                a move of head, and a waiter sleeps after all
 *   a yield takes long           others than waiters use the CPU: sleep, too
 *
 * The very next in line looks for a little while before it gives way. */
#include "slow/slow.h"

#include <sched.h>

#include "hv/futex.h"
#include "hv/park.h"

#define PLK_NEXT_TURNS 300u
#define PLK_STAY_WAKES 4u
#define PLK_STAY_LEAST_NS 100000u
/* Longer than the turns of a crowd take together, shorter than a time slice. */
#define PLK_YIELD_LONG_NS 1000000u

static int plk_stays_awake(struct plk_wait *w, uint64_t head)
{
    const struct plk_domain *domain = w->lock->domain;
    uint64_t queue = PLK_LOAD(&w->lock->cell->tail) - head;

    if (PLK_QUEUES(w))
        return 0; /* the queue of a bounded lock is for sleeping */
    return w->ticket - head <= domain->ahead || queue <= domain->crowd;
}

static int plk_look_a_while(const struct plk_wait *w)
{
    unsigned turns;

    for (turns = 0; turns < PLK_NEXT_TURNS; turns++) {
        if (PLK_LOAD_ACQUIRE(&w->lock->cell->head) == w->ticket)
            return 1;
        PLK_CPU_RELAX();
    }
    return 0;
}

/* Give way once.  0: it is time to sleep. */
static int plk_give_way(struct plk_wait *w, uint64_t head)
{
    const struct plk_domain *domain = w->lock->domain;
    uint64_t stay = (uint64_t)PLK_STAY_WAKES * PLK_LOAD(&domain->wake_ns), now = plk_now(), after;

    if (head != w->seen || w->asleep_at == 0) {
        w->seen = head;
        w->asleep_at = now + (stay > PLK_STAY_LEAST_NS ? stay : PLK_STAY_LEAST_NS);
    }
    if (now >= w->asleep_at)
        return 0; /* nor after this sleep, unless head has moved */
    if (w->ticket - head <= domain->spin_near && plk_spin_turns(w->lock->domain) != 0 &&
        !PLK_VCPU_PREEMPTED(w, head) && plk_look_a_while(w))
        return 1;
    PLK_EVENT(w->seat->vcpu, yields);
    sched_yield();
    after = plk_now();
    if (after - now > PLK_YIELD_LONG_NS)
        w->asleep_at = after;
    if (after >= w->watch)
        plk_watch_by_clock(w);
    return 1;
}

long plk_slow_futex(struct plk_wait *w, uint64_t head)
{
    PLK_SITE_FRAME();
    if (plk_stays_awake(w, head) && plk_give_way(w, head))
        return PLK_HINT_NONE;
    return plk_park(w);
}
