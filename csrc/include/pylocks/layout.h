/* pylocks/layout.h - what lies in a domain's shared memory.
 *
 * A domain is one shared segment; every process that attaches it, whatever it
 * was compiled with, must agree on each byte below.  Any change of size or
 * meaning raises PLK_ABI, and attaching with another ABI is refused.
 *
 *   +--------+------------+---------+-------------+---------+---------+---------+---------+-----------+---------+
 *   | header | channels[] | tombs[] | directory[] | vCPUs[] | cells[] | syncs[] | nodes[] | tallies[] | rings[] |
 *   +--------+------------+---------+-------------+---------+---------+---------+---------+-----------+---------+
 *
 * Each part starts on a page.  Nothing in the segment is a pointer: cells and
 * vCPUs are named by index, and an index read from the segment is checked
 * against the attacher's own copy of the geometry before it is used.
 *
 * The words that the algorithm turns on are `plk_cell` and the first line of
 * `plk_vcpu`; the table of their legal states stands beside each.  syncs[] and nodes[] are
 * those of semaphores, events and their like: sync.h.
 */
#ifndef PYLOCKS_LAYOUT_H
#define PYLOCKS_LAYOUT_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define PLK_MAGIC 0x31736b636f6c7970ull      /* "pylocks1", little endian */
#define PLK_FORMATTING 0x30736b636f6c7970ull /* "pylocks0": its creator is at work, or died at it */
#define PLK_ABI 5u
#define PLK_LINE 64u
#define PLK_PAGE 4096u

/* No ticket: larger than any that can be handed out (64-bit tickets do not
 * wrap: at one a nanosecond the last comes after 584 years). */
#define PLK_NO_TICKET UINT64_MAX

#define PLK_MAX_VCPUS 65535u
#define PLK_MAX_CELLS (1u << 26)
#define PLK_NAME_MAX 100u

/* How an unlocker behaves; written once by the creator.  A native unlocker
 * never kicks, so an enlightened waiter parked behind it would sleep on: the
 * two may not meet in one domain. */
enum plk_protocol { PLK_NATIVE = 1, PLK_ENLIGHTENED = 2 };

/* Who orders an unlocker's store of head before its look at slow, in the whole
 * domain: every unlocker, or every waiter on behalf of all (hv/barrier.c). */
enum plk_barrier { PLK_BARRIER_FENCE = 1, PLK_BARRIER_MEMBARRIER = 2 };

/* ------------------------------------------------------------- lock cell */

enum plk_cell_flags {
    PLK_CELL_ALLOCATED = 1u << 0,
    PLK_CELL_OWNER_DIED = 1u << 1, /* a holder died inside; sticky until marked consistent */
    PLK_CELL_BOUNDED = 1u << 2,    /* the gate of a bounded lock, whose queue is the next cell */
    PLK_CELL_QUEUE = 1u << 3,      /* that queue: no lock of its own */
    PLK_CELL_SYNC = 1u << 4,       /* the guard of syncs[] at its index: no lock of its own, either */
    PLK_CELL_RECURSIVE = 1u << 5,  /* its owner may acquire it again; a plk_depth follows */
};
/* Of a guard: enum plk_kind of what it guards (sync.h).  Of a lock: 0. */
#define PLK_KIND_OF(flags) ((flags) >> 8 & 0xffu)
#define PLK_KIND_FLAGS(kind) (PLK_CELL_SYNC | (uint32_t)(kind) << 8)
/* The upper half of flags counts the reuses of the memory as another lock. */
#define PLK_GENERATION_OF(flags) ((flags) >> 16)
#define PLK_GENERATION_ONE 0x00010000u

/* 32 bytes; padded to a cache line unless the domain is packed.
 *
 *   head == tail               free
 *   head <  tail               ticket `head` holds it or is about to enter
 *   owner == (head, v + 1)     v is inside its critical section
 *   owner != (head, *)         nobody is inside; a stale owner is never cleared
 *   slow  != 0                 somebody may be parked on, or have abandoned, a
 *                              ticket in (head, tail): the unlocker must look;
 *                              1 or 2, which matters to waiters (hv/barrier.c)
 *
 * `tail` moves only by fetch-and-add (or compare-and-swap from head == tail).
 * `head` is stored by the holder of ticket `head`, who possesses it alone, or,
 * if that ticket is abandoned, moved by compare-and-swap by whoever passes over
 * it.  `slow` may be set when nothing needs it (costs one look) and must never
 * be clear when something does; only the holder clears it: plk_unlock.
 * Type-stable: freed cells are only ever reused as cells, with head and tail
 * going on from where they were, so that a late kick is harmless. */
struct plk_cell {
    uint64_t tail;
    uint64_t head;
    uint64_t owner; /* PLK_OWNER(ticket, vCPU index + 1) */
    uint32_t slow;
    uint32_t flags;
};

/* What a recursive lock has besides, in the other half of its line (recursive.h).  Written by the
 * owner alone, first of all when it has entered: what lies here while nobody is inside, or was
 * left by one who died inside, is never read. */
struct plk_depth {
    uint32_t again; /* acquisitions by the owner beyond the first */
    uint32_t spare[7];
};

/* What a bounded lock has besides its two cells, in the other half of the queue's
 * line (bounded.h), away from the gate's, which is handed from CPU to CPU at each
 * acquisition.  All of it is advice: whatever it says, nobody enters who may not, and
 * nobody sleeps longer than the watchdog. */
struct plk_gate {
    uint32_t spinner;     /* PLK_SPINNER of who spins at the gate; 0: nobody */
    uint32_t promoted;    /* the queue's head, + 1, if it has been told to come to the gate */
    uint64_t promoted_ns; /* CLOCK_MONOTONIC of that */
    uint64_t armed_ns;    /* by then a sleeper looks whether the gate stands open; 0: none will */
    uint32_t window;      /* the gate's head when last somebody asked which CPUs its holders run on */
    uint16_t seen;        /* those CPUs, mod 16, since then */
    uint16_t due;         /* the holder that runs on this CPU, + 1, is to make room; 0: none in particular */
};
#define PLK_SPINNER(now) ((uint32_t)((now) >> 22) << 1 | 0x40000000u) /* in 4 ms */
#define PLK_SPINNER_CALLS 1u /* a promotion is due, says the spinner */

/* vCPUs are tagged from 1 on, so that a fresh cell, all zeros, has no owner.  The
 * low 48 bits of the ticket are enough to compare with head: an owner record
 * 2^48 acquisitions old would have to survive as the last one. */
#define PLK_OWNER(ticket, tag) (((uint64_t)(ticket) << 16) | (uint64_t)(tag))
#define PLK_OWNER_VCPU(owner) ((uint32_t)((owner) & 0xffffu) - 1u) /* index; UINT32_MAX: none */
static inline int PLK_OWNER_VALID(uint64_t owner, uint64_t head)
{
    return (owner & 0xffffu) != 0 && (owner >> 16) == (head & (UINT64_MAX >> 16));
}

/* ------------------------------------------------------------------ vCPU */

/* Counters, in the order in which they lie in the slot.  Written by the vCPU's
 * own thread alone and never reset, so a reused slot counts on and the sum over
 * all slots is the domain's; X(name, meaning). */
#define PLK_EVENTS(X)                                                          \
    X(waits, "acquisitions that had to queue")                                 \
    X(spin_grants, "waits that ended while spinning, without a hypercall")     \
    X(hypercalls, "lock_spinning calls made")                                  \
    X(yields, "sched_yield calls made while waiting")                          \
    X(parks, "sleeps in futex wait")                                           \
    X(spurious, "returns from a sleep that found the turn not yet come")       \
    X(watchdogs, "sleeps ended by the watchdog bound")                         \
    X(kicks, "unlocks that woke the next ticket's channel")                    \
    X(empty_kicks, "unlocks that looked for a parked successor and found none")\
    X(abandons, "tickets left in the queue (timeout, signal)")                 \
    X(resumes, "abandoned tickets taken back by a later acquire")              \
    X(passes, "abandoned tickets passed over on behalf of their leavers")      \
    X(preempted, "spins skipped because the holder could not be running")      \
    X(recoveries, "deaths after which what the dead held was recovered")       \
    X(owner_deaths, "locks of which the holder died inside and that were recovered")

enum plk_event {
#define X(name, meaning) PLK_EV_##name,
    PLK_EVENTS(X)
#undef X
    PLK_EV_COUNT
};

enum plk_vcpu_state {
    PLK_VCPU_FREE = 0,
    PLK_VCPU_CLAIMED = 1, /* being set up, under the domain mutex */
    PLK_VCPU_ONLINE = 2,
};

#define PLK_PEND_DEPTH 7u

struct plk_pend {
    uint64_t cell; /* cell index + 1; 0 is none */
    uint64_t ticket;
};

#define PLK_PENDING_HELD(pending, held) ((uint64_t)(held) << 32 | (uint64_t)(pending))

/* What a vCPU asks of the hypervisor service: words of its hypercall page, 0 where it asks
 * nothing.  The vCPU writes what it asks, the service 0 when that is done (slow/hosted.c). */
enum plk_call {
    PLK_CALL_KICK,   /* serve the head of this cell, index + 1: it has been moved on */
    PLK_CALL_WAIT,   /* it is about to sleep for this cell */
    PLK_CALL_HELLO,  /* 1: it has just registered */
    PLK_CALL_LATE,   /* the service's own: the ticket, + 1, that was served and slept at its last look */
    PLK_CALLS
};
#define PLK_BELL(index) (1u << (index) % 32) /* of the slot's index; one bit for several slots */

/* A slot's next thread is not taken for the service that its former one was. */
#define PLK_SERVICE(index, generation) ((uint64_t)(generation) << 32 | ((uint64_t)(index) + 1))
#define PLK_SERVICE_VCPU(word) ((uint32_t)(word) - 1u) /* index; UINT32_MAX: none */

/* One thread of one process in one domain.  512 bytes, eight cache lines.
 *
 *   pending == 0                          not acquiring
 *   pending == L, ticket == NO_TICKET     around the xadd on L, or past it and at
 *                                         once served, owner record not yet written
 *   pending == L, ticket == t             waits for t, or was granted t and has
 *                                         not yet written the owner record
 *
 * A signal handler or finalizer may take another lock while its thread waits;
 * the outer wait is then kept in `outer` (outer[depth-1] is the innermost).
 * `held` is an upper bound of the cells whose owner record names this vCPU: it
 * rises before the xadd and falls after the head store, so a dead vCPU with
 * held == 0 is known to hold nothing without looking at a single cell.
 *
 * What a vCPU that died has left here is read by whoever recovers it; a slot is
 * dirty, and may not be reused, until that is done (hv/recovery.c). */
struct plk_vcpu {
    /* line 0: written by the thread alone; the second half at every acquisition.  The second,
     * because a cell's words are in the first half of its line: slots and cells both begin on
     * pages, and a load waits for an earlier store whose address has the same low 12 bits. */
    uint32_t cpu;        /* CPU last seen on, a hint; written in the slow case only */
    uint32_t channel;    /* event channel being parked on, index + 1; 0 is none */
    uint64_t wait_since; /* CLOCK_MONOTONIC ns at which the present wait began; 0 is none */
    uint64_t wanted;     /* the lock waited for since, cell index + 1; of a bounded one, the gate */
    uint32_t nodes;      /* which of its nodes (sync.h) it uses, a bit each */
    uint32_t nodes_left; /* which its predecessors in the slot used, and may have left in a queue */
    __extension__ union {
        __extension__ struct {
            uint32_t pending; /* cell index + 1; 0 is none */
            uint32_t held;
        };
        uint64_t pending_held; /* both in one store: PLK_PENDING_HELD */
    };
    uint64_t ticket;
    uint64_t spare1[2];

    /* line 1: identity, written once at registration */
    uint32_t state; /* enum plk_vcpu_state */
    uint32_t generation;
    int32_t pid;
    int32_t tid;
    uint64_t start_time; /* of the process, clock ticks after boot, /proc/PID/stat field 22 */
    uint64_t pid_ns;     /* inode of its pid namespace: pids compare only within one */
    uint64_t spare2[4];

    /* line 2: the life word.  A robust process-shared mutex that the thread
     * locks at registration and holds for as long as it lives.  However the
     * thread ends, the kernel walks its robust list and marks the word, which
     * pid reuse and pid namespaces cannot confuse. */
    union {
        pthread_mutex_t mutex;
        char bytes[64];
    } life;

    /* lines 3 and 4: waits that nested acquisitions interrupted */
    uint32_t depth;
    uint32_t shifts;  /* [D1] moves when a claim comes back from outer to pending */
    uint32_t burying; /* [D4] 1: between two steps of putting up or taking down a tombstone */
    uint32_t kicking; /* event channel whose sleeper it is waking, index + 1; 0 is none */
    struct plk_pend outer[PLK_PEND_DEPTH];

    /* lines 5 and 6: counters */
    uint64_t events[16];

    /* line 7: the hypercall page */
    uint64_t hypercall[8]; /* enum plk_call */
};

/* ---------------------------------------------------------- event channel */

/* A ticket's channel is a hash of (cell, ticket) into one array for the domain
 * (a waiting array), so a kick costs the same with a thousand waiters as with
 * one.  `parked` is a count that each waiter raises and lowers for itself: a
 * kicker never clears it, because clearing at kick time loses the wake of
 * another ticket that shares the channel.  A killed sleeper leaves it too high,
 * which costs needless wake calls until recovery mends it [D4]: for that the upper
 * half of the word counts the entries, so that a compare-and-swap of the whole
 * word fails if anybody came meanwhile. */
struct plk_channel {
    uint32_t seq;    /* futex word; bumped by every kick */
    uint32_t parked; /* waiters between publishing and leaving: PLK_PARKED of it */
    uint32_t kicked; /* PLK_KICKED of the ticket last kicked here; its waiter clears it before it sleeps */
    uint32_t cpu;    /* where the last to park here ran, + 1: a hint */
    uint64_t kicked_ns; /* CLOCK_MONOTONIC of that kick: a hint */
    uint64_t spare;
};
/* Tells the tickets of one lock apart, which is what matters: one lock's neighbours. */
#define PLK_KICKED(id, ticket) ((uint32_t)(((uint64_t)(id) * 0x9e3779b1u + (uint64_t)(ticket)) | 0x80000000u))
#define PLK_PARK_ENTER 0x10001u
#define PLK_PARK_LEAVE 1u
#define PLK_PARKED(word) ((word) & 0xffffu)

/* A tombstone, one word:
 *
 *   0                          empty
 *   PLK_TOMB(id, t)            ticket t of cell id - 1 is abandoned
 *   the same | PLK_TOMB_PASSING  and somebody is moving head past it; whoever
 *                              meets it finishes that (recover/abandon.c)
 *
 * id takes 27 bits and the low 36 of the ticket are kept: those that can be
 * abandoned lie within [head, tail), of which there are far fewer. */
#define PLK_TOMB(id, ticket) (((uint64_t)(id) << 36) | ((uint64_t)(ticket) & 0xfffffffffull))
#define PLK_TOMB_PASSING (1ull << 63)
#define PLK_TOMB_ID(word) (((word) & ~PLK_TOMB_PASSING) >> 36)
#define PLK_TOMB_WINDOW 32u

/* --------------------------------------------------------------- directory */

enum plk_entry_state { PLK_ENTRY_EMPTY = 0, PLK_ENTRY_FILLING = 1, PLK_ENTRY_READY = 2 };

struct plk_entry {
    uint32_t state;
    uint32_t hash;
    uint32_t cell;
    uint32_t length;
    char name[PLK_NAME_MAX];
    uint32_t spare[3];
};

/* ------------------------------------------------------------------ header */

struct plk_geometry {
    uint32_t vcpus, channels, tombs, entries, cells, stride;
    uint32_t tallied, rings; /* cells and vCPUs, the first of them, with a tally and a ring: events.h */
    uint32_t syncs, noded;   /* cells that can be guards, and vCPUs with nodes: all of them, or none (sync.h) */
    uint64_t off_channels, off_tombs, off_entries, off_vcpus, off_cells, off_syncs, off_nodes;
    uint64_t off_tallies, off_rings, size;
};

struct plk_header {
    uint64_t magic; /* stored last by the creator, with release */
    uint32_t abi;
    uint32_t header_size;
    uint32_t cell_size, vcpu_size, entry_size, mutex_size;
    uint32_t life_offset; /* of the lock word in pthread_mutex_t: tells C libraries apart */
    uint32_t protocol;    /* enum plk_protocol */
    uint32_t array;       /* 1: all cells belong to one array, none is allocated singly */
    uint32_t barrier;     /* enum plk_barrier */
    struct plk_geometry geometry;
    unsigned char uid[16];  /* random: two attachments are the same domain iff equal */
    unsigned char boot[16]; /* the kernel's boot_id */
    int64_t creator_pid;
    uint64_t created_ns; /* CLOCK_REALTIME */
    char slow_path[16]; /* the creator's choice, NUL-terminated; attachers prefer it */

    /* under `mutex`: directory, allocation of cells and vCPU slots */
    union {
        pthread_mutex_t mutex;
        char bytes[64];
    } guard;
    uint32_t cells_next; /* cells below it have been allocated once */
    uint32_t cells_free; /* of those, not allocated now: a hint */
    uint32_t vcpus_next;   /* slots below it have been used once */
    uint32_t entries_next; /* directory entries below it have been used once */

    uint32_t tombs_live;    /* tombstones standing; 0 lets a kick skip the search */
    uint32_t tombs_version; /* moves with every insertion and removal */
    uint64_t service_vcpu;  /* PLK_SERVICE of the hypervisor's vCPU, while that lives; 0 is none */
    uint64_t looked_ns;     /* CLOCK_MONOTONIC: somebody looked for dead vCPUs; a rate limit */
    uint64_t detects; /* 1: who would close a cycle of waiters is told (hv/deadlock.c); set by the creator */
    uint32_t doorbell;      /* futex word: PLK_BELL of who has rung; the service alone clears it (slow/hosted.c) */
    uint32_t service_looks; /* how often a service has looked at all vCPUs */
    uint64_t spare2[10];
};

#define PLK_STATIC_ASSERT(name, what) typedef char plk_assert_##name[(what) ? 1 : -1] __attribute__((unused))
PLK_STATIC_ASSERT(long_is_64, sizeof(long) == 8); /* ops take tickets as long */
PLK_STATIC_ASSERT(tomb_id, PLK_MAX_CELLS < (1u << 27));
PLK_STATIC_ASSERT(cell, sizeof(struct plk_cell) == 32);
PLK_STATIC_ASSERT(vcpu, sizeof(struct plk_vcpu) == 512);
PLK_STATIC_ASSERT(pending_is_low, __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ && offsetof(struct plk_vcpu, held) == offsetof(struct plk_vcpu, pending) + 4);
PLK_STATIC_ASSERT(identity_line, offsetof(struct plk_vcpu, state) == 64);
PLK_STATIC_ASSERT(life_line, offsetof(struct plk_vcpu, life) == 128);
PLK_STATIC_ASSERT(stack_line, offsetof(struct plk_vcpu, depth) == 192);
PLK_STATIC_ASSERT(counter_line, offsetof(struct plk_vcpu, events) == 320);
PLK_STATIC_ASSERT(hypercall_line, offsetof(struct plk_vcpu, hypercall) == 448);
PLK_STATIC_ASSERT(life_fits, sizeof(pthread_mutex_t) <= 64);
PLK_STATIC_ASSERT(depth, sizeof(struct plk_cell) + sizeof(struct plk_depth) == PLK_LINE);
PLK_STATIC_ASSERT(gate, sizeof(struct plk_cell) + sizeof(struct plk_gate) == PLK_LINE);
PLK_STATIC_ASSERT(channel, sizeof(struct plk_channel) == 32);
PLK_STATIC_ASSERT(entry, sizeof(struct plk_entry) == 128);
PLK_STATIC_ASSERT(header, sizeof(struct plk_header) <= PLK_PAGE);
PLK_STATIC_ASSERT(events, PLK_EV_COUNT <= 16);
PLK_STATIC_ASSERT(calls, PLK_CALLS <= 8);

#endif
