/* slow/hosted.c - wait and kick as hypercalls: a vCPU asks, the hypervisor service does.
 *
 * Who is there.  A waiter W, which has a ticket; an unlocker U, which has moved head; the service
 * S, one thread of some process, or none.  W and U each have a page in their slot (plk_vcpu.hypercall),
 * where each writes what it asks for, and ring the doorbell, a futex in the header on which S sleeps.
 *
 *       wait   W writes WAIT, rings, and sleeps on its ticket's event channel (hv/park.c).
 *       kick   U writes KICK = the cell, rings, and goes on; S reads head and kicks its channel.
 *
 * W sleeps as anybody does who parks, so whoever moves head finds it in the same place: S, an
 * unlocker that waits in its own way and knows nothing of S, a leaver, a recoverer.  A kick that was
 * asked for before W published its sleep is not lost, by [K1]: W looks at head after that.  WAIT
 * carries no duty, then; it tells S who queues where, and S looks whether the owner lives: the death
 * of a thread in a living process is found so.
 *
 * [H1] No request is lost between U and S:
 *
 *       U                                   S
 *   1   KICK = cell       (release)     a   bells = doorbell, which becomes 0
 *   2   doorbell |= mine  (full fence)  b   look at the pages of those bells, serve
 *   3   wake on doorbell                c   KICK = 0  (release)
 *   4   look at service_vcpu            d   sleep while doorbell is 0
 *
 * If b does not see 1, then a came before 2, and the bell stays: d does not sleep, or 3 finds it asleep.
 *
 * One page holds one kick.  U writes it only where 0 stands, and S clears it only after the kick, so
 * nothing is overwritten.  Where it does not stand at 0, S is behind, stopped, or dead: U kicks
 * by itself.  So a service that is stopped costs each vCPU one kick.
 *
 * S serves *head*, which it reads after a, not a ticket that U names: a request is as good as the one
 * that comes after it, and to serve one twice does no harm.
 *
 * S stops: service_vcpu = 0, fence, a last look at all pages.  Against 1, 2, 4: U finds no service at 4 and
 * kicks by itself, or S finds the kick.
 *
 * S dies, at any step: the kernel marks its life word.  Who comes to 4 after that kicks by itself.  Who
 * came before has left KICK in its page, because of c; the next S begins with all bells rung and
 * finds it.  Until then, or if there is none, W sleeps to its watchdog bound, as when the unlocker
 * itself dies between head and kick, and then looks after its queue (hv/watch.c); so does whoever waits behind it.
 *
 * U dies before 2: its owner record is stale, and its recovery serves head.  After 1 and before 2, that too,
 * and S, which looks at all pages now and then.  W dies: its recovery sees to its ticket, and S, if it
 * still finds WAIT, only looks at a cell.  Whoever takes
 * a slot leaves KICK as it finds it, and kicks by itself until S has cleared it: else S, still at the former
 * thread's request, would take down the new one's.
 *
 * Without a service: as futex.  The queue of a bounded lock is called by its own rules (hv/bounded.c). */
#include "slow/slow.h"

#include "hv/leave.h"
#include "hv/park.h"
#include "hv/service.h"

static uint32_t plk_my_index(const struct plk_seat *seat) { return (uint32_t)(seat->tag - 1); }

/* By another thread: the service itself waits and kicks as anybody does who has none. */
static int plk_is_served(struct plk_segment *s, const struct plk_seat *seat)
{
    int64_t service = plk_service_index(s);

    return service >= 0 && service != (int64_t)plk_my_index(seat);
}

long plk_slow_hosted(struct plk_wait *w, uint64_t head)
{
    struct plk_segment *s = plk_segment_of(w->lock->domain);

    PLK_SITE_FRAME();
    if (PLK_QUEUES(w) || !plk_is_served(s, w->seat))
        return plk_slow_futex(w, head);
    PLK_STORE_RELEASE(&w->seat->vcpu->hypercall[PLK_CALL_WAIT], w->lock->id);
    plk_service_ring(s, plk_my_index(w->seat));
    return plk_park(w);
}

void plk_kick_hosted(struct plk_lock *lock, struct plk_seat *seat, uint64_t head)
{
    struct plk_segment *s = plk_segment_of(lock->domain);
    uint64_t *kick = &seat->vcpu->hypercall[PLK_CALL_KICK], none = 0;

    PLK_SITE_FRAME();
    if (lock->policy != PLK_BOUNDED && PLK_LOAD(kick) == 0 && plk_is_served(s, seat) &&
        __atomic_compare_exchange_n(kick, &none, lock->id, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) { /* 1 */
        plk_service_ring(s, plk_my_index(seat));       /* 2, 3 */
        /* [H1] the bell is a full fence; pairs with that of plk_service_end */
        if (plk_service_lives(s))                      /* 4 */
            return;
    }
    plk_serve_next(lock, seat, head);
}
