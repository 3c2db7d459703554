/* pylocks/wait.h - the contended half of an acquisition; part of fast.h.
 *
 * Compiled into every module, so that each has its own patch sites.  One loop
 * serves every slow path: spin a bounded time, then tell the hypervisor
 * (lock_spinning), look again.  Native: that call is a nop and the loop spins
 * on.  Who gives up (deadline, signal) goes through api->leave. */
#ifndef PYLOCKS_WAIT_H
#define PYLOCKS_WAIT_H

#define PLK_LEAVE_RETRY 1000000u /* ns */
#define PLK_SPIN_MOST_TURNS (1u << 20)

/* For what it waits, and since when, in this order. */
PLK_COLD static void plk_wait_noted(struct plk_wait *w)
{
    PLK_STORE(&w->seat->vcpu->wanted, PLK_WANTED(w)->id);
    PLK_STORE_RELEASE(&w->seat->vcpu->wait_since, plk_module_self.api->now());
}

PLK_COLD static void plk_wait_begins(struct plk_wait *w)
{
    PLK_SITE_FRAME();
    plk_wait_noted(w);
    PLK_EVENT_AT(w->lock->domain, w->seat->vcpu, waits, PLK_WANTED(w)->id, w->ticket);
}

/* The lock that was waited for is entered. */
PLK_COLD static void plk_wait_ends(struct plk_wait *w)
{
    PLK_SITE_FRAME();
    PLK_EVENT_AT(w->lock->domain, w->seat->vcpu, granted, PLK_WANTED(w)->id, PLK_LOAD(&PLK_WANTED(w)->cell->head));
    PLK_STORE(&w->seat->vcpu->wait_since, 0);
}

/* Granted ticket w->ticket: enter. */
PLK_COLD static int plk_granted(struct plk_wait *w)
{
    plk_enter(w->lock->cell, w->seat->vcpu, w->seat->tag, w->ticket);
    if (w->gate == NULL)
        plk_wait_ends(w);
    return 0;
}


PLK_COLD static int plk_spin(struct plk_wait *w, uint32_t turns)
{
    struct plk_cell *cell = w->lock->cell;
    uint64_t seen = PLK_LOAD(&cell->head);
    uint32_t left = turns;

    PLK_SITE_FRAME();
    while (left-- != 0) {
        uint64_t head = PLK_LOAD_ACQUIRE(&cell->head);

        if (head == w->ticket)
            return 1;
        if (head != seen) { /* the queue moves: the holders are running */
            seen = head;
            left = turns;
        }
        PLK_CPU_RELAX();
    }
    return 0;
}

/* How long a waiter spins, ns, and in turns of cpu_relax; 0: not at all.  Who has reason not to spin
 * is not told to, and where turns have not been timed they are all that is known. */
PLK_COLD static uint32_t plk_spin_ns(struct plk_domain *domain)
{
    uint32_t told = domain->spin_ns == 0 ? PLK_SPIN_OWN : plk_module_self.api->spin_policy(domain);

    return told == PLK_SPIN_OWN ? domain->spin_ns : told;
}

PLK_COLD static uint32_t plk_spin_turns(struct plk_domain *domain)
{
    uint32_t told = PLK_SPIN_OWN;
    uint64_t turns;

    if (domain->spin_ns != 0 && domain->turn_ps != 0 && domain->protocol != PLK_NATIVE)
        told = plk_module_self.api->spin_policy(domain);
    if (told == PLK_SPIN_OWN)
        return domain->spin_turns;
    turns = (uint64_t)told * 1000 / domain->turn_ps + (told != 0);
    return turns < PLK_SPIN_MOST_TURNS ? (uint32_t)turns : PLK_SPIN_MOST_TURNS;
}

/* Would the thread wait for itself?  It holds the lock, or is in a signal
 * handler that interrupted its own wait for it. */
PLK_INLINE int plk_waits_for_self(const struct plk_wait *w, uint64_t head)
{
    const struct plk_vcpu *me = w->seat->vcpu;
    uint32_t depth = PLK_LOAD(&me->depth), i;

    for (i = 0; i < depth && i < PLK_PEND_DEPTH; i++) {
        if (PLK_LOAD(&me->outer[i].cell) == w->lock->id)
            return 1;
    }
    return PLK_LOAD(&w->lock->cell->owner) == PLK_OWNER(head, w->seat->tag);
}

/* The first spin of a wait, and that only: 1: entered.  For a caller that keeps something to
 * itself meanwhile, which the holder needs if it is of the same process: then, none. */
PLK_COLD static int plk_spin_first(struct plk_wait *w)
{
    struct plk_domain *domain = w->lock->domain;
    uint64_t head = PLK_LOAD_ACQUIRE(&w->lock->cell->head);
    uint32_t turns;

    PLK_SITE_FRAME();
    if (w->rounds != 0 || w->ticket - head > domain->spin_near || (turns = plk_spin_turns(domain)) == 0 ||
        !plk_module_self.api->held_elsewhere(w->lock, w->seat) || PLK_VCPU_PREEMPTED(w, head))
        return 0;
    if (w->gate == NULL)
        plk_wait_begins(w);
    w->rounds = 1; /* not again */
    if (!plk_spin(w, turns))
        return 0;
    PLK_EVENT(w->seat->vcpu, spin_grants);
    return plk_granted(w) == 0;
}

/* Wait until w's ticket is served; what it returns stands at plk_wait_turn (bounded.h). */
PLK_COLD static int plk_wait_ticket(struct plk_wait *w)
{
    const struct plk_api *api = plk_module_self.api;
    struct plk_domain *domain = w->lock->domain;
    struct plk_cell *cell = w->lock->cell;
    struct plk_vcpu *me = w->seat->vcpu;
    int native = domain->protocol == PLK_NATIVE;
    uint64_t head, now;
    long hint;

    PLK_SITE_FRAME();
    if (w->rounds == 0 && w->gate == NULL)
        plk_wait_begins(w);
    for (;;) {
        head = PLK_LOAD_ACQUIRE(&cell->head);
        if (head == w->ticket)
            return plk_granted(w);
        if (plk_waits_for_self(w, head)) {
            if (api->leave(w) >= 0)
                return -EDEADLK;
            api->nap(PLK_FOREVER); /* no tombstone is free: the caller tries again */
            return -EINTR;
        }
        /* Spin once a wait; natively, for ever.  Not behind a long queue, and
         * not on a holder that can't be running: both waste the CPU it needs. */
        if (native || (w->rounds == 0 && w->ticket - head <= domain->spin_near)) {
            if (!native && PLK_VCPU_PREEMPTED(w, head))
                PLK_EVENT(me, preempted);
            else if (plk_spin(w, plk_spin_turns(domain))) {
                PLK_EVENT(me, spin_grants);
                return plk_granted(w);
            }
        }
        w->rounds++;
        if (PLK_UNLIKELY(domain->detects != 0) && api->search(w) && api->leave(w) >= 0)
            return -ELOOP; /* no tombstone is free: the search is repeated */
        PLK_EVENT(me, hypercalls);
        hint = PLK_LOCK_SPINNING(w, head);
        if (native)
            api->watch(w);
        if (hint == PLK_HINT_INTERRUPTED)
            return -EINTR;
        if (w->deadline == PLK_FOREVER && w->pause == PLK_FOREVER)
            continue;
        now = api->now();
        if (PLK_LOAD_ACQUIRE(&cell->head) == w->ticket)
            continue;
        if (now >= w->deadline) {
            api->watch(w); /* who polls never waits for as long as a watchdog does */
            if (PLK_LOAD_ACQUIRE(&cell->head) == w->ticket)
                continue;
            if (api->leave(w) >= 0)
                return -ETIMEDOUT;
            w->deadline = now + PLK_LEAVE_RETRY;
        }
        if (now >= w->pause)
            return -EINTR;
    }
}

/* As plk_take, with a deadline and a first pause.  A caller that polls gets
 * back the ticket that it abandoned, and so its place, if nobody has passed it
 * over yet.
 * Without a ticket, by polling, where one could not well be abandoned: natively,
 * where it would wait for a spinning waiter to find it, and while tombstones are
 * crowded.  Then -ETIMEDOUT at the deadline, -EDEADLK, or -EINTR at the pause
 * (call again). */
PLK_COLD static int plk_take_until(struct plk_lock *lock, struct plk_wait *w, uint64_t deadline,
                                   uint64_t pause)
{
    const struct plk_api *api = plk_module_self.api;
    int rc = 0;
    struct plk_seat *seat = plk_seat_get(lock->domain, &rc);
    uint64_t now;

    if (seat == NULL)
        return rc;
    PLK_SITE_FRAME();
    *w = (struct plk_wait){.lock = lock, .seat = seat, .ticket = PLK_NO_TICKET,
                           .deadline = deadline, .pause = pause};
    if (lock->domain->protocol != PLK_NATIVE && !api->crowded(lock->domain)) {
        rc = plk_take_seated(lock, seat, w);
        w->deadline = deadline;
        w->pause = pause;
        return rc;
    }
    while ((rc = plk_trylock_seated(lock, seat)) == -EBUSY) {
        if (plk_waits_for_self(w, PLK_LOAD(&lock->cell->head)))
            return -EDEADLK;
        now = api->now();
        if (now >= deadline)
            return -ETIMEDOUT;
        if (now >= pause)
            return -EINTR;
        if (lock->domain->protocol == PLK_NATIVE)
            PLK_CPU_RELAX();
        else
            api->nap(deadline);
    }
    return rc;
}

#endif
