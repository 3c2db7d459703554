/* pylocks/fast.h - the ticket lock: fast path inline, waiting out of line.
 *
 * The argument
 *
 * Mutual exclusion.  fetch-and-add on tail hands each ticket to one thread;
 * head names the one ticket that is served.  head moves from t to t+1 only by
 * a store of whoever possesses t, so two threads never possess at once.
 *
 * FIFO.  head visits every ticket in order; a thread enters only at its own.
 *
 * No lost kick [K1].  Between an unlocker U that serves ticket t and the waiter
 * W that holds it:
 *
 *       U                                   W (hv/park.c)
 *       head = t               (release)    parked += 1; slow = 1
 *       unlock_barrier                      fence
 *       look at slow -> kick                look at head -> sleep if not t
 *
 * Each side stores, fences, then looks at what the other stored, so at least
 * one of them sees the other: U kicks, or W does not sleep.  The barrier pair
 * is unlock_barrier <-> the fence in plk_slow_raise; in most domains the latter
 * is strong enough for both, and unlock_barrier a nop (hv/barrier.c).  A leaver's
 * tombstone stands in the same relation to U [K2]: see recover/abandon.c.
 *
 * Under the native protocol nobody sleeps and U needs neither barrier nor look.
 *
 * Death.  A thread may die at any instruction.  What it had done is told by its
 * own line (pending, ticket, held) and by owner; the order of the stores below
 * is part of the protocol: held and pending rise before the xadd that makes
 * them matter, owner comes before pending falls, who has to queue notes the ticket
 * first, and held falls only when the kick is done.  On x86 a store is not overtaken by a later
 * one; elsewhere the release stores below say the same.  What is made of them
 * stands in hv/recovery.c.  If the holder died inside, the lock goes to the next
 * in line, who is told: plk_acquire and plk_trylock return PLK_OWNER_DIED.
 *
 * Cost, uncontended: one locked instruction (two where unlock_barrier fences),
 * no call, no system call, no allocation. */
#ifndef PYLOCKS_FAST_H
#define PYLOCKS_FAST_H

#include <errno.h>

#include "site.h"

/* A process's handle of one lock; fill it with plk_lock_init. */
struct plk_lock {
    struct plk_cell *cell;
    struct plk_domain *domain;
    uint64_t id; /* cell index + 1: what `pending` and tombstones say */
    uint32_t policy; /* enum plk_policy */
};

enum plk_policy {
    PLK_FIFO = 0,
    PLK_BOUNDED = 1,
    PLK_RECURSIVE = 2, /* with either, where a lock is made: recursive.h; never in plk_lock.policy */
};

/* A thread's place in a queue, while it waits. */
struct plk_wait {
    struct plk_lock *lock; /* whose ticket it waits for */
    struct plk_seat *seat;
    uint64_t ticket;
    uint64_t deadline; /* CLOCK_MONOTONIC ns; PLK_FOREVER: none */
    uint64_t watch;    /* when to look after the head of the queue next; 0: not set */
    uint64_t pause;    /* return -EINTR at this time, for a look at signals; PLK_FOREVER: never */
    uint32_t rounds;   /* lock_spinning calls made so far in this wait */
    uint32_t forks;    /* of this process when the wait was nested: tells a child */
    uint64_t seen;     /* head when last it moved while this waiter stayed awake */
    uint64_t asleep_at; /* when to sleep unless head moves before; 0: not set */
    struct plk_lock *gate; /* the bounded lock it wants; NULL: what it wants is `lock` */
    struct plk_lock queue; /* of that */
    uint32_t stage;        /* enum plk_stage of bounded.h */
    uint32_t calls_back;   /* 1: return -EAGAIN, once, before it comes to the gate (plk_wait_turn) */
    uint64_t search_at;    /* when to look for a cycle of waiters next */
    uint64_t since;        /* what wait_since was when the wait was nested */
};

/* The lock that is wanted. */
#define PLK_WANTED(w) ((w)->gate != NULL ? (w)->gate : (w)->lock)
#define PLK_FOREVER UINT64_MAX

/* Entered, and what the lock protects may be half-done: a thread died while it
 * held the lock, and nobody has called plk_mark_consistent since.  Positive, as
 * pthread's EOWNERDEAD is: the caller holds the lock. */
#define PLK_OWNER_DIED 1

#define PLK_LOAD(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define PLK_LOAD_ACQUIRE(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define PLK_STORE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define PLK_STORE_RELEASE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define PLK_FENCE() __atomic_thread_fence(__ATOMIC_SEQ_CST)

PLK_COLD static int plk_first_use(struct plk_domain *domain, struct plk_seat **seat)
{
    const struct plk_api *api = plk_module_self.api;

    if (api == NULL)
        plk_not_registered();
    if (plk_seats == NULL && (plk_seats = api->seats()) == NULL)
        return -ENOMEM;
    return api->enroll(domain, seat);
}

/* The thread's seat in the domain, or NULL.  id is read once: it changes to
 * PLK_CLOSED_DOMAIN when another thread closes the domain. */
PLK_INLINE struct plk_seat *plk_seat_of(const struct plk_domain *domain)
{
    struct plk_seat *seats = plk_seats;
    uint32_t id = PLK_LOAD(&domain->id);

    if (PLK_UNLIKELY(seats == NULL) || PLK_UNLIKELY(seats[id].vcpu == NULL))
        return NULL;
    return &seats[id];
}

/* The same, registering the thread if need be; what went wrong in *rc. */
PLK_INLINE struct plk_seat *plk_seat_get(struct plk_domain *domain, int *rc)
{
    struct plk_seat *seat = plk_seat_of(domain), *fresh;

    if (PLK_LIKELY(seat != NULL))
        return seat;
    *rc = plk_first_use(domain, &fresh);
    return *rc == 0 ? fresh : NULL;
}

/* A store for the sake of recovery alone, which the algorithm of the lock itself
 * never reads.  The benchmark of what they cost compiles them out. */
#ifndef PLK_RECORD
#define PLK_RECORD(store) store
#endif

/* Announce an acquisition before it touches the queue. */
PLK_INLINE void plk_announce(struct plk_vcpu *me, uint64_t id)
{
    PLK_RECORD(PLK_STORE(&me->ticket, PLK_NO_TICKET));
    /* [D1] after ticket: see the table in layout.h */
    PLK_RECORD(PLK_STORE_RELEASE(&me->pending_held, PLK_PENDING_HELD(id, PLK_LOAD(&me->held) + 1)));
}

/* Ticket t is served and mine: become the owner. */
PLK_INLINE void plk_enter(struct plk_cell *cell, struct plk_vcpu *me, uint64_t tag, uint64_t t)
{
    PLK_STORE_RELEASE(&cell->owner, PLK_OWNER(t, tag)); /* [D1] after the look at head */
    PLK_RECORD(PLK_STORE_RELEASE(&me->pending, 0)); /* owner first: recovery must find one of them */
}

/* For one who has just entered: 0 or PLK_OWNER_DIED. */
PLK_INLINE int plk_entered(const struct plk_lock *lock)
{
    /* [D2] after the look at head that let us in; pairs with plk_recover_owned */
    return PLK_UNLIKELY((PLK_LOAD(&lock->cell->flags) & PLK_CELL_OWNER_DIED) != 0) ? PLK_OWNER_DIED : 0;
}

/* What the lock protects is in order again.  0; -EPERM: this thread does not hold it. */
PLK_COLD static int plk_mark_consistent(struct plk_lock *lock)
{
    struct plk_seat *seat = plk_seat_of(lock->domain);

    if (seat == NULL || PLK_LOAD(&lock->cell->owner) != PLK_OWNER(PLK_LOAD(&lock->cell->head), seat->tag))
        return -EPERM;
    __atomic_fetch_and(&lock->cell->flags, ~(uint32_t)PLK_CELL_OWNER_DIED, __ATOMIC_SEQ_CST);
    return 0;
}

/* Back to the ticket that this vCPU abandoned on the lock, if it still stands. */
PLK_COLD static int plk_take_left(struct plk_lock *lock, struct plk_seat *seat, struct plk_wait *w)
{
    *w = (struct plk_wait){.lock = lock, .seat = seat, .ticket = PLK_NO_TICKET, .deadline = PLK_FOREVER,
                         .pause = PLK_FOREVER};
    return plk_module_self.api->resume(w);
}

/* Take a ticket; 1: it is served, and the lock entered; 0: *ticket is queued. */
PLK_INLINE int plk_take_ticket(struct plk_lock *lock, struct plk_seat *seat, uint64_t *ticket)
{
    struct plk_cell *cell = lock->cell;
    struct plk_vcpu *me = seat->vcpu;
    uint64_t t, tag = seat->tag;

    plk_announce(me, lock->id);
    t = __atomic_fetch_add(&cell->tail, 1, __ATOMIC_SEQ_CST);
    *ticket = t;
    if (PLK_LIKELY(PLK_LOAD_ACQUIRE(&cell->head) == t)) {
        plk_enter(cell, me, tag, t); /* [D1] from the window straight to owner: one store less */
        PLK_POINT(entered, lock, seat);
        return 1;
    }
    PLK_RECORD(PLK_STORE_RELEASE(&me->ticket, t));
    return 0;
}

/* The same under the bounded policy (bounded.h).  Out of line, so that strict locks do not
 * pay for it with registers. */
__attribute__((noinline, unused)) static int plk_take_bounded(struct plk_lock *lock, struct plk_seat *seat,
                                                               struct plk_wait *w);

/* plk_take for a thread that has its seat. */
PLK_INLINE int plk_take_seated(struct plk_lock *lock, struct plk_seat *seat, struct plk_wait *w)
{
    uint64_t t;

    if (PLK_UNLIKELY(lock->policy != PLK_FIFO))
        return plk_take_bounded(lock, seat, w);
    if (PLK_UNLIKELY(seat->left_count != 0) && plk_take_left(lock, seat, w))
        return 1;
    if (PLK_LIKELY(plk_take_ticket(lock, seat, &t)))
        return 0;
    *w = (struct plk_wait){.lock = lock, .seat = seat, .ticket = t, .deadline = PLK_FOREVER,
                           .pause = PLK_FOREVER};
    return 1;
}

/* The first half of an acquisition.  0: entered.  1: queued, and *w is ready
 * for plk_wait_turn.  Negative: -ENOMEM, -EUSERS (vCPU table full),
 * -ENOSPC (no memory left for the segment), -ESHUTDOWN (domain closed), -ETIMEDOUT
 * (somebody keeps the domain's mutex), -ENOTRECOVERABLE (it was written over). */
PLK_INLINE int plk_take(struct plk_lock *lock, struct plk_wait *w)
{
    int rc = 0;
    struct plk_seat *seat = plk_seat_get(lock->domain, &rc);

    return PLK_LIKELY(seat != NULL) ? plk_take_seated(lock, seat, w) : rc;
}

/* Whoever finds the lock busy looks whether its owner is alive, and, where
 * unlockers don't, for an abandoned ticket at its head.  Nonzero: head has moved. */
PLK_COLD static int plk_look_after(struct plk_lock *lock, struct plk_seat *seat)
{
    struct plk_wait w = {.lock = lock, .seat = seat, .ticket = PLK_NO_TICKET, .deadline = PLK_FOREVER,
                         .pause = PLK_FOREVER};
    uint64_t head = PLK_LOAD(&lock->cell->head);

    plk_module_self.api->watch(&w);
    return PLK_LOAD(&lock->cell->head) != head;
}

/* Take the lock if it is free: 0, else -EBUSY. */
PLK_INLINE int plk_take_free(struct plk_lock *lock, struct plk_seat *seat)
{
    struct plk_cell *cell = lock->cell;
    struct plk_vcpu *me = seat->vcpu;
    uint64_t t = PLK_LOAD_ACQUIRE(&cell->head);

    if (PLK_UNLIKELY(PLK_LOAD(&cell->tail) != t))
        return -EBUSY;
    plk_announce(me, lock->id);
    /* head never passes tail: if tail is still t, so is head. */
    if (!__atomic_compare_exchange_n(&cell->tail, &t, t + 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
        PLK_RECORD(PLK_STORE_RELEASE(&me->pending, 0));
        PLK_RECORD(PLK_STORE_RELEASE(&me->held, PLK_LOAD(&me->held) - 1));
        return -EBUSY;
    }
    plk_enter(cell, me, seat->tag, t);
    PLK_POINT(entered, lock, seat);
    return 0;
}

/* plk_trylock for a thread that has its seat.  0: entered, or -EBUSY. */
PLK_INLINE int plk_trylock_seated(struct plk_lock *lock, struct plk_seat *seat)
{
    struct plk_cell *cell = lock->cell;

    if (PLK_UNLIKELY(PLK_LOAD(&cell->tail) != PLK_LOAD_ACQUIRE(&cell->head)) && !plk_look_after(lock, seat))
        return -EBUSY;
    return plk_take_free(lock, seat);
}

/* Acquire if free.  0, PLK_OWNER_DIED, -EBUSY, or an error of plk_take.  Takes no
 * ticket when the lock is busy, so nobody behind is disturbed. */
PLK_INLINE int plk_trylock(struct plk_lock *lock)
{
    int rc = 0;
    struct plk_seat *seat = plk_seat_get(lock->domain, &rc);

    if (PLK_LIKELY(seat != NULL))
        rc = plk_trylock_seated(lock, seat);
    return PLK_LIKELY(rc == 0) ? plk_entered(lock) : rc;
}

/* The queue of the bounded lock whose gate this is. */
PLK_INLINE struct plk_cell *plk_queue_cell(struct plk_cell *gate)
{
    return (struct plk_cell *)(void *)((unsigned char *)gate + PLK_LINE);
}

/* Nobody has a ticket that the holder of t would have to think of. */
PLK_INLINE int plk_alone(const struct plk_lock *lock, uint64_t t)
{
    const struct plk_cell *queue;

    if (PLK_LOAD(&lock->cell->tail) != t + 1)
        return 0;
    if (lock->policy == PLK_FIFO)
        return 1;
    queue = plk_queue_cell(lock->cell);
    return PLK_LOAD(&queue->tail) == PLK_LOAD_ACQUIRE(&queue->head);
}

/* Take down `slow` if nobody needs it; by the holder of ticket t, before it
 * releases, so that every way out of a contended episode comes past here.
 *
 * [S1] Only the holder clears slow, and looks at tail afterwards:
 *
 *       holder of t                        arrival
 *       slow = 0                           tail += 1  (xadd, a full fence)
 *       fence                              ...
 *       look at tail -> slow = 1 if moved  slow = 1; fence; look at head; sleep
 *
 * If the look misses the arrival's xadd, the arrival's slow = 1 comes after
 * slow = 0 and stands.  With tail == t + 1 there is no ticket in (head, tail),
 * hence nobody parked and no tombstone that the flag would have to announce.  A
 * leaver of an older ticket may still set it for nothing; then the next holder
 * comes past here.  Of a bounded lock the same holds for the tail of its queue. */
PLK_COLD static void plk_settle(const struct plk_lock *lock, uint64_t t)
{
    struct plk_cell *cell = lock->cell;

    if (!plk_alone(lock, t))
        return;
    PLK_STORE(&cell->slow, 0);
    PLK_FENCE(); /* [S1] pairs with the arrival's xadd */
    if (!plk_alone(lock, t))
        PLK_STORE(&cell->slow, 1);
}

PLK_COLD static void plk_unlock_slow(struct plk_lock *lock, struct plk_seat *seat, uint64_t head)
{
    PLK_SITE_FRAME();
    PLK_UNLOCK_KICK(lock, seat, head);
}

/* An unlock that finds no seat: the thread never had one, or the domain was
 * closed between this thread's look at it and its acquisition. */
PLK_COLD static struct plk_seat *plk_seat_left(struct plk_domain *domain)
{
    const struct plk_api *api = plk_module_self.api;

    return api != NULL ? api->seat_left(domain) : NULL;
}

/* 0, or -EPERM: this thread does not hold the lock. */
PLK_INLINE int plk_unlock(struct plk_lock *lock)
{
    struct plk_seat *seat = plk_seat_of(lock->domain);
    struct plk_cell *cell = lock->cell;
    struct plk_vcpu *me;
    uint64_t t;

    if (PLK_UNLIKELY(seat == NULL) && (seat = plk_seat_left(lock->domain)) == NULL)
        return -EPERM;
    me = seat->vcpu;
    t = PLK_LOAD(&cell->head);
    if (PLK_UNLIKELY(PLK_LOAD(&cell->owner) != PLK_OWNER(t, seat->tag)))
        return -EPERM;
    if (PLK_UNLIKELY(PLK_LOAD(&cell->slow) != 0))
        plk_settle(lock, t);
    PLK_POINT(left, lock, seat); /* still the holder, alone with the lock's tally */
    PLK_STORE_RELEASE(&cell->head, t + 1);
    PLK_UNLOCK_BARRIER(); /* [K1] pairs with plk_slow_raise, [K2] with plk_leave */
    if (PLK_UNLIKELY(PLK_LOAD(&cell->slow) != 0))
        plk_unlock_slow(lock, seat, t + 1);
    PLK_RECORD(PLK_STORE_RELEASE(&me->held, PLK_LOAD(&me->held) - 1));
    return 0;
}

#include "wait.h"
#include "bounded.h"
#include "sync.h"

/* The rest of plk_acquire: ticket t is queued, or (PLK_NO_TICKET) to be taken. */
PLK_COLD static int plk_acquire_queued(struct plk_lock *lock, struct plk_seat *seat, uint64_t t)
{
    struct plk_wait w; /* not filled before it is needed: a free bounded lock comes this way, too */
    int rc = 1;

    if (t == PLK_NO_TICKET)
        rc = plk_take_seated(lock, seat, &w);
    else
        w = (struct plk_wait){.lock = lock, .seat = seat, .ticket = t, .deadline = PLK_FOREVER,
                              .pause = PLK_FOREVER};
    while (rc == 1 || rc == -EINTR)
        rc = plk_wait_turn(&w);
    return rc == 0 ? plk_entered(lock) : rc;
}

/* Acquire, waiting as long as it takes.  0; PLK_OWNER_DIED; -EDEADLK: this thread
 * holds the lock already; -ELOOP: it would, where the domain detects deadlocks, wait
 * for itself through others; or an error of plk_take. */
PLK_INLINE int plk_acquire(struct plk_lock *lock)
{
    int rc = 0;
    struct plk_seat *seat = plk_seat_get(lock->domain, &rc);
    uint64_t t = PLK_NO_TICKET;

    if (PLK_UNLIKELY(seat == NULL))
        return rc;
    if (PLK_LIKELY((seat->left_count | lock->policy) == 0) && PLK_LIKELY(plk_take_ticket(lock, seat, &t)))
        return plk_entered(lock);
    return plk_acquire_queued(lock, seat, t);
}

/* Acquire by the deadline (CLOCK_MONOTONIC, ns; plk_module_self.api->now()).
 * As plk_acquire, or -ETIMEDOUT: the ticket was abandoned. */
PLK_COLD static int plk_acquire_until(struct plk_lock *lock, uint64_t deadline)
{
    struct plk_wait w;
    int rc = plk_take_until(lock, &w, deadline, PLK_FOREVER);

    while (rc == 1 || rc == -EINTR)
        rc = plk_wait_turn(&w);
    return rc == 0 ? plk_entered(lock) : rc;
}

#endif
