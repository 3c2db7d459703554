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
 * Kick at park.  A waiter that is about to sleep gives a CPU away, so it wakes
 * the first sleeper among the next in line, there where it is: in the same
 * CPU's run queue, with no critical section waiting for it.  So the next are
 * awake when their turns come, and most unlockers have nobody to wake.
 *
 * Each is woken once: `kicked` says which ticket was.  An unlocker that finds its
 * successor's there makes no call.  What if the one who was kicked sleeps again,
 * because its turn is long in coming?
 *
 *       W, ticket t                        U, serving t           K, kicking t early
 *   1   read seq
 *   1a  kicked = 0                                                kicked = t
 *   2-3 as above, fence                    head = t               seq += 1
 *   4   look at head                       barrier                wake
 *   5   sleep while seq is unchanged       kicked == t ? : kick
 *
 * If 4 misses U's head, U sees 0, unless K has stored after 1a.  Then K's bump and
 * wake come after 1, and W does not sleep through them; once awake it looks at
 * head.  K wakes even where nobody sleeps any more, so U may rely on it.  (1a before
 * 1 would be wrong: K could do all of it in between.)
 * Another ticket's kick on the channel overwrites the word: then t is kicked twice.
 *
 * Nothing hangs on a kick all the same: a sleep is bounded by the watchdog, and
 * whoever looks after the queue kicks without asking who has been kicked.  The mark
 * of a K that dies before its wake is taken down by recovery (`kicking` in its slot).
 */
#include "hv/park.h"

#include <sched.h>

#include "hv/barrier.h"
#include "hv/bounded.h"
#include "hv/futex.h"
#include "hv/watch.h"

static uint64_t plk_watchdog_ns = PLK_WATCHDOG_NS;

uint64_t plk_watchdog(void) { return PLK_LOAD(&plk_watchdog_ns); }

void plk_watchdog_set(uint64_t ns) { PLK_STORE(&plk_watchdog_ns, ns != 0 ? ns : PLK_WATCHDOG_NS); }

uint64_t plk_watch_times(uint64_t distance)
{
    if (distance > PLK_WATCHDOG_MOST)
        distance = PLK_WATCHDOG_MOST;
    if (distance > PLK_WATCHDOG_MANY)
        distance = distance * PLK_WATCHDOG_FAR / PLK_WATCHDOG_MANY;
    else if (distance > PLK_WATCHDOG_FAR)
        distance = PLK_WATCHDOG_FAR;
    return distance + 1;
}

/* When to look next, unless that is settled. */
static void plk_watch_set(struct plk_wait *w, uint64_t now)
{
    if (w->watch == 0)
        w->watch = now + plk_watchdog() * plk_watch_times(w->ticket - PLK_LOAD(&w->lock->cell->head));
}

void plk_watch_by_clock(struct plk_wait *w)
{
    uint64_t now = plk_now();

    plk_watch_set(w, now);
    if (now >= w->watch) {
        w->watch = 0;
        plk_watch(w);
        if (PLK_QUEUES(w))
            plk_gate_watch(w);
    }
}

struct plk_channel *plk_channel_of(const struct plk_segment *s, uint64_t id, uint64_t ticket, uint32_t *bit)
{
    uint64_t hash = plk_mix(id, ticket);

    *bit = 1u << (hash >> 59);
    return &plk_channels(s)[hash & (s->geometry.channels - 1)];
}

/* A kick has taken so long to come through.  Follows what is cheapest at once and
 * what is dearer slowly: most of a long one is a wait for a CPU. */
static void plk_wake_learn(struct plk_domain *domain, uint64_t took)
{
    uint32_t known = PLK_LOAD(&domain->wake_ns), base = domain->spin_ns, budget;

    if (took > PLK_WAKE_MOST_NS)
        took = PLK_WAKE_MOST_NS;
    if (took < PLK_WAKE_LEAST_NS)
        took = PLK_WAKE_LEAST_NS;
    known = took < known ? (uint32_t)took : known + (uint32_t)((took - known) / 16);
    PLK_STORE(&domain->wake_ns, known);
    if (base == 0)
        return;
    /* Spinning pays for as long as a wake takes; within bounds, as this one may have had a
     * CPU waiting for it and the next will not. */
    budget = known < base / 2 ? base / 2 : known > base * 2 ? base * 2 : known;
    PLK_STORE(&domain->spin_turns, (uint32_t)((uint64_t)budget * 1000 / domain->turn_ps) + 1);
}

/* Wake the first of the next in line who sleeps and has not been woken.  Not on w's own
 * channel: with that it would wake itself, and if two of them were there, again and again. */
static void plk_kick_near(struct plk_segment *s, const struct plk_wait *w, const struct plk_channel *own)
{
    uint64_t head = PLK_LOAD_ACQUIRE(&w->lock->cell->head), t;
    uint32_t bit;

    for (t = head; t < w->ticket && t - head <= s->face.ahead; t++) {
        if (plk_channel_of(s, w->lock->id, t, &bit) != own &&
            plk_kick(s, w->seat->vcpu, w->lock->id, t, PLK_KICK_ONCE))
            return;
    }
}

/* Need w not sleep?  Its ticket is served; and, if that is the queue's of a bounded lock,
 * it has been called to the gate, or the gate stands open. */
static int plk_park_over(const struct plk_wait *w)
{
    if (PLK_LOAD_ACQUIRE(&w->lock->cell->head) != w->ticket)
        return 0;
    return w->stage != PLK_STAGE_STANDBY || w->gate == NULL || plk_queue_called(w);
}

long plk_park(struct plk_wait *w)
{
    struct plk_segment *s = plk_segment_of(w->lock->domain);
    struct plk_vcpu *me = w->seat->vcpu;
    uint64_t until = w->deadline < w->pause ? w->deadline : w->pause, armed = PLK_FOREVER, asleep;
    int queues = PLK_QUEUES(w);
    uint32_t mine = PLK_KICKED(w->lock->id, w->ticket), bit, seq;
    struct plk_channel *channel;
    enum plk_sleep how;

    PLK_SITE_FRAME();
    plk_watch_set(w, w->watch == 0 ? plk_now() : 0);
    channel = plk_channel_of(s, w->lock->id, w->ticket, &bit);

    seq = PLK_LOAD_ACQUIRE(&channel->seq);                         /* 1 */
    if (PLK_LOAD(&channel->kicked) == mine)
        PLK_STORE(&channel->kicked, 0);                            /* 1a */
    PLK_STORE_RELEASE(&me->channel, (uint32_t)(channel - plk_channels(s)) + 1); /* [D4] */
    __atomic_fetch_add(&channel->parked, PLK_PARK_ENTER, __ATOMIC_SEQ_CST); /* 2 */
    PLK_STORE(&channel->cpu, (uint32_t)sched_getcpu() + 1);
    plk_slow_raise(s, queues ? w->gate->cell : w->lock->cell);     /* 3 */
    /* [K1] its fence pairs with unlock_barrier in plk_unlock, with the fence of
     * plk_serve_next, and with the new head of plk_pass_on */
    how = PLK_SLEEP_WOKEN;
    if (!plk_park_over(w)) {                                       /* 4 */
        if (queues)
            armed = plk_queue_arm(w);
        else if (s->face.ahead != 0)
            plk_kick_near(s, w, channel);
        if (until > w->watch)
            until = w->watch;
        PLK_EVENT_AT(&s->face, me, parks, w->lock->id, w->ticket);
        asleep = plk_now();
        how = plk_futex_wait(&channel->seq, seq, bit, until < armed ? until : armed); /* 5 */
        PLK_EVENT_AT(&s->face, me, woken, w->lock->id, w->ticket);
        if (how == PLK_SLEEP_WOKEN && PLK_LOAD(&channel->kicked) == mine &&
            PLK_LOAD(&channel->kicked_ns) >= asleep) /* else it had not fallen asleep yet */
            plk_wake_learn(&s->face, plk_now() - PLK_LOAD(&channel->kicked_ns));
        else if (!plk_park_over(w)) {
            if (how == PLK_SLEEP_WOKEN)
                PLK_EVENT_AT(&s->face, me, spurious, w->lock->id, w->ticket);
            else if (how == PLK_SLEEP_TIMED_OUT && w->watch <= until && until < armed)
                PLK_EVENT(me, watchdogs);
        }
    }
    __atomic_fetch_sub(&channel->parked, PLK_PARK_LEAVE, __ATOMIC_SEQ_CST); /* 6 */
    PLK_STORE_RELEASE(&me->channel, 0); /* [D4] */

    if (how == PLK_SLEEP_UNSUPPORTED)
        sched_yield();
    if (armed != PLK_FOREVER)
        plk_queue_disarm(w, armed);
    /* However the sleep ended: signals that come often must not starve this. */
    plk_watch_by_clock(w);
    return how == PLK_SLEEP_INTERRUPTED ? PLK_HINT_INTERRUPTED : PLK_HINT_NONE;
}

int plk_kick(struct plk_segment *s, struct plk_vcpu *me, uint64_t id, uint64_t ticket, enum plk_kick how)
{
    uint32_t bit, mark = PLK_KICKED(id, ticket);
    struct plk_channel *channel = plk_channel_of(s, id, ticket, &bit);

    PLK_SITE_FRAME();
    if (PLK_PARKED(PLK_LOAD_ACQUIRE(&channel->parked)) == 0 ||
        (how == PLK_KICK_ONCE && PLK_LOAD_ACQUIRE(&channel->kicked) == mark)) {
        PLK_EVENT(me, empty_kicks);
        return 0;
    }
    PLK_EVENT_AT(&s->face, me, kicking, id, ticket);
    PLK_STORE(&channel->kicked_ns, plk_now());
    PLK_STORE(&me->kicking, (uint32_t)(channel - plk_channels(s)) + 1); /* before the mark, for recovery */
    PLK_STORE_RELEASE(&channel->kicked, mark);
    __atomic_fetch_add(&channel->seq, 1, __ATOMIC_SEQ_CST);
    if (plk_futex_wake(&channel->seq, bit) > 0)
        PLK_EVENT_AT(&s->face, me, kicks, id, ticket);
    else
        PLK_EVENT_AT(&s->face, me, empty_kicks, id, ticket);
    PLK_STORE_RELEASE(&me->kicking, 0);
    return 1;
}
