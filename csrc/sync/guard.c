/* sync/guard.c - with the guard: in, out, what the dead left, what is done there for those outside. */
#include "sync/sync.h"

#include "hv/directory.h"
#include "hv/futex.h"
#include "hv/park.h"
#include "hv/vcpu.h"

static void plk_at_settle(struct plk_at *at)
{
    at->more = 0;
    at->kind->settle(at);
}

static void plk_bury_visit(struct plk_at *at, struct plk_node *node, int alive, void *arg)
{
    (void)arg;
    if (!alive)
        plk_queue_bury(at, node);
}

/* A thread died with the guard.  Should this one, too, then the guard says so still, and the next begins anew. */
static void plk_at_repair(struct plk_at *at)
{
    plk_queue_rebuild(at);
    plk_nodes_visit(at, plk_bury_visit, NULL);
    if (at->kind->repair != NULL)
        at->kind->repair(at);
    plk_at_settle(at);
    plk_mark_consistent(&at->ref->guard);
}

int plk_at_enter(struct plk_at *at, struct plk_ref *ref, struct plk_seat *seat, uint64_t until)
{
    struct plk_wait w;
    uint64_t least;
    int rc;

    if (plk_seats == NULL)
        plk_seats = plk_thread_seats();
    at->s = plk_segment_of(ref->guard.domain);
    at->ref = ref;
    at->sync = ref->sync;
    at->seat = seat;
    at->kind = plk_kind_of(ref->kind);
    at->id = ref->guard.id;
    at->wakes = 0;
    at->more = 0;
    at->holds = 0;
    rc = plk_take_seated(&ref->guard, seat, &w);
    if (PLK_UNLIKELY(rc == 1) && until != PLK_FOREVER) {
        least = plk_now() + PLK_KEPT_NS;
        w.deadline = until > least ? until : least;
    }
    while (rc == 1 || rc == -EINTR)
        rc = plk_wait_turn(&w);
    if (rc != 0)
        return rc;
    at->epoch = PLK_GENERATION_OF(PLK_LOAD(&ref->guard.cell->flags));
    if (PLK_UNLIKELY(plk_entered(&ref->guard) == PLK_OWNER_DIED))
        plk_at_repair(at);
    return 0;
}

void plk_at_leave(struct plk_at *at, int settle)
{
    uint32_t i;

    do {
        if (settle || at->more)
            plk_at_settle(at);
        plk_unlock(&at->ref->guard);
        for (i = 0; i < at->wakes; i++)
            plk_futex_wake(at->wake[i], PLK_ANY_BIT);
        settle = 1;
    } while (at->more && plk_at_enter(at, at->ref, at->seat, 0) == 0); /* else a waiter's watchdog goes on */
}

/* Dead ones out; those who should be awake by now are woken once more, for who was to do it may have died. */
static void plk_sweep_visit(struct plk_at *at, struct plk_node *node, int alive, void *arg)
{
    uint32_t state = PLK_LOAD(&node->state);

    (void)arg;
    if (!alive)
        plk_queue_bury(at, node);
    else if ((state == PLK_NODE_CALLED || state == PLK_NODE_GRANTED) && at->wakes < PLK_WAKES)
        plk_at_wake(at, node);
}

static int plk_sweep_due(struct plk_sync *sync)
{
    uint64_t last = PLK_LOAD(&sync->swept_ns), now = plk_now();

    return now - last >= plk_watchdog() / 3 &&
           __atomic_compare_exchange_n(&sync->swept_ns, &last, now, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

int plk_at_sweep(struct plk_at *at)
{
    if (!plk_sweep_due(at->sync))
        return 0;
    plk_nodes_visit(at, plk_sweep_visit, NULL);
    if (at->kind->look != NULL)
        at->kind->look(at);
    return 1;
}

static int plk_sync_look(struct plk_ref *ref, struct plk_seat *seat)
{
    struct plk_at at;

    if (plk_now() - PLK_LOAD(&ref->sync->swept_ns) < plk_watchdog() / 3 || plk_at_enter(&at, ref, seat, 0) != 0)
        return 0;
    plk_at_leave(&at, plk_at_sweep(&at));
    return 1;
}

static int plk_sync_act(struct plk_ref *ref, struct plk_seat *seat, uint32_t what, uint64_t value)
{
    struct plk_at at;
    int settles = what == PLK_ACT_SETTLE, rc = plk_at_enter(&at, ref, seat, settles ? 0 : PLK_FOREVER);

    if (rc != 0) /* what has changed stands in the word, for who waits to look after */
        return settles && rc == -ETIMEDOUT ? 0 : rc;
    if (!settles)
        rc = at.kind->act != NULL ? at.kind->act(&at, what, value) : -EINVAL;
    plk_at_leave(&at, 1);
    return rc;
}

const struct plk_sync_api plk_the_sync_api = {
    .init = plk_guard_bind,
    .begin = plk_sync_begin,
    .wait = plk_sync_wait,
    .leave = plk_sync_leave,
    .aside = plk_sync_aside,
    .back = plk_sync_back,
    .act = plk_sync_act,
    .look = plk_sync_look,
};
