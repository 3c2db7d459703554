/* pylocks/events.h - what lock_event counts and traces, and where that lies.
 *
 * Counters of vCPUs are in their slots (layout.h).  Besides there is a tally for each
 * vCPU, a tally for each of the first PLK_TALLIED cells, and a ring of records for each
 * of the first PLK_RINGS vCPUs; memory is reserved for those that are used.  All of
 * it is for people to look at: no lock depends on any of it.
 *
 * Who writes:
 *
 *   a vCPU's tally and ring   its thread alone
 *   a lock's tally            the histograms its holder alone, before it releases, with
 *                             plain stores; the counts whoever comes, with atomic adds
 *
 * What a death leaves: a histogram whose sum lacks the last time that was counted, or a
 * record that `next` does not yet include.  The next writer goes on from there.
 *
 * Readers take no lock and stop nobody.  A histogram that they copy while it is written to
 * may have a time in its counts that is not yet in its sum. */
#ifndef PYLOCKS_EVENTS_H
#define PYLOCKS_EVENTS_H

#include "layout.h"

/* ---------------------------------------------------------------- tallies */

/* counts[i]: times below 2^(PLK_BUCKET_BITS + i) ns that are in none before; the last: all longer ones. */
#define PLK_BUCKETS 27u
#define PLK_BUCKET_BITS 7u
struct plk_histogram {
    uint64_t sum_ns;
    uint64_t counts[PLK_BUCKETS];
};

/* X(name, meaning): of a lock, each also an event of the vCPU it happened to. */
#define PLK_LOCK_COUNTS(X)                                                        \
    X(waits, "acquisitions that had to queue")                                    \
    X(parks, "sleeps of its waiters")                                             \
    X(spurious, "returns from a sleep that found the turn not yet come")          \
    X(kicks, "sleepers woken")                                                    \
    X(abandons, "tickets left in its queue (timeout, signal)")                    \
    X(owner_deaths, "holders that died inside, after which it was recovered")

/* 512 bytes. */
struct plk_tally {
    struct plk_histogram wait; /* from joining the queue to entering; of acquisitions that had to queue */
    struct plk_histogram hold; /* from entering to releasing; docs/events.md says which are measured */
    __extension__ union {
        struct { /* a lock's */
            uint32_t generation; /* of the cell, when counting began: another one means another lock */
            uint32_t spare;
            uint64_t base; /* head, then; 0 for the cell's first lock */
#define X(name, meaning) uint64_t name;
            PLK_LOCK_COUNTS(X)
#undef X
        } lock;
        struct { /* a vCPU's: of its ring */
            uint64_t next;  /* records written so far; the last lies at (next - 1) % PLK_RING_RECORDS */
            uint64_t clock; /* enum plk_clock: what its records' ticks are */
            uint64_t spare[6];
        } ring;
    };
};

/* Tests, to which memory is dear, set other ones. */
#ifndef PLK_TALLIED
#define PLK_TALLIED 65536u
#define PLK_RINGS 256u
#define PLK_RING_RECORDS 8192u /* a power of two, and pages of them */
#endif

/* ------------------------------------------------------------------ trace */

enum plk_clock { PLK_CLOCK_TSC = 1, PLK_CLOCK_MONOTONIC = 2 };

/* word: kind, of events or points, in 8 bits; a cell, index + 1, in 28; and the low 28 of a ticket. */
struct plk_record {
    uint64_t ticks;
    uint64_t word;
};
#define PLK_AT(id, ticket) ((uint64_t)(id) | (uint64_t)(ticket) << 28)
#define PLK_AT_ID(at) ((at) & 0xfffffffu)
#define PLK_RECORD_WORD(kind, at) ((uint64_t)(kind) | (at) << 8)

/* Points of a trace that are not events to be counted; X(name, meaning). */
#define PLK_POINTS(X)                                                              \
    X(joined, "the thread's registration; the place is its tid and pid")           \
    X(entered, "acquired without a wait in the queue")                             \
    X(granted, "acquired after a wait")                                            \
    X(left, "about to release")                                                    \
    X(gave_up, "left without the lock")                                            \
    X(woken, "back from a sleep")                                                  \
    X(kicking, "about to wake a sleeper")

#define PLK_FIRST_POINT 32
enum plk_point {
    PLK_POINTS_BEGIN = PLK_FIRST_POINT - 1,
#define X(name, meaning) PLK_EV_##name,
    PLK_POINTS(X)
#undef X
    PLK_POINTS_END
};

/* The sites of lock_event in the uncontended path; recorded with the site. */
enum plk_place { PLK_PLACE_CONTENDED = 0, PLK_PLACE_entered = 1, PLK_PLACE_left = 2, PLK_PLACE_COUNT };

PLK_STATIC_ASSERT(tally, sizeof(struct plk_tally) == 512);
PLK_STATIC_ASSERT(record, sizeof(struct plk_record) == 16);
PLK_STATIC_ASSERT(record_cell, PLK_MAX_CELLS < (1u << 28));
PLK_STATIC_ASSERT(ring, (PLK_RING_RECORDS & (PLK_RING_RECORDS - 1)) == 0);
PLK_STATIC_ASSERT(points, PLK_EV_COUNT <= PLK_FIRST_POINT);

#endif
