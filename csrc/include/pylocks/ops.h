/* pylocks/ops.h - the operations in which native and enlightened locks differ,
 * and what a module shares with the core to take part in patching.
 *
 * A module is one shared object: pylocks._lock, pylocks._core itself, or any
 * extension that includes <pylocks.h>.  It owns one table of operations and
 * any number of patch sites, and hands both to the core when it is loaded; the
 * core fills the table and patches the sites, then or at the first attach. */
#ifndef PYLOCKS_OPS_H
#define PYLOCKS_OPS_H

#include "events.h"
#include "layout.h"

#define PLK_HIDDEN __attribute__((visibility("hidden")))
#define PLK_COLD __attribute__((noinline, cold, unused))
/* The fast path must not become a call, however often a file uses it. */
#define PLK_INLINE static inline __attribute__((always_inline))
#define PLK_LIKELY(x) __builtin_expect(!!(x), 1)
#define PLK_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* X(name, where it is called, what it returns) */
#define PLK_OPS(X)                                                               \
    X(cpu_relax, "every turn of a spin", "nothing")                              \
    X(unlock_barrier, "between the store of head and the look at slow", "nothing") \
    X(lock_spinning, "a waiter that has spun its budget", "a plk_hint")          \
    X(unlock_kick, "an unlock that found slow set", "nothing")                   \
    X(vcpu_preempted, "a waiter about to spin", "nonzero: the holder can't be running") \
    X(lock_event, "contended paths; entering and leaving", "nothing")

enum plk_op {
#define X(name, where, what) PLK_OP_##name,
    PLK_OPS(X)
#undef X
    PLK_OP_COUNT
};

/* What lock_spinning tells the wait loop. */
enum plk_hint {
    PLK_HINT_NONE = 0,        /* look at head again */
    PLK_HINT_INTERRUPTED = 1, /* a signal ended the sleep */
};

/* One recorded patch site; lies in the section plk_sites of its module. */
struct plk_site {
    int32_t offset; /* of the site's first byte, from this field */
    uint8_t op;
    uint8_t length;     /* in its upper half, of lock_event: enum plk_place */
    uint8_t lock, seat; /* at a place of the uncontended path: `push` of the register that holds them */
};
#define PLK_SITE_LENGTH_OF(site) ((site)->length & 15u)
#define PLK_SITE_PLACE_OF(site) ((site)->length >> 4)

typedef long (*plk_op_fn)(void); /* called with the op's own arguments */

struct plk_ops {
    plk_op_fn fn[PLK_OP_COUNT];
};

struct plk_lock;
struct plk_wait;
struct plk_timed;
struct plk_sync_api;

/* This process's view of an attached domain, as far as the fast path needs it. */
struct plk_domain {
    uint32_t id;         /* index into each thread's seats; PLK_CLOSED_DOMAIN once closed */
    uint32_t protocol;   /* enum plk_protocol */
    uint32_t spin_turns; /* cpu_relax turns before the first lock_spinning; 0: never spin */
    uint32_t spin_near;  /* spin only when at most so many tickets are ahead */
    uint32_t crowd;      /* while no more than so many have tickets, nobody need sleep (slow/futex.c) */
    uint32_t ahead;      /* in a longer queue so many, the next in line, are awake */
    uint32_t wake_ns;    /* what it takes from a kick until its waiter runs, learned */
    uint32_t spin_ns;    /* what spin_turns was at first; 0: spin_turns is not learned */
    uint32_t turn_ps;    /* what a cpu_relax turn takes, ps; 0: unknown */
    uint32_t cpus;       /* how many this process can use at a time */
    uint32_t detects;    /* 1: waiters look for cycles among them */
};

#define PLK_SPIN_OWN UINT32_MAX

#define PLK_MAX_DOMAINS 256u
#define PLK_CLOSED_DOMAIN PLK_MAX_DOMAINS /* the seat there is never taken */

/* One thread's registration in one domain: its vCPU, and the tickets it left. */
struct plk_seat {
    struct plk_vcpu *vcpu; /* NULL: not registered */
    uint64_t tag;          /* what owner records call it: index of the slot + 1 */
    struct plk_pend *left; /* abandoned tickets that may still stand, private */
    uint32_t left_count, left_room;
    uint64_t retired;      /* bounded: next time wait in the queue of this lock (its id) at once */
    uint32_t since_clock;  /* bounded: unlocks since the last look at the clock, */
    uint32_t clock_every;  /* and how many there are to be */
    uint64_t clock_ns;     /* what it said */
    uint64_t active_ns;    /* bounded: when last it came in by the queue */

    /* lock_event's own (events.h, hv/events.c) */
    struct plk_tally *tally;  /* NULL: nothing is counted there */
    struct plk_record *ring;  /* NULL: nothing is traced */
    struct plk_timed *timed;  /* locks held, of which the time is taken */
    uint32_t timed_count;
    uint32_t sample;

    struct plk_cycle *cycle; /* the cycle of waiters that this thread was last to leave */
    uint32_t nodes;          /* those it uses (sync.h), as its slot says: that can be written over */
    uint32_t spare0;
    uint64_t spare[2];
};

/* A sleep that another thread sleeps (api->vigil_begin). */
struct plk_vigil {
    uint32_t *word; /* NULL: none is under way */
    uint32_t seq;
    uint64_t until, armed;
};

struct plk_api;

struct plk_module {
    const char *name;
    struct plk_ops *ops;
    const struct plk_site *sites, *sites_end;
    const struct plk_api *api; /* set by registration */
    struct plk_module *next;   /* the core's list */
};

/* What the core offers to modules.  All of it is slow-path or set-up. */
struct plk_api {
    uint32_t abi;  /* PLK_ABI */
    uint32_t size; /* sizeof(struct plk_api) */
    int (*module_add)(struct plk_module *module);
    /* Make *lock name cell `index` of *domain; its memory is reserved then. */
    int (*lock_init)(struct plk_lock *lock, struct plk_domain *domain, uint32_t index);
    /* This thread's table of seats, one a domain. NULL: no memory. */
    struct plk_seat *(*seats)(void);
    /* Register this thread as a vCPU of the domain: 0 and its seat, or negative. */
    int (*enroll)(struct plk_domain *domain, struct plk_seat **seat);
    /* This thread's seat even if the domain has been closed meanwhile, or NULL. */
    struct plk_seat *(*seat_left)(struct plk_domain *domain);
    /* Close the domain for new acquisitions of this process.  0; -EBUSY: a
     * thread holds or waits for a lock of it. */
    int (*retire)(struct plk_domain *domain);
    /* CLOCK_MONOTONIC in ns. */
    uint64_t (*now)(void);
    /* Abandon w's ticket.  0: left; 1: the turn had come and was passed on;
     * -ENOSPC: no room for a tombstone, the ticket still stands. */
    int (*leave)(struct plk_wait *w);
    /* Take back a ticket that this vCPU abandoned on w's lock; 1: taken. */
    int (*resume)(struct plk_wait *w);
    /* Nonzero: so many tickets are abandoned in the domain that a further one may
     * find no room for its tombstone. */
    int (*crowded)(struct plk_domain *domain);
    /* Sleep for a moment, not beyond the time given. */
    void (*nap)(uint64_t until);
    /* What waiters do for each other, and who found the lock busy: recover the
     * dead, pass over an abandoned ticket at the head of the queue. */
    void (*watch)(struct plk_wait *w);
    /* Keep w safe while the thread runs code that may take other locks: 0, or
     * -ENOSPC, nested too deeply.  Then back: 0, or -ECHILD in a process forked
     * meanwhile, where the ticket is the parent's and w must be taken anew. */
    int (*nest)(struct plk_wait *w);
    int (*unnest)(struct plk_wait *w);
    /* Once a wait has begun, and every few milliseconds: nonzero, it would last for
     * ever, for it is for oneself through others, and it is up to this thread to give way. */
    int (*search)(struct plk_wait *w);
    /* The lock is held by a living thread of another process. */
    int (*held_elsewhere)(const struct plk_lock *lock, const struct plk_seat *seat);
    /* How long a waiter spins, ns, if the hypervisor service says so; PLK_SPIN_OWN: it does not. */
    uint32_t (*spin_policy)(struct plk_domain *domain);
    /* The queue of a bounded lock (bounded.h). */
    /* Others are to look at the queue when they leave the gate. */
    void (*queue_shown)(struct plk_lock *gate);
    /* Has the holder of the queue, w, been promoted, or does the gate stand open? */
    int (*queue_called)(const struct plk_wait *w);
    /* Has the holder of the queue, w, been promoted?  Or is it time it was: then it is. */
    int (*queue_promoted)(struct plk_wait *w);
    /* Sleep as the holder of the queue until that, or until the gate stands open. */
    long (*queue_standby)(struct plk_wait *w);
    /* Leave the queue to the next.  wake: and promote it, for w leaves without the lock. */
    void (*queue_pass)(struct plk_wait *w, int wake);
    /* Semaphores, events and their like (sync.h). */
    const struct plk_sync_api *sync;

    /* For a thread that does several things in turns, as an event loop does, each of which
     * excludes the others: a further seat of this thread (hv/fibre.c).  As enroll. */
    int (*fibre_enroll)(struct plk_domain *domain, struct plk_seat **seat);
    void (*fibre_drop)(struct plk_seat *seat);
    /* Around what another thread does with it; seat->vcpu is NULL if its own has ended. */
    void (*fibre_begin)(void);
    void (*fibre_end)(void);
    /* And for a place in a queue without a thread that waits there: one sleep (hv/park.c). */
    int (*vigil_begin)(struct plk_wait *w, struct plk_vigil *v);
    void (*vigil_end)(struct plk_wait *w, struct plk_vigil *v);
    void (*vigil_look)(struct plk_wait *w);
};

#endif
