/* pylocks/sync.h - semaphores, events and their like: layout, and what is inline.
 *
 * Each is three things in the segment, found by one cell index:
 *
 *   guard    that cell, an ordinary lock, held for some tens of ns by whoever changes the queue;
 *            never while a thread sleeps, nor while Python code runs
 *   record   syncs[index]: the word that fast paths go by, and the ends of the queue
 *   nodes    nodes[vCPU][0..31]: one for each wait, with a futex word of its own
 *
 * The word.  What of it is state and what it means is the kind's own affair (enum plk_kind), but
 * for four flags, which are the engine's (csrc/sync/).  State and flags change in one atomic step: who
 * takes or gives what a kind has to give learns from the same compare-and-swap whether anybody waits, so
 * there is nothing to fence, and no wake between a look and a sleep to be lost.
 *
 *   WAITERS             the queue is not empty: who gives calls the engine,
 *   WAITERS | CALLED    unless somebody has been woken already and has not yet made use of it
 *   RESERVED            none but who is called may take
 *   OWNER_DIED          who takes next is to be told that a holder died (mutex)
 *
 * WAITERS, CALLED and RESERVED are written with the guard held; who takes leaves them as they are.
 * CALLED without WAITERS is seen only while somebody with the guard is between two steps. */
#ifndef PYLOCKS_SYNC_H
#define PYLOCKS_SYNC_H

#define PLK_SYNC_WAITERS (1ull << 63)
#define PLK_SYNC_CALLED (1ull << 62)
#define PLK_SYNC_RESERVED (1ull << 61)
#define PLK_SYNC_OWNER_DIED (1ull << 60)
#define PLK_SYNC_STATE ((1ull << 60) - 1) /* what is the kind's of the word */

/* X(name, what people call it): csrc/sync/NAME.c has plk_kind_NAME. */
#define PLK_KINDS(X)                   \
    X(semaphore, "Semaphore")          \
    X(bounded, "BoundedSemaphore")     \
    X(owned, "owned Semaphore")        \
    X(event, "Event")                  \
    X(mutex, "Mutex")                  \
    X(rmutex, "RMutex")                \
    X(condition, "Condition")          \
    X(barrier, "Barrier")              \
    X(rwlock, "RWLock")

enum plk_kind {
    PLK_KIND_LOCK, /* 0: no guard, but a lock */
#define X(name, text) PLK_KIND_##name,
    PLK_KINDS(X)
#undef X
    PLK_KIND_COUNT
};

/* A record.  All but `word` is read and written with the guard held, or never changes. */
struct plk_sync {
    uint64_t word;
    uint64_t initial; /* what the word was at first, and is again when all its users have died */
    uint64_t limit;   /* of the kind: the most that a bounded semaphore can have */
    uint64_t data[5]; /* the kind's own; 0 at first */

    uint64_t arrivals;     /* so many nodes have been queued */
    uint32_t first, last;  /* ends of the queue: numbers of nodes, + 1; 0: empty */
    uint32_t queued;       /* length of the queue */
    uint32_t called;       /* node last called, number + 1 */
    uint64_t called_ns;    /* CLOCK_MONOTONIC of that */
    uint64_t swept_ns;     /* when somebody last looked for dead waiters; a rate limit, without the guard */
    uint64_t until;        /* what is to happen to all who wait is to happen to arrivals below this */
    uint64_t spare[2];
};

/* The state of a node, the futex word that its thread sleeps on.
 *
 *   FREE     nobody's                     -> QUEUED, HELD by its thread
 *   QUEUED   waits in its turn            -> CALLED, GRANTED by who has the guard; ASIDE, FREE by its thread
 *   CALLED   may try to take, and has been woken for that     -> QUEUED, ASIDE, FREE by its thread
 *   GRANTED  is not in the queue: what it waited for has happened, `result` says what    -> FREE by its thread
 *   ASIDE    in the queue, but its thread runs a signal handler  -> QUEUED by its thread, GRANTED as above
 *   HELD     is not in the queue: says what its thread holds     -> FREE by its thread
 *
 * All with the guard held, but for GRANTED -> FREE.  Whoever has the guard frees the nodes of the dead. */
enum plk_node_state {
    PLK_NODE_FREE,
    PLK_NODE_QUEUED,
    PLK_NODE_CALLED,
    PLK_NODE_GRANTED,
    PLK_NODE_ASIDE,
    PLK_NODE_HELD,
};

#define PLK_NODES 32u /* of each vCPU */

struct plk_node {
    uint32_t state;
    uint32_t sync;       /* index of the record, + 1 */
    uint32_t generation; /* of the vCPU's slot: with another one, the node is that of a dead thread */
    int32_t result;      /* of the wait, once GRANTED; not negative */
    uint64_t arrival;
    uint32_t prev, next; /* numbers of nodes, + 1; 0: none */
    uint64_t called_ns;  /* when it was first called; 0: never */
    uint64_t data[2];    /* the kind's own; data[0] of a wait is its `want`, the rest 0 at first */
    uint32_t epoch;      /* generation of the cell: with another one, it was another object's */
    uint32_t overdue;    /* 1: has been called, and newcomers were quicker, for too long */
};

/* What a new record has in it. */
struct plk_seed {
    uint32_t kind;
    uint64_t initial, limit;
};

/* A process's handle; fill it with api->sync_init. */
struct plk_ref {
    struct plk_lock guard;
    struct plk_sync *sync;
    uint32_t kind;
};

/* One wait of a thread.  ref, seat, want, deadline and pause are its caller's; the rest is 0 at first. */
struct plk_sync_wait {
    struct plk_ref *ref;
    struct plk_seat *seat;
    uint64_t want;     /* the kind's own: what is waited for */
    uint64_t deadline; /* CLOCK_MONOTONIC ns; PLK_FOREVER: none; 0: do not wait at all */
    uint64_t pause;    /* return -EINTR at this time, for a look at signals */
    struct plk_node *node; /* NULL: not queued */
    uint64_t watch;    /* when to look after the queue; 0: not set */
    uint32_t forks;    /* of this process when it was queued: tells a child */
    int32_t result;    /* not negative, once it is over */
    uint32_t looks;    /* so many times it has looked after the queue since it came or was called */
    uint64_t since;    /* CLOCK_MONOTONIC ns of its first sleep; 0: it has not slept yet */
};

/* What the core offers for all kinds (csrc/sync/). */
struct plk_sync_api {
    /* Make *ref name the record of cell `index`.  0; -EINVAL, -ENOSPC, -ESHUTDOWN as lock_init;
     * -EMEDIUMTYPE: that cell is of another kind. */
    int (*init)(struct plk_ref *ref, struct plk_domain *domain, uint32_t index, uint32_t kind);
    /* The first half of wait: 0: over; 1: queued, and wait is the rest of it; else as wait.  For who has to do
     * something in between, such as let go of a lock; that may call Python, if it can be granted meanwhile. */
    int (*begin)(struct plk_sync_wait *w);
    /* Wait, without the GIL.  0: over, w->result says how.  -ETIMEDOUT: not, and no longer queued.
     * -EINTR: at the pause, or after a signal; still queued, if it was: call again.  -ENOBUFS: this thread has used
     * all its nodes.  -ENOSPC: no memory left for them. */
    int (*wait)(struct plk_sync_wait *w);
    /* All three: deadline and pause may be late by a second while somebody who was stopped has the guard. */
    /* Give up a wait that was interrupted.  0; or 1: it is over, for its turn had come: w->result. */
    int (*leave)(struct plk_sync_wait *w);
    /* Around code that may use this object or others, or fork: the place in the queue is kept, and
     * others go first meanwhile.  back: 0; -ECHILD in a process forked meanwhile, where the wait is the
     * parent's: w is as if it had not begun. */
    void (*aside)(struct plk_sync_wait *w);
    int (*back)(struct plk_sync_wait *w);
    /* Do what the kind's `act` does (csrc/sync/sync.h).  What that returns, or as wait. */
    int (*act)(struct plk_ref *ref, struct plk_seat *seat, uint32_t what, uint64_t value);
    /* Who has found nothing to take looks whether that is because somebody has died; not more often
     * than every few milliseconds.  Nonzero: try again. */
    int (*look)(struct plk_ref *ref, struct plk_seat *seat);
};

/* What act can be asked, if the kind knows it. */
enum plk_act {
    PLK_ACT_SETTLE, /* every kind: the word has changed, see whom that concerns */
    PLK_ACT_GIVE,   /* owned: `value` permits back; 0, or -EPERM: this thread has not so many */
    PLK_ACT_SET,    /* event: happened, for all who wait now */
    PLK_ACT_KINDS,  /* a kind's own begin here */
    PLK_ACT_NOTIFY = PLK_ACT_KINDS, /* condition: the first `value` who wait now */
    PLK_ACT_NOTIFY_ALL, /* condition: all who wait now */
    PLK_ACT_PAIR,       /* condition: its lock is `value`, cell index + 1, if it has none; which it has, 0: none */
    PLK_ACT_PASS,       /* barrier: this thread has acted; 0, or -EPIPE: it has been broken meanwhile */
    PLK_ACT_BREAK,      /* barrier: nobody passes until it is reset */
    PLK_ACT_RESET,      /* barrier: as new; who waits now does not pass */
    PLK_ACT_UNLOCK,     /* rwlock: this thread lets go of `value`, enum plk_want; 0, or -EPERM */
    PLK_ACT_MEND,       /* rwlock: no holder has died, says the writer; 0, or -EPERM */
};

/* ------------------------------------------------------------ semaphores */

#define PLK_PERMITS_MOST 0x7fffffffull

/* Take a permit if there is one: 0, else -EAGAIN. */
PLK_INLINE int plk_permit_take(struct plk_sync *sync, int called)
{
    uint64_t word = PLK_LOAD(&sync->word);

    while ((word & PLK_SYNC_STATE) != 0 && ((word & PLK_SYNC_RESERVED) == 0 || called)) {
        if (__atomic_compare_exchange_n(&sync->word, &word, word - 1, 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_RELAXED))
            return 0;
    }
    return -EAGAIN;
}

/* Permits so far that nobody has taken. */
PLK_INLINE uint64_t plk_permits(const struct plk_sync *sync)
{
    return PLK_LOAD(&sync->word) & PLK_SYNC_STATE;
}

/* Put n permits there.  0; 1: and somebody is to be called (PLK_ACT_SETTLE); -EOVERFLOW: that would be
 * more than `most`, and nothing has been done. */
PLK_INLINE int plk_permit_give(struct plk_sync *sync, uint64_t n, uint64_t most)
{
    uint64_t word = PLK_LOAD(&sync->word);

    do {
        if (n > most || (word & PLK_SYNC_STATE) > most - n)
            return -EOVERFLOW;
        /* [Y1] in one step with the look at the flags; pairs with plk_settle_calling */
    } while (!__atomic_compare_exchange_n(&sync->word, &word, word + n, 0, __ATOMIC_SEQ_CST,
                                          __ATOMIC_RELAXED));
    return (word & (PLK_SYNC_WAITERS | PLK_SYNC_CALLED)) == PLK_SYNC_WAITERS;
}

/* ---------------------------------------------------------------- mutexes */

/* The state of a mutex: 0, free, or who holds it: generation << 16 | tag. */
#define PLK_MUTEX_HOLDER(generation, tag) ((uint64_t)(uint32_t)(generation) << 16 | (uint64_t)(tag))
#define PLK_MUTEX_VCPU(word) ((uint32_t)((word) & 0xffffu) - 1u)
#define PLK_MUTEX_GENERATION(word) ((uint32_t)((word) >> 16))

/* Take it if it is free: 0; PLK_OWNER_DIED: taken, and a holder had died; else -EAGAIN. */
PLK_INLINE int plk_mutex_take(struct plk_sync *sync, const struct plk_seat *seat, int called)
{
    uint64_t word = PLK_LOAD(&sync->word);
    uint64_t me = PLK_MUTEX_HOLDER(PLK_LOAD(&seat->vcpu->generation), seat->tag);

    while ((word & PLK_SYNC_STATE) == 0 && ((word & PLK_SYNC_RESERVED) == 0 || called)) {
        if (__atomic_compare_exchange_n(&sync->word, &word, (word & ~PLK_SYNC_OWNER_DIED) | me, 0,
                                        __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
            return PLK_UNLIKELY((word & PLK_SYNC_OWNER_DIED) != 0) ? PLK_OWNER_DIED : 0;
    }
    return -EAGAIN;
}

/* Let go of it, whoever holds it.  0; 1 as plk_permit_give; -EPERM: it was free. */
PLK_INLINE int plk_mutex_give(struct plk_sync *sync)
{
    uint64_t word = PLK_LOAD(&sync->word);

    do {
        if ((word & PLK_SYNC_STATE) == 0)
            return -EPERM;
    } while (!__atomic_compare_exchange_n(&sync->word, &word, word & ~PLK_SYNC_STATE, 0, __ATOMIC_SEQ_CST,
                                          __ATOMIC_RELAXED));
    return (word & (PLK_SYNC_WAITERS | PLK_SYNC_CALLED)) == PLK_SYNC_WAITERS;
}

/* ----------------------------------------------------------------- events */

#define PLK_EVENT_SET 1ull

PLK_INLINE int plk_event_is_set(const struct plk_sync *sync)
{
    return (PLK_LOAD_ACQUIRE(&sync->word) & PLK_EVENT_SET) != 0;
}

/* 0; 1: not done, for somebody waits: PLK_ACT_SET. */
PLK_INLINE int plk_event_set(struct plk_sync *sync)
{
    uint64_t word = PLK_LOAD(&sync->word);

    do {
        if ((word & PLK_SYNC_WAITERS) != 0)
            return 1;
    } while (!__atomic_compare_exchange_n(&sync->word, &word, word | PLK_EVENT_SET, 0, __ATOMIC_SEQ_CST,
                                          __ATOMIC_RELAXED));
    return 0;
}

PLK_INLINE void plk_event_clear(struct plk_sync *sync)
{
    __atomic_fetch_and(&sync->word, ~PLK_EVENT_SET, __ATOMIC_SEQ_CST);
}

/* --------------------------------------------- conditions, barriers, RW locks */

PLK_INLINE int plk_condition_waited(const struct plk_sync *sync)
{
    return (PLK_LOAD(&sync->word) & PLK_SYNC_WAITERS) != 0;
}

/* The state of a barrier, and what a wait at it comes to: the thread's place, 0 to limit - 1, or */
#define PLK_BARRIER_ACTING 1ull
#define PLK_BARRIER_BROKEN 2ull
#define PLK_BARRIER_ACT (1 << 24)    /* run the action, then PLK_ACT_PASS or PLK_ACT_BREAK */
#define PLK_BARRIER_BREACH (1 << 25) /* broken or reset */
#define PLK_BARRIER_VICTIM(sync) PLK_LOAD(&(sync)->data[3]) /* whose death broke it: pid << 32 | tid; or 0 */

/* What is wanted of an RW lock, and its state: how many read, and whether somebody writes. */
enum plk_want { PLK_WANT_READ = 1, PLK_WANT_WRITE = 2 };
#define PLK_RW_WRITER (1ull << 32)
#define PLK_RW_READERS 0xffffffffull

PLK_STATIC_ASSERT(sync, sizeof(struct plk_sync) == 2 * PLK_LINE);
PLK_STATIC_ASSERT(node, sizeof(struct plk_node) == PLK_LINE);
PLK_STATIC_ASSERT(kinds_fit, PLK_KIND_COUNT <= 256);

#endif
