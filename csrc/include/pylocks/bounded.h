/* pylocks/bounded.h - the bounded policy: nearly the throughput of a barging lock, with
 * a bound on waiting; part of fast.h.
 *
 * A bounded lock is two ticket locks.  The gate is the lock proper; the queue is
 * where those wait who find it busy.
 *
 *   barge     the gate is free: take it, by a compare-and-swap of its tail, whoever else
 *             waits.  No waiter is needed for that, so the lock goes round among
 *             those who have CPUs, as fast as the CPUs can hand it on.
 *   spin      one (the spinner) may stay at the gate and try again.
 *   queue     all others take a ticket of the queue and sleep.  Who is served there,
 *             holds the queue.
 *   promote   every PLK_BOUND_NS a holder of the gate, as it leaves, has the holder of
 *             the queue come, and goes to the end of the queue itself the next time, so
 *             that its CPU is free for the other.  Who is promoted takes a ticket
 *             of the gate: it comes next, whoever else is there.  Then it leaves the
 *             queue to the next, who goes on sleeping.
 *
 * The bound.  One is promoted every PLK_BOUND_NS, as long as the gate is used, in the
 * order of the queue.  With n ahead, a waiter comes in after n times that, and the time
 * that each of those needs to get a CPU and the gate's one holder to finish.
 *
 * Why it is correct.  Who is inside has entered the gate, a ticket lock like any
 * other: by a ticket that was served, or by taking one while head was tail.  The queue
 * is another such lock.  So all that is said in fast.h of exclusion and death, and
 * in hv/recovery.c of recovery, holds of the two, whatever is said below: a bounded
 * lock adds no state that has to be recovered.  What it adds is sleep and wake:
 *
 * No lost promotion [B1].  The holder of the queue sleeps until it is promoted or the
 * gate stands open:
 *
 *       U leaves the gate                   W holds the queue (hv/bounded.c)
 *       gate.head = t          (release)    parked += 1; gate.slow = 1
 *       unlock_barrier                      fence
 *       look at gate.slow -> promote        look at the gate -> sleep if it is taken
 *
 * as in K1.  Not every U promotes: it may leave that to somebody promoted who has not
 * come yet; or, for PLK_ARMED_NS, to the sleeper who is armed, that is, sleeps only as
 * long and then looks whether the gate stands open; awake before that, it is armed no more
 * and looks, too.  What if one of those dies?  The dead holder of the queue is recovered
 * as any holder is, and behind all stands the watchdog of the sleepers.
 *
 * Sources: the gate and queue are those of D. Dice and A. Kogan, "Fissile Locks" (2020);
 * that surplus waiters are kept away from the lock, and let in one by one for the
 * sake of fairness, is D. Dice, "Malthusian Locks" (2017). */
#ifndef PYLOCKS_BOUNDED_H
#define PYLOCKS_BOUNDED_H

#include <sched.h>

/* Tests, in which time is not to matter, set other ones. */
#ifndef PLK_BOUND_NS
#define PLK_BOUND_NS 200000u   /* between two promotions */
#define PLK_ARMED_NS 1000000u  /* the gate stands open no longer while somebody waits */
#define PLK_CLOCK_NS 20000u    /* between looks at the clock: one in every unlock would cost short
                                  critical sections a tenth of their throughput */
#define PLK_LATE_NS 40000u     /* a promotion that takes longer to come through waits for a CPU */
#define PLK_LINGER_NS 500000u  /* the spinner stays so much longer, giving way to whoever is there */
#endif
#define PLK_SPINNER_OLD 4u     /* times 4 ms: such a spinner is gone */
#define PLK_SPINNER_LOOKS 32u  /* turns between looks at the clock */
#define PLK_GLANCES 16u        /* turns before one becomes the spinner: most waits are over by then */

enum plk_stage {
    PLK_STAGE_GATE = 0, /* holds the queue, has a ticket of the gate */
    PLK_STAGE_SHORT,    /* the same without the queue: a spinner that lost too often */
    PLK_STAGE_COMES,    /* has nothing yet */
    PLK_STAGE_QUEUE,    /* has a ticket of the queue */
    PLK_STAGE_STANDBY,  /* holds the queue */
};
/* For plk_gate.due: let the one who was promoted find a CPU; nobody need make room for it. */
#define PLK_DUE_NONE UINT16_MAX
#define PLK_DUE_DONE (UINT16_MAX - 1)
#define PLK_QUEUES(w) ((w)->gate != NULL && (w)->stage >= PLK_STAGE_QUEUE)

PLK_INLINE struct plk_gate *plk_gate_of(struct plk_cell *gate)
{
    return (struct plk_gate *)(void *)(plk_queue_cell(gate) + 1);
}

__attribute__((noinline, unused)) static int plk_take_bounded(struct plk_lock *lock, struct plk_seat *seat,
                                                               struct plk_wait *w)
{
    __builtin_prefetch(lock->cell, 1); /* to write it: else its line would come twice */
    if (PLK_LIKELY(seat->retired != lock->id) && PLK_LIKELY(plk_take_free(lock, seat) == 0))
        return 0;
    PLK_SITE_FRAME(); /* for the site that was passed; here it costs a free lock nothing */
    *w = (struct plk_wait){.lock = lock, .seat = seat, .ticket = PLK_NO_TICKET, .deadline = PLK_FOREVER,
                           .pause = PLK_FOREVER, .gate = lock, .stage = PLK_STAGE_COMES};
    w->queue = (struct plk_lock){plk_queue_cell(lock->cell), lock->domain, lock->id + 1, PLK_FIFO};
    return 1;
}

/* Be the spinner, if nobody is.  Returns its mark, or 0. */
PLK_COLD static uint32_t plk_spinner_claim(struct plk_gate *gate, uint64_t now)
{
    uint32_t seen = PLK_LOAD(&gate->spinner), mark = PLK_SPINNER(now);

    if (seen != 0 && (mark >> 1) - (seen >> 1) < PLK_SPINNER_OLD)
        return 0;
    return __atomic_compare_exchange_n(&gate->spinner, &seen, mark, 0, __ATOMIC_RELAXED,
                                       __ATOMIC_RELAXED) ? mark : 0;
}

/* The spinner's mark becomes `to`, whether or not it calls; unless it is another one's by now. */
static inline void plk_spinner_change(struct plk_gate *gate, uint32_t mark, uint32_t to)
{
    uint32_t seen = PLK_LOAD(&gate->spinner);

    while ((seen | PLK_SPINNER_CALLS) == (mark | PLK_SPINNER_CALLS) && seen != to &&
           !__atomic_compare_exchange_n(&gate->spinner, &seen, to, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
}

/* 1: entered.  A short wait is not worth telling others of it. */
PLK_COLD static int plk_glance_at_gate(struct plk_wait *w)
{
    unsigned turns;

    PLK_SITE_FRAME();
    if (plk_spin_ns(w->gate->domain) == 0 || w->seat->retired == w->gate->id)
        return 0;
    for (turns = 0; turns < PLK_GLANCES; turns++) {
        if (plk_take_free(w->gate, w->seat) == 0)
            return 1;
        PLK_CPU_RELAX();
    }
    return 0;
}

/* Spin at the gate for as long as a wake takes, anew whenever it changes hands; and then a
 * little longer, because a holder that is not running soon will be, and who leaves the
 * gate now leaves a CPU idle then.  Who has seen it change hands for PLK_BOUND_NS and
 * was never quick enough, takes a ticket.  1: entered. */
PLK_COLD static int plk_spin_at_gate(struct plk_wait *w)
{
    const struct plk_api *api = plk_module_self.api;
    struct plk_cell *cell = w->gate->cell;
    struct plk_gate *gate = plk_gate_of(cell);
    uint64_t budget = plk_spin_ns(w->gate->domain), head = PLK_LOAD(&cell->head), now, end, enough;
    uint32_t mark, turns = 0;
    int entered = 0;

    PLK_SITE_FRAME();
    if (budget == 0 || w->seat->retired == w->gate->id || PLK_VCPU_PREEMPTED(w, head))
        return 0;
    now = api->now();
    if ((mark = plk_spinner_claim(gate, now)) == 0)
        return 0;
    enough = now + PLK_BOUND_NS;
    for (end = now + budget; now < end + PLK_LINGER_NS && !(entered = plk_take_free(w->gate, w->seat) == 0);) {
        PLK_CPU_RELAX();
        if (++turns % PLK_SPINNER_LOOKS != 0)
            continue;
        if (now >= end)
            sched_yield();
        now = api->now();
        if (now >= w->deadline || now >= w->pause)
            break;
        if (PLK_LOAD(&cell->head) != head) {
            head = PLK_LOAD(&cell->head);
            end = now + budget;
            if (now >= enough) {
                w->stage = PLK_STAGE_SHORT;
                break;
            }
        }
        if (now - PLK_LOAD(&gate->promoted_ns) >= PLK_BOUND_NS && PLK_LOAD(&cell->slow) != 0)
            plk_spinner_change(gate, mark, mark | PLK_SPINNER_CALLS);
    }
    plk_spinner_change(gate, mark, 0);
    return entered;
}

PLK_COLD static void plk_join_queue(struct plk_wait *w)
{
    const struct plk_api *api = plk_module_self.api;

    w->seat->retired = 0;
    w->lock = &w->queue;
    w->ticket = PLK_NO_TICKET;
    w->rounds = 1; /* sleep at once */
    if (w->seat->left_count != 0 && api->resume(w))
        w->stage = PLK_STAGE_QUEUE;
    else
        w->stage = plk_take_ticket(&w->queue, w->seat, &w->ticket) ? PLK_STAGE_STANDBY : PLK_STAGE_QUEUE;
    api->queue_shown(w->gate);
}

/* A ticket of the gate.  1: served, and entered. */
PLK_COLD static int plk_come_to_gate(struct plk_wait *w)
{
    w->lock = w->gate;
    w->rounds = 0;
    w->asleep_at = 0;
    return !(w->seat->left_count != 0 && plk_module_self.api->resume(w)) &&
           plk_take_ticket(w->gate, w->seat, &w->ticket);
}

/* Holding the queue: until entered (0), at the gate (1), or for one of the reasons of
 * plk_wait_turn. */
PLK_COLD static int plk_stand_by(struct plk_wait *w)
{
    const struct plk_api *api = plk_module_self.api;
    uint64_t now;

    for (;;) {
        if (w->calls_back && (api->queue_called(w) || api->queue_promoted(w))) {
            w->calls_back = 0;
            PLK_STORE(&plk_gate_of(w->gate->cell)->due, PLK_DUE_DONE); /* not for a CPU does it wait */
            return -EAGAIN;
        }
        if (plk_take_free(w->gate, w->seat) == 0)
            return 0;
        if (api->queue_promoted(w)) {
            w->stage = PLK_STAGE_GATE;
            return plk_come_to_gate(w) ? 0 : 1;
        }
        if (PLK_UNLIKELY(w->gate->domain->detects != 0) && api->search(w))
            return -ELOOP;
        if (api->queue_standby(w) == PLK_HINT_INTERRUPTED)
            return -EINTR;
        if (w->deadline == PLK_FOREVER && w->pause == PLK_FOREVER)
            continue;
        now = api->now();
        if (now >= w->deadline)
            return -ETIMEDOUT;
        if (now >= w->pause)
            return -EINTR;
    }
}

/* Without a ticket.  1: entered. */
PLK_COLD static int plk_try_at_gate(struct plk_wait *w)
{
    struct plk_vcpu *me = w->seat->vcpu;
    int entered;

    PLK_SITE_FRAME();
    w->rounds = 1; /* not again */
    PLK_STORE(&me->wanted, w->gate->id); /* before wait_since, which the event may set */
    PLK_EVENT_AT(w->gate->domain, me, waits, w->gate->id, 0);
    entered = plk_glance_at_gate(w);
    if (!entered) {
        plk_wait_noted(w);
        entered = plk_spin_at_gate(w);
    }
    if (entered)
        PLK_EVENT(me, spin_grants);
    else if (w->stage == PLK_STAGE_SHORT)
        entered = plk_come_to_gate(w);
    if (entered)
        plk_wait_ends(w);
    return entered;
}

/* plk_wait_turn for a bounded lock. */
PLK_COLD static int plk_wait_gate(struct plk_wait *w)
{
    const struct plk_api *api = plk_module_self.api;
    int rc = 1;

    PLK_SITE_FRAME();
    if (w->stage == PLK_STAGE_COMES) {
        if (PLK_LOAD(&w->gate->cell->owner) == PLK_OWNER(PLK_LOAD(&w->gate->cell->head), w->seat->tag))
            return -EDEADLK;
        if (w->rounds == 0 && plk_try_at_gate(w))
            return 0;
        if (w->stage == PLK_STAGE_COMES)
            plk_join_queue(w);
    }
    if (w->stage == PLK_STAGE_SHORT) {
        if ((rc = plk_wait_ticket(w)) == 0)
            plk_wait_ends(w);
        return rc;
    }
    if (w->stage == PLK_STAGE_QUEUE) {
        if ((rc = plk_wait_ticket(w)) != 0) {
            if (rc != -EINTR)
                PLK_EVENT_AT(w->gate->domain, w->seat->vcpu, gave_up, w->gate->id, 0);
            return rc;
        }
        w->stage = PLK_STAGE_STANDBY;
    }
    if (w->stage == PLK_STAGE_STANDBY)
        rc = plk_stand_by(w);
    if (rc == 1)
        rc = plk_wait_ticket(w);
    if (rc == -EINTR || rc == -EAGAIN)
        return rc;
    if (rc == 0)
        plk_wait_ends(w);
    else
        PLK_EVENT_AT(w->gate->domain, w->seat->vcpu, gave_up, w->gate->id, 0);
    api->queue_pass(w, rc != 0);
    PLK_STORE(&w->seat->vcpu->wait_since, 0);
    return rc;
}

/* Wait until w's turn has come.
 *  0           entered
 *  -EINTR      a signal came, or w->pause has: look at signals, set w->pause
 *              anew and call again, or call again with a deadline that has passed
 *  -ETIMEDOUT  w->deadline has come and the ticket is abandoned
 *  -EDEADLK    this thread would wait for itself; the ticket is abandoned
 *  -ELOOP      the same through others, if the domain detects that
 *  -EAGAIN     only if w->calls_back, and once: make ready, and call again; then the wait
 *              takes no longer than it takes the holder to leave
 * While no tombstone is free a ticket can't be abandoned: the timeout comes
 * late then, and the attempt is repeated every PLK_LEAVE_RETRY ns. */
PLK_INLINE int plk_wait_turn(struct plk_wait *w)
{
    return w->gate != NULL ? plk_wait_gate(w) : plk_wait_ticket(w);
}

/* As much of plk_wait_turn as one may do who keeps something to himself that others of his
 * process need, as Python's global interpreter lock: spin, if the holder is of another process.
 * 1: entered. */
PLK_COLD static int plk_wait_briefly(struct plk_wait *w)
{
    const struct plk_api *api = plk_module_self.api;

    if (w->gate == NULL)
        return plk_spin_first(w);
    if (w->stage == PLK_STAGE_COMES)
        return w->rounds == 0 && api->held_elsewhere(w->gate, w->seat) && plk_try_at_gate(w);
    if (w->stage != PLK_STAGE_STANDBY)
        return 0;
    if (plk_take_free(w->gate, w->seat) != 0) {
        if (!api->held_elsewhere(w->gate, w->seat))
            return 0;
        w->stage = PLK_STAGE_GATE;
        if (!plk_come_to_gate(w) && !plk_spin_first(w))
            return 0;
    }
    plk_wait_ends(w);
    api->queue_pass(w, 0);
    return 1;
}

#endif
