/* hv/park.c - the wait/kick service.
 *
 * A ticket's event channel is chosen by hash; the futex word is the channel's
 * sequence number, which every kick bumps, and the ticket's own bit of the
 * futex bitset tells most aliases on one channel apart.
 *
 * [K1] The order of plk_park, step by step, against plk_unlock (fast.h):
 *
 *   1  read seq            before 4, so that a kick after 4 changes it and the
 *                          kernel's own comparison refuses to sleep
 *   2  parked += 1         before 4: the kicker asks here whether to wake
 *   3  slow raised         before 4: the unlocker asks here whether to kick
 *      fence               pairs with unlock_barrier (or stands in for it:
 *                          hv/barrier.c) and the new head of plk_pass_on
 *   4  look at head        served already: do not sleep
 *   5  sleep while seq is unchanged
 *   6  parked -= 1
 *
 * If the unlocker's look at slow or parked misses 2 or 3, its store of head
 * precedes the fence, and 4 sees it.  Who sees `parked` bumps seq: either
 * before 5, which then does not sleep, or after, and the wake finds the sleeper.
 *
 * Nothing hangs on a kick all the same: a sleep is bounded by the watchdog. */
#include "hv/park.h"

#include <sched.h>

#include "hv/barrier.h"
#include "hv/futex.h"
#include "hv/watch.h"

static uint64_t plk_watchdog_ns = PLK_WATCHDOG_NS;

uint64_t plk_watchdog(void) { return PLK_LOAD(&plk_watchdog_ns); }

void plk_watchdog_set(uint64_t ns) { PLK_STORE(&plk_watchdog_ns, ns != 0 ? ns : PLK_WATCHDOG_NS); }

/* When to look next, unless that is settled. */
static void plk_watch_set(struct plk_wait *w, uint64_t now)
{
    uint64_t distance = w->ticket - PLK_LOAD(&w->lock->cell->head);

    if (distance > PLK_WATCHDOG_FAR)
        distance = PLK_WATCHDOG_FAR;
    if (w->watch == 0)
        w->watch = now + plk_watchdog() * (distance + 1);
}

void plk_watch_by_clock(struct plk_wait *w)
{
    uint64_t now = plk_now();

    plk_watch_set(w, now);
    if (now >= w->watch) {
        w->watch = 0;
        plk_watch(w);
    }
}

static struct plk_channel *plk_channel_of(const struct plk_segment *s, uint64_t id, uint64_t ticket,
                                          uint32_t *bit)
{
    uint64_t hash = plk_mix(id, ticket);

    *bit = 1u << (hash >> 59);
    return &plk_channels(s)[hash & (s->geometry.channels - 1)];
}

long plk_park(struct plk_wait *w)
{
    struct plk_segment *s = plk_segment_of(w->lock->domain);
    struct plk_cell *cell = w->lock->cell;
    struct plk_vcpu *me = w->seat->vcpu;
    uint64_t until = w->deadline < w->pause ? w->deadline : w->pause;
    struct plk_channel *channel;
    enum plk_sleep how;
    uint32_t bit, seq;

    PLK_SITE_FRAME();
    plk_watch_set(w, w->watch == 0 ? plk_now() : 0);
    channel = plk_channel_of(s, w->lock->id, w->ticket, &bit);

    seq = PLK_LOAD_ACQUIRE(&channel->seq);                         /* 1 */
    PLK_STORE_RELEASE(&me->channel, (uint32_t)(channel - plk_channels(s)) + 1); /* [D4] */
    __atomic_fetch_add(&channel->parked, PLK_PARK_ENTER, __ATOMIC_SEQ_CST); /* 2 */
    plk_slow_raise(s, cell);                                       /* 3 */
    /* [K1] its fence pairs with unlock_barrier in plk_unlock, with the fence of
     * plk_serve_next, and with the new head of plk_pass_on */
    how = PLK_SLEEP_WOKEN;
    if (PLK_LOAD_ACQUIRE(&cell->head) != w->ticket) {              /* 4 */
        PLK_EVENT(me, parks);
        how = plk_futex_wait(&channel->seq, seq, bit, until < w->watch ? until : w->watch); /* 5 */
        if (PLK_LOAD_ACQUIRE(&cell->head) != w->ticket) {
            if (how == PLK_SLEEP_WOKEN)
                PLK_EVENT(me, spurious);
            else if (how == PLK_SLEEP_TIMED_OUT && w->watch <= until)
                PLK_EVENT(me, watchdogs);
        }
    }
    __atomic_fetch_sub(&channel->parked, PLK_PARK_LEAVE, __ATOMIC_SEQ_CST); /* 6 */
    PLK_STORE_RELEASE(&me->channel, 0); /* [D4] */

    if (how == PLK_SLEEP_UNSUPPORTED)
        sched_yield();
    /* However the sleep ended: signals that come often must not starve this. */
    plk_watch_by_clock(w);
    return how == PLK_SLEEP_INTERRUPTED ? PLK_HINT_INTERRUPTED : PLK_HINT_NONE;
}

void plk_kick(struct plk_segment *s, struct plk_vcpu *me, uint64_t id, uint64_t head)
{
    uint32_t bit;
    struct plk_channel *channel = plk_channel_of(s, id, head, &bit);

    PLK_SITE_FRAME();
    if (PLK_PARKED(PLK_LOAD_ACQUIRE(&channel->parked)) == 0) {
        PLK_EVENT(me, empty_kicks);
        return;
    }
    __atomic_fetch_add(&channel->seq, 1, __ATOMIC_SEQ_CST);
    if (plk_futex_wake(&channel->seq, bit) > 0)
        PLK_EVENT(me, kicks);
    else
        PLK_EVENT(me, empty_kicks);
}
