/* sync/wait.c - a thread waits for an object: queue, sleep, try, leave.
 *
 * [Y1]
 *   W, the waiter                                  G, who gives (semaphore, mutex)
 *   with the guard: nothing to take: QUEUED;       word = word + 1, and in the same step:
 *     word: WAITERS, in one step with the look       WAITERS, and not CALLED?
 *     that there is nothing                        with the guard: node CALLED
 *   sleep while the node is QUEUED                 wake it
 *
 * Either G's step comes first, and W's fails and finds something to take; or W's comes first, and G sees
 * WAITERS.  G leaves the call to W's predecessor if it sees CALLED: that one, when it has taken or found
 * nothing, takes CALLED back or calls the next, again in one step with a look at the word.  So whenever there is
 * something to take and somebody waits, somebody has been called, is about to be, or has just come; if
 * that one dies at it, or is stopped, those who sleep notice:
 *
 * The watchdog.  A sleep lasts PLK_WATCHDOG_NS times the distance from the head of the queue (hv/park.h), then
 * the sleeper takes the guard, takes out the dead, wakes again who should be awake, and settles.  Each look makes the
 * next one come after twice as long, up to 16 times: what is waited for here may be hours in coming.
 *
 * Barging, and its bound.  Newcomers take what is there although others wait; that keeps the object going
 * round among those who have CPUs.  Who is called and finds nothing for PLK_BOUND_NS is overdue: nobody
 * but the called may take until it has.  Called is always the first in the queue.
 *
 * A guard that is kept.  Who has the guard needs it for some tens of ns, but may be stopped in them (SIGSTOP,
 * a debugger); and the guard may have been written over.  Deadlines and signals count all the same.  Who
 * wants the guard for a wait does so until its deadline or pause, and for PLK_KEPT_NS at least, so that no crowd
 * and no busy machine is taken for that; who only looks after the queue, or has what it wanted, no
 * longer.  Then either it has not queued yet, and leaves the guard's queue as anybody does.  Or it has, and
 * deserts its node: that is a dead thread's from now on (node.c), and whoever has the guard next deals with it as
 * with any.  Who had been called and has taken what it wanted has got it.
 * Those who give wait for the guard for as long as it takes, but for those who have changed the word: that is
 * all that their call says, and whoever sleeps looks at the word by its watchdog. */
#include "sync/sync.h"

#include "hv/futex.h"
#include "hv/park.h"
#include "hv/reserve.h"
#include "hv/vcpu.h"

#define PLK_LOOKS_MOST 4 /* 2^4 */

/* The wait is over, with the guard, or never had a node in a queue. */
static void plk_wait_release(struct plk_sync_wait *w, struct plk_at *at)
{
    w->result = PLK_LOAD(&w->node->result);
    if (at->holds)
        PLK_STORE_RELEASE(&w->node->state, PLK_NODE_HELD);
    else
        plk_node_free(at->s, w->seat, w->node);
    w->node = NULL;
}

/* It is too late for the guard: is it for the wait? */
static int plk_sync_late(const struct plk_sync_wait *w) { return plk_now() >= w->deadline ? -ETIMEDOUT : -EINTR; }

static uint64_t plk_sync_until(const struct plk_sync_wait *w)
{
    return w->deadline < w->pause ? w->deadline : w->pause;
}

static int plk_sync_queue(struct plk_sync_wait *w, uint64_t until)
{
    struct plk_segment *s = plk_segment_of(w->ref->guard.domain);
    struct plk_at at;
    int rc = plk_node_take(w->ref, w->seat, &w->node);

    if (rc != 0)
        return rc;
    PLK_STORE(&w->node->data[0], w->want);
    w->forks = plk_forks();
    w->watch = 0;
    w->looks = 0;
    w->since = 0;
    rc = plk_segment_shut(s) ? -ESHUTDOWN : plk_at_enter(&at, w->ref, w->seat, until);
    if (rc == -ETIMEDOUT)
        rc = plk_sync_late(w);
    else if (rc == 0) {
        rc = at.kind->attempt(&at, w->node, 0);
        if (rc == -EAGAIN && w->deadline != 0) {
            plk_queue_add(&at, w->node);
            plk_at_leave(&at, 1);
            return 1;
        }
        if (rc == 0)
            plk_wait_release(w, &at);
        plk_at_leave(&at, 1);
    }
    if (w->node != NULL)
        plk_node_free(s, w->seat, w->node);
    w->node = NULL;
    return rc == -EAGAIN ? -ETIMEDOUT : rc;
}

int plk_sync_begin(struct plk_sync_wait *w) { return plk_sync_queue(w, w->deadline); }

/* Nobody else touches the node any more. */
static void plk_sync_granted(struct plk_sync_wait *w)
{
    w->result = PLK_LOAD(&w->node->result);
    if (plk_kind_of(w->ref->kind)->holds)
        PLK_STORE_RELEASE(&w->node->state, PLK_NODE_HELD);
    else
        plk_node_free(plk_segment_of(w->ref->guard.domain), w->seat, w->node);
    w->node = NULL;
}

static void plk_sync_desert(struct plk_sync_wait *w)
{
    w->result = PLK_LOAD(&w->node->result);
    plk_node_desert(plk_segment_of(w->ref->guard.domain), w->seat, w->node);
    w->node = NULL;
}

/* Give up, without the guard.  0: its turn had come; or rc. */
static int plk_sync_forsake(struct plk_sync_wait *w, int rc)
{
    if (PLK_LOAD_ACQUIRE(&w->node->state) == PLK_NODE_GRANTED) {
        plk_sync_granted(w);
        return 0;
    }
    plk_sync_desert(w);
    return rc;
}

/* Out of the queue, with what the node says or `rc` says it has got. */
static int plk_sync_depart(struct plk_sync_wait *w, struct plk_at *at, int rc)
{
    plk_queue_remove(at, w->node);
    plk_wait_release(w, at);
    plk_at_leave(at, 1);
    return rc;
}

/* Called: is there anything to take?  0: taken; 1: no, and it waits on; or negative. */
static int plk_sync_try(struct plk_sync_wait *w)
{
    const struct plk_kind_ops *kind = plk_kind_of(w->ref->kind);
    int taken = kind->quick != NULL && kind->quick(w) == 0, rc;
    struct plk_at at;

    rc = plk_at_enter(&at, w->ref, w->seat, taken ? 0 : plk_sync_until(w));
    if (rc != 0 && taken) {
        plk_sync_desert(w);
        return 0;
    }
    if (rc == -ETIMEDOUT && (rc = plk_sync_late(w)) == -EINTR)
        return rc;
    if (rc != 0)
        return plk_sync_forsake(w, rc);
    if (PLK_LOAD(&w->node->state) != PLK_NODE_CALLED) { /* granted meanwhile */
        plk_at_leave(&at, 0);
        return 1;
    }
    rc = taken ? 0 : kind->attempt(&at, w->node, 1);
    if (rc != -EAGAIN)
        return plk_sync_depart(w, &at, rc);
    if (plk_now() - w->node->called_ns >= PLK_BOUND_NS)
        w->node->overdue = 1;
    PLK_STORE(&w->node->state, PLK_NODE_QUEUED);
    w->watch = 0;
    w->looks = 0;
    plk_at_leave(&at, 1);
    return 1;
}

/* When to look after the queue next. */
static uint64_t plk_sync_watch(const struct plk_sync_wait *w, uint64_t now)
{
    struct plk_segment *s = plk_segment_of(w->ref->guard.domain);
    uint32_t first = PLK_LOAD(&w->ref->sync->first);
    struct plk_node *head;
    uint64_t distance = 0;

    /* What was written over may name a node that has no memory. */
    if (first != 0 && plk_reserve_node(s, first - 1, &head) == 0)
        distance = w->node->arrival - PLK_LOAD(&head->arrival);

    return now + (plk_watchdog() * plk_watch_times(distance) << (w->looks < PLK_LOOKS_MOST ? w->looks : PLK_LOOKS_MOST));
}

static void plk_sync_tend(struct plk_sync_wait *w)
{
    struct plk_at at;

    w->watch = 0;
    w->looks++;
    if (plk_at_enter(&at, w->ref, w->seat, 0) != 0) /* and see whether it has been called meanwhile */
        return;
    plk_at_sweep(&at);
    plk_at_leave(&at, 1);
}

/* QUEUED.  0: look at the state again; else what to return. */
static int plk_sync_sleep(struct plk_sync_wait *w)
{
    struct plk_vcpu *me = w->seat->vcpu;
    uint64_t now = plk_now(), until = plk_sync_until(w);
    enum plk_sleep how;

    if (now >= w->deadline)
        return plk_sync_leave(w) == 0 ? -ETIMEDOUT : 1;
    if (now >= w->pause)
        return -EINTR;
    if (w->watch == 0)
        w->watch = plk_sync_watch(w, now);
    else if (now >= w->watch) {
        plk_sync_tend(w);
        return 0;
    }
    if (PLK_LOAD(&w->node->state) > PLK_NODE_GRANTED || PLK_LOAD(&w->node->state) == PLK_NODE_FREE) {
        plk_nap(until); /* it has been written over */
        return 0;
    }
    if (w->since == 0)
        w->since = now;
    PLK_STORE(&me->wanted, w->ref->guard.id);
    PLK_STORE_RELEASE(&me->wait_since, w->since);
    how = plk_futex_wait(&w->node->state, PLK_NODE_QUEUED, PLK_ANY_BIT, until < w->watch ? until : w->watch);
    PLK_STORE_RELEASE(&me->wait_since, 0); /* not while it has the guard: nobody waits for itself */
    if (how == PLK_SLEEP_UNSUPPORTED)
        plk_nap(until);
    return how == PLK_SLEEP_INTERRUPTED ? -EINTR : 0;
}

int plk_sync_wait(struct plk_sync_wait *w)
{
    int rc = w->node == NULL ? plk_sync_queue(w, plk_sync_until(w)) : 1;

    while (rc > 0) {
        switch (PLK_LOAD_ACQUIRE(&w->node->state)) {
        case PLK_NODE_GRANTED:
            plk_sync_granted(w);
            return 0;
        case PLK_NODE_CALLED:
            rc = plk_sync_try(w);
            break;
        case PLK_NODE_ASIDE: /* the guard was not to be had when it came back */
            plk_sync_back(w);
            /* fall through */
        default: /* QUEUED */
            rc = plk_sync_sleep(w);
            if (rc == 1)
                return 0;
            rc = rc == 0 ? 1 : rc;
        }
    }
    return rc;
}

int plk_sync_leave(struct plk_sync_wait *w)
{
    struct plk_at at;
    int granted;

    if (w->node == NULL)
        return 0;
    if (plk_at_enter(&at, w->ref, w->seat, 0) != 0)
        return plk_sync_forsake(w, -ETIMEDOUT) == 0;
    granted = PLK_LOAD(&w->node->state) == PLK_NODE_GRANTED;
    if (granted)
        plk_sync_granted(w);
    else {
        plk_queue_remove(&at, w->node);
        plk_wait_release(w, &at);
    }
    plk_at_leave(&at, 1);
    return granted;
}

void plk_sync_aside(struct plk_sync_wait *w)
{
    struct plk_at at;
    uint32_t state;

    if (w->node == NULL || plk_at_enter(&at, w->ref, w->seat, 0) != 0)
        return;
    state = PLK_LOAD(&w->node->state);
    if (state == PLK_NODE_QUEUED || state == PLK_NODE_CALLED)
        PLK_STORE(&w->node->state, PLK_NODE_ASIDE);
    plk_at_leave(&at, state == PLK_NODE_CALLED);
}

int plk_sync_back(struct plk_sync_wait *w)
{
    struct plk_at at;

    if (w->forks != plk_forks()) {
        w->node = NULL;
        return -ECHILD;
    }
    if (w->node == NULL || plk_at_enter(&at, w->ref, w->seat, 0) != 0)
        return 0;
    if (PLK_LOAD(&w->node->state) == PLK_NODE_ASIDE)
        PLK_STORE(&w->node->state, PLK_NODE_QUEUED);
    plk_at_leave(&at, 1);
    /* It has run other code meanwhile, which the same wait_since would hide (hv/deadlock.c). */
    PLK_STORE_RELEASE(&w->seat->vcpu->shifts, PLK_LOAD(&w->seat->vcpu->shifts) + 1);
    return 0;
}
