/* waits.c - locks: taken, waited for, left; and how every wait ends. */
#include "targets.h"

#include <string.h>

#include "hv/deadlock.h"
#include "hv/directory.h"
#include "hv/events.h"
#include "hv/futex.h"
#include "hv/leave.h"
#include "hv/park.h"
#include "hv/quick.h"
#include "hv/vcpu.h"
#include "hv/view.h"
#include "hv/watch.h"
#include "patch/choices.h"
#include "slow/slow.h"

int traces;

static struct plk_lock locks[3];

void forget_the_locks(void) { memset(locks, 0, sizeof(locks)); }

/* ------------------------------------------------------------- turns that come */

static plk_op_fn spinning; /* the slow path that was chosen */
static uint64_t turn_cell = UINT64_MAX, turn; /* the ticket that was last waited for, and whose */

/* lock_spinning: every wait for a ticket that lasts comes past here, whichever call it is part of. */
static long note_the_turn(struct plk_wait *w, uint64_t head)
{
    turn_cell = w->lock->id - 1;
    turn = w->ticket;
    return ((long (*)(struct plk_wait *, uint64_t))(void (*)(void))spinning)(w, head);
}

/* What ends a wait in a queue that others have destroyed: its turn comes. */
static void turn_comes(void)
{
    uint64_t none = 0;

    if (turn_cell != UINT64_MAX)
        world_write(world.geometry.off_cells + turn_cell * world.geometry.stride + offsetof(struct plk_cell, head),
                    &turn, sizeof(turn));
    /* and a tombstone finds room, if that is what it waits for */
    world_write(world.geometry.off_tombs, &none, sizeof(none));
    memset(plk_tombs(segment), 0, segment->geometry.tombs * sizeof(uint64_t));
}

void about_to_wait(const struct plk_lock *lock)
{
    turn_cell = UINT64_MAX;
    world_call(lock->id - 1, turn_comes);
}

static void choose(enum plk_op op, const char *name)
{
    const struct plk_choice *c;
    uint32_t i;

    for (i = 0; (c = plk_choice_at(i)) != NULL; i++)
        if (c->op == op && strcmp(c->name, name) == 0)
            plk_module_ops.fn[op] = c->fn;
}

void choose_ways(void)
{
    int native = segment->face.protocol == PLK_NATIVE;

    choose(PLK_OP_cpu_relax, native ? "yield" : "pause");
    choose(PLK_OP_lock_spinning, native ? "native" : one_in(4) ? "yield" : one_in(3) ? "hosted" : "futex");
    spinning = plk_module_ops.fn[PLK_OP_lock_spinning];
    plk_module_ops.fn[PLK_OP_lock_spinning] = (plk_op_fn)(void (*)(void))note_the_turn;
    choose(PLK_OP_unlock_kick, native ? "off" : one_in(3) ? "hosted" : "kick");
    choose(PLK_OP_vcpu_preempted, native || one_in(2) ? "off" : one_in(2) ? "bpf" : "same_cpu");
    traces = one_in(4);
    choose(PLK_OP_lock_event, traces ? "trace" : one_in(4) ? "off" : "counters");
    plk_events_start();
    plk_segment_spin(segment, 1 + below(3), below(3));
    plk_segment_crowd(segment, below(4), below(3), 1 + below(3));
    plk_segment_learn(segment, below(3) * 3000, below(3));
}

/* ----------------------------------------------------------------- waiting */

uint64_t soon(void) { return plk_now() + (one_in(4) ? 0 : 1000000ull << below(10)); }

/* Give up a wait.  0: its turn has come meanwhile. */
static int wait_is_over(struct plk_wait *w)
{
    int rc;

    if (w->gate == NULL) {
        while ((rc = plk_leave(w)) == -ENOSPC)
            plk_nap(PLK_FOREVER);
        return rc < 0 ? rc : -EINTR;
    }
    w->deadline = 0;
    w->pause = PLK_FOREVER;
    do
        rc = plk_wait_turn(w);
    while (rc == -EINTR);
    return rc;
}

/* As an event loop waits: another thread would sleep now. */
static void keep_vigil(struct plk_wait *w)
{
    struct plk_vigil vigil;

    if (plk_vigil_begin(w, &vigil) && PLK_LOAD(vigil.word) == vigil.seq)
        plk_vigil_look(w);
    plk_vigil_end(w, &vigil);
}

/* As pylocks._lock waits: it looks at signals every so often, and leaves if one says so. */
static int64_t wait_and_leave(struct plk_lock *lock, int depth)
{
    struct plk_wait w;
    int rc = plk_take(lock, &w), nested;

    if (rc <= 0)
        return rc;
    for (;;) {
        w.deadline = soon() + 1000000000;
        w.pause = soon();
        if (w.gate == NULL && one_in(8))
            keep_vigil(&w);
        rc = plk_wait_turn(&w);
        if (rc != -EINTR)
            return rc;
        if (depth > 0) { /* the handler of a signal takes a lock, too */
            nested = plk_nest(&w);
            if (nested == 0) {
                struct plk_lock *other = &locks[below(3)];

                if (other->cell == NULL)
                    other = lock;
                about_to_wait(other);
                rc = (int)wait_and_leave(other, depth - 1);
                if (rc >= 0)
                    result(T_unlock, plk_unlock(other));
                about_to_wait(lock);
                if (plk_unnest(&w) != 0)
                    fail("a wait of this process is taken for another's");
            }
        }
        if (one_in(2))
            continue;
        return wait_is_over(&w);
    }
}

void use_a_lock(void)
{
    struct plk_lock *lock = &locks[below(3)];
    uint32_t index = an_index(world.geometry.cells);
    uint32_t way = below(8);
    int64_t rc;

    if (lock->cell == NULL && result(T_cell_bind, plk_cell_bind(lock, &segment->face, index)) != 0)
        return;
    about_to_wait(lock);
    switch (way) {
    case 0: rc = result(T_trylock, plk_trylock(lock)); break;
    case 1: case 2: result(T_unlock, plk_unlock(lock)); return;
    case 5: /* who holds the queue of a gate has no ticket that could come */
        rc = lock->policy == PLK_FIFO ? result(T_acquire, plk_acquire(lock))
                                      : result(T_acquire_until, plk_acquire_until(lock, soon()));
        break;
    case 6: rc = result(T_wait_and_leave, wait_and_leave(lock, 0)); break;
    case 7: rc = result(T_nested_wait, wait_and_leave(lock, 2)); break;
    default: rc = result(T_acquire_until, plk_acquire_until(lock, soon())); break;
    }
    if (rc == PLK_OWNER_DIED && one_in(2))
        result(T_mark_consistent, plk_mark_consistent(lock));
    if (rc >= 0 && traces) /* no site is patched here */
        plk_trace_entered(lock, plk_seat_of(lock->domain));
    if (rc >= 0 && !one_in(3)) {
        about_to_wait(lock);
        if (traces)
            plk_trace_left(lock, plk_seat_of(lock->domain));
        result(T_unlock, plk_unlock(lock));
    }
}

/* Among slots and owners as they happen to be, as one that waits for any lock. */
static void look_for_a_cycle(struct plk_wait *w)
{
    struct plk_vcpu *me = w->seat->vcpu;
    struct plk_member member;
    uint32_t count;
    int found;

    PLK_STORE(&me->wanted, 1 + an_index(world.geometry.cells));
    PLK_STORE(&me->wait_since, 1);
    found = plk_search(w);
    result(T_search, found);
    count = plk_cycle_found(plk_segment_address(segment), 0, &member);
    if (found && (count < 2 || member.vcpu != w->seat->tag - 1))
        fail("a cycle of %u that begins with vCPU %u", count, member.vcpu);
    PLK_STORE(&me->wait_since, 0);
}

void look_after_a_lock(void)
{
    static struct plk_wait w;

    if (locks[0].cell == NULL || !world.enrolled)
        return;
    w = (struct plk_wait){.lock = &locks[0], .seat = plk_seat_even_closed(&segment->face),
                          .ticket = PLK_LOAD(&locks[0].cell->tail)};
    about_to_wait(&locks[0]);
    if (one_in(2))
        look_for_a_cycle(&w);
    else {
        plk_watch(&w);
        result(T_watch, 0);
    }
}
