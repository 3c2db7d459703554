/* probe.h - what the stress program does inside and outside a lock, and how it
 * knows that the lock is one.
 *
 * The argument.  A lock that lets two processes in at once is caught only while
 * they overlap, so the critical section is made of things that overlapping
 * processes spoil for each other, each with a different window:
 *
 *   occupants   raised by an atomic add on entry, lowered on leaving; whoever
 *               finds another one inside saw the overlap itself.
 *   words       one cache line, all words equal between critical sections.  The
 *               holder writes its stamp word by word with work between, and
 *               reads the line back: it must find its own stamp only.  Catches a
 *               second writer anywhere in the section, and a section that began
 *               before the one ahead of it had finished.
 *   counter     loaded on entry, stored plus one on leaving, never atomically.
 *               Every overlap loses an increment for good; the sum is compared
 *               with the acquisitions once everybody has left.
 *   last_ticket a lock of pylocks serves every ticket, in order: this one is the last
 *               one plus one.  Of a bounded lock that holds of the gate's tickets, which
 *               who finds it free takes, too; it says nothing of who came first.
 *
 * Nothing here knows how a lock works: the functions are given a ticket or
 * PLK_PROBE_NO_TICKET.
 *
 * The start.  Workers that came to a free lock one by one would have it to
 * themselves until the queue has formed, and a short row would measure that.  So
 * the row process holds every lock until all of them wait, and lets go then.  It
 * counts as an occupant meanwhile.
 *
 * Everything lies in one shared mapping, made before the workers are forked, and
 * is written as it happens: a worker that is killed takes nothing with it, and
 * its `phase` tells where it was.  Before the row process kills anybody it sets
 * `closed`; from then on nothing is counted or judged, because a process killed
 * inside leaves everything above in disorder that is no fault of the lock. */
#ifndef PYLOCKS_PROBE_H
#define PYLOCKS_PROBE_H

#include <stdint.h>

#define PLK_PROBE_LINE 64      /* bytes; what two workers write lies on different lines */
#define PLK_PROBE_WORDS 8      /* of the torn-write detector: one line */
#define PLK_PROBE_MESSAGE 240  /* bytes for the text of a worker's first exception */
#define PLK_PROBE_NO_TICKET UINT64_MAX
#define PLK_PROBE_STAMP_BITS 44 /* of a stamp for the acquisition; above them, the worker's number + 1 */

/* Wait times are counted in log-linear buckets: exact below 32 ns, then 32
 * buckets for every power of two up to 2^40 ns (18 minutes; longer waits are
 * counted in the last one).  A bucket is at most 1/32 of its value wide, so its
 * middle is within 1.6 % of what it stands for. */
#define PLK_PROBE_SUB_BITS 5
#define PLK_PROBE_TOP_BITS 40
#define PLK_PROBE_BUCKETS ((PLK_PROBE_TOP_BITS - PLK_PROBE_SUB_BITS + 1) << PLK_PROBE_SUB_BITS)

/* X(name, what was found): violations that a worker finds by itself; the last
 * ones only under chaos, which is explained in probe/chaos.h. */
#define PLK_PROBE_VIOLATIONS(X)                                               \
    X(occupied, "another process was inside the critical section")            \
    X(torn_write, "the guarded line held somebody else's writes")             \
    X(ticket_order, "the ticket was not the one after the last one served")   \
    X(acquire_error, "acquire raised an exception")                           \
    X(release_error, "release raised an exception")                           \
    X(silent_death, "the holder before was killed inside, and owner_died was not set") \
    X(forgotten_death, "owner_died was gone before anybody had called mark_consistent") \
    X(lost_increment, "an earlier holder's increment of the counter was lost") \
    X(unwarned, "owner_died was set, and acquire gave no OwnerDiedWarning")    \
    X(false_warning, "acquire gave an OwnerDiedWarning, and owner_died was not set") \
    X(still_inconsistent, "owner_died was set after mark_consistent")          \
    X(early_timeout, "an acquire with a timeout gave up before its time")
#define PLK_PROBE_CHAOS_ONLY PLK_PROBE_silent_death /* the first of those */

enum plk_probe_violation {
#define X(name, what) PLK_PROBE_##name,
    PLK_PROBE_VIOLATIONS(X)
#undef X
    PLK_PROBE_KINDS
};

/* Where a worker is. */
enum plk_probe_phase {
    PLK_PROBE_STARTING = 0,
    PLK_PROBE_OUTSIDE = 1,
    PLK_PROBE_WAITING = 2,   /* since waiting_since, for lock `lock` */
    PLK_PROBE_INSIDE = 3,    /* between the load and the count: a kill here may lose one count */
    PLK_PROBE_RELEASING = 4, /* counted; the release has not come back */
    PLK_PROBE_DONE = 5,
};

/* The start of the mapping; the workers' areas follow, then the locks'. */
struct plk_probe_control {
    uint32_t ready;         /* workers at the barrier */
    uint32_t go;            /* futex word: 1 opens the barrier */
    uint32_t stop;          /* 1: no new acquisition begins */
    uint32_t closed;        /* 1: nothing is counted or judged any more */
    uint64_t workers, locks;
    uint64_t limit;         /* acquisitions to begin in all; 0: until stop */
    uint64_t cs_loops;      /* turns of work in the critical section */
    uint64_t outside_loops; /* mean turns of work outside; each is drawn from half to one and a half */
    uint64_t opened;        /* CLOCK_MONOTONIC ns: the locks were let go; waits begin no earlier */
    uint64_t issued __attribute__((aligned(PLK_PROBE_LINE))); /* acquisitions begun, kept only under a limit */
} __attribute__((aligned(PLK_PROBE_LINE)));

/* The first violation of its kind that a worker found. */
struct plk_probe_finding {
    uint64_t lock, got, expected;
    uint64_t at; /* CLOCK_MONOTONIC ns */
};

struct plk_probe_worker {
    uint64_t number;        /* 0 .. workers - 1 */
    uint64_t rng;           /* state of the generator of lock choices and outside work */
    uint64_t phase;         /* enum plk_probe_phase */
    uint64_t lock;          /* the lock chosen last */
    uint64_t waiting_since; /* CLOCK_MONOTONIC ns */
    uint64_t acquisitions;
    uint64_t wait_sum, wait_max; /* ns */
    uint64_t last_at;            /* CLOCK_MONOTONIC ns of the last acquisition */
    uint64_t violations[PLK_PROBE_KINDS];
    struct plk_probe_finding first[PLK_PROBE_KINDS];
    uint64_t waits[PLK_PROBE_BUCKETS];
    char message[PLK_PROBE_MESSAGE]; /* UTF-8, zero-terminated; empty: none */
} __attribute__((aligned(PLK_PROBE_LINE)));

struct plk_probe_lock {
    uint64_t words[PLK_PROBE_WORDS];
    uint64_t counter __attribute__((aligned(PLK_PROBE_LINE)));
    uint64_t occupants;
    uint64_t last_ticket; /* PLK_PROBE_NO_TICKET: none yet */
} __attribute__((aligned(PLK_PROBE_LINE)));

/* Bytes that a mapping for so many workers and locks needs; 0: too many. */
uint64_t plk_probe_size(uint64_t workers, uint64_t locks);
/* Lay out zeroed memory of that size.  Each worker's generator starts from the
 * seed and its number. */
void plk_probe_init(struct plk_probe_control *c, uint64_t workers, uint64_t locks, uint64_t seed);
struct plk_probe_worker *plk_probe_worker_at(struct plk_probe_control *c, uint64_t number);
struct plk_probe_lock *plk_probe_lock_at(struct plk_probe_control *c, uint64_t index);

/* CLOCK_MONOTONIC, ns. */
uint64_t plk_probe_now(void);
/* How long so many turns of work take here and now, ns. */
uint64_t plk_probe_time_work(uint64_t loops);

/* Kill this process when the thread that forked it, of process `parent`, dies.
 * 0, or -1: it is dead already. */
int plk_probe_die_with(int parent);

/* Open the barrier. */
void plk_probe_go(struct plk_probe_control *c);
/* Count the caller among the occupants of a lock (1), or no more (0). */
void plk_probe_hold(struct plk_probe_control *c, uint64_t index, int held);
/* How many workers wait for a lock. */
uint64_t plk_probe_waiting(struct plk_probe_control *c);
/* Wait at the barrier, then do what plk_probe_outside does. */
int64_t plk_probe_begin(struct plk_probe_control *c, struct plk_probe_worker *w);
/* Work outside, then choose the next lock: its index, or -1: it is over. */
int64_t plk_probe_outside(struct plk_probe_control *c, struct plk_probe_worker *w);
/* The critical section of the lock chosen last, under this ticket. */
void plk_probe_inside(struct plk_probe_control *c, struct plk_probe_worker *w, uint64_t ticket);
/* Note a violation of the lock chosen last. */
void plk_probe_violated(struct plk_probe_control *c, struct plk_probe_worker *w, int kind,
                        uint64_t got, uint64_t expected);

/* Name and explanation of a violation; NULL: no such kind. */
const char *plk_probe_violation_name(int kind);
const char *plk_probe_violation_text(int kind);

/* The critical section's writes, between two looks at the line: with work
 * between, leave `stamp` in every word.  A violation is counted against w. */
void plk_probe_write(struct plk_probe_control *c, struct plk_probe_worker *w, struct plk_probe_lock *l,
                     uint64_t stamp);
/* Whether all words of the line are alike; if not, a violation. */
void plk_probe_check_line(struct plk_probe_control *c, struct plk_probe_worker *w,
                          struct plk_probe_lock *l);
/* The stamp of the worker's next acquisition. */
uint64_t plk_probe_stamp(const struct plk_probe_worker *w);
/* Count an acquisition that was granted at `now` after so long. */
void plk_probe_count(struct plk_probe_worker *w, uint64_t now, uint64_t waited);
/* Work as long as `loops` turns take. */
void plk_probe_work(uint64_t loops);

/* The bucket of a wait, and the first ns that a bucket counts. */
uint32_t plk_probe_bucket(uint64_t ns);
uint64_t plk_probe_bucket_floor(uint32_t bucket);

#endif
