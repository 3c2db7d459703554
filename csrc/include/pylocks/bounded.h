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
 * as in K1.  Not every U promotes: it may leave that to the spinner, who is awake and
 * takes the gate; to somebody promoted who has not come yet; or, for
 * PLK_ARMED_NS, to the sleeper who is armed, that is, sleeps only as long and then looks
 * whether the gate stands open.  What if one of those dies?  The spinner's mark grows
 * old, the dead holder of the queue is recovered as any holder is, and behind all
 * stands the watchdog of the sleepers.
 *
 * Sources: the gate and queue are those of D. Dice and A. Kogan, "Fissile Locks" (2020);
 * that surplus waiters are kept away from the lock, and let in one by one for the
 * sake of fairness, is D. Dice, "Malthusian Locks" (2017). */
#ifndef PYLOCKS_BOUNDED_H
#define PYLOCKS_BOUNDED_H

/* Tests, in which time is not to matter, set other ones. */
#ifndef PLK_BOUND_NS
#define PLK_BOUND_NS 200000u   /* between two promotions */
#define PLK_ARMED_NS 1000000u  /* the gate stands open no longer while somebody waits */
#endif
#define PLK_SPINNER_OLD 4u     /* times 4 ms: such a spinner is gone */
#define PLK_SPINNER_LOOKS 32u  /* turns between looks at the clock */

enum plk_stage {
    PLK_STAGE_GATE = 0, /* holds the queue, has a ticket of the gate */
    PLK_STAGE_COMES,    /* has nothing yet */
    PLK_STAGE_QUEUE,    /* has a ticket of the queue */
    PLK_STAGE_STANDBY,  /* holds the queue */
};

PLK_INLINE struct plk_gate *plk_gate_of(struct plk_cell *gate)
{
    return (struct plk_gate *)(void *)(gate + 1);
}

PLK_COLD static void plk_wait_bounded(struct plk_lock *lock, struct plk_seat *seat, struct plk_wait *w)
{
    *w = (struct plk_wait){.lock = lock, .seat = seat, .ticket = PLK_NO_TICKET, .deadline = PLK_FOREVER,
                           .pause = PLK_FOREVER, .gate = lock, .stage = PLK_STAGE_COMES};
    w->queue = (struct plk_lock){plk_queue_cell(lock->cell), lock->domain, lock->id + 1, PLK_FIFO};
}

/* Be the spinner, if nobody is.  Returns its mark, or 0. */
PLK_COLD static uint32_t plk_spinner_claim(struct plk_gate *gate, uint64_t now)
{
    uint32_t seen = PLK_LOAD(&gate->spinner), mark = PLK_SPINNER(now);

    if (seen != 0 && (mark - seen) >> 1 < PLK_SPINNER_OLD)
        return 0;
    return __atomic_compare_exchange_n(&gate->spinner, &seen, mark, 0, __ATOMIC_RELAXED,
                                       __ATOMIC_RELAXED) ? mark : 0;
}

static inline void plk_spinner_change(struct plk_gate *gate, uint32_t mark, uint32_t to)
{
    if (!__atomic_compare_exchange_n(&gate->spinner, &mark, to, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED) &&
        to == 0 && (mark & PLK_SPINNER_CALLS) != 0)
        __atomic_compare_exchange_n(&gate->spinner, &mark, to, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* Spin at the gate for as long as a wake takes, anew whenever it changes hands.  1: entered. */
PLK_COLD static int plk_spin_at_gate(struct plk_wait *w)
{
    const struct plk_api *api = plk_module_self.api;
    struct plk_cell *cell = w->gate->cell;
    struct plk_gate *gate = plk_gate_of(cell);
    uint64_t budget = w->gate->domain->spin_ns, head = PLK_LOAD(&cell->head), now, end;
    uint32_t mark, turns = 0;
    int entered = 0;

    PLK_SITE_FRAME();
    if (budget == 0 || w->seat->retired == w->gate->id || PLK_VCPU_PREEMPTED(w, head))
        return 0;
    now = api->now();
    if ((mark = plk_spinner_claim(gate, now)) == 0)
        return 0;
    for (end = now + budget; now < end && !(entered = plk_take_free(w->gate, w->seat) == 0);) {
        PLK_CPU_RELAX();
        if (++turns % PLK_SPINNER_LOOKS != 0)
            continue;
        now = api->now();
        if (PLK_LOAD(&cell->head) != head) {
            head = PLK_LOAD(&cell->head);
            end = now + budget;
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
    struct plk_vcpu *me = w->seat->vcpu;

    PLK_SITE_FRAME();
    w->seat->retired = 0;
    w->lock = &w->queue;
    w->rounds = 1; /* sleep at once */
    PLK_EVENT(me, waits);
    PLK_STORE(&me->wait_since, api->now());
    if (w->seat->left_count != 0 && api->resume(w))
        w->stage = PLK_STAGE_QUEUE;
    else
        w->stage = plk_take_ticket(&w->queue, w->seat, &w->ticket) ? PLK_STAGE_STANDBY : PLK_STAGE_QUEUE;
    api->queue_shown(w->gate);
}

/* The holder of the queue comes to the gate.  1: and is in. */
PLK_COLD static int plk_come_to_gate(struct plk_wait *w)
{
    w->lock = w->gate;
    w->stage = PLK_STAGE_GATE;
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
        if (plk_take_free(w->gate, w->seat) == 0)
            return 0;
        if (api->queue_promoted(w))
            return plk_come_to_gate(w) ? 0 : 1;
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

/* plk_wait_turn for a bounded lock. */
PLK_COLD static int plk_wait_gate(struct plk_wait *w)
{
    const struct plk_api *api = plk_module_self.api;
    int rc = 1;

    if (w->stage == PLK_STAGE_COMES) {
        if (PLK_LOAD(&w->gate->cell->owner) == PLK_OWNER(PLK_LOAD(&w->gate->cell->head), w->seat->tag))
            return -EDEADLK;
        if (plk_spin_at_gate(w))
            return 0;
        plk_join_queue(w);
    }
    if (w->stage == PLK_STAGE_QUEUE) {
        if ((rc = plk_wait_ticket(w)) != 0)
            return rc;
        w->stage = PLK_STAGE_STANDBY;
    }
    if (w->stage == PLK_STAGE_STANDBY)
        rc = plk_stand_by(w);
    if (rc == 1)
        rc = plk_wait_ticket(w);
    if (rc == -EINTR)
        return rc;
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
 * While no tombstone is free a ticket can't be abandoned: the timeout comes
 * late then, and the attempt is repeated every PLK_LEAVE_RETRY ns. */
PLK_INLINE int plk_wait_turn(struct plk_wait *w)
{
    return w->gate != NULL ? plk_wait_gate(w) : plk_wait_ticket(w);
}

#endif
