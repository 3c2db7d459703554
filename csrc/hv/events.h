/* hv/events.h - lock_event in the contended paths, and where tallies and rings lie. */
#ifndef PLK_HV_EVENTS_H
#define PLK_HV_EVENTS_H

#include "hv/ticks.h"
#include "recover/segment.h"

/* A lock that this thread holds, of which the time is taken. */
struct plk_timed {
    uint64_t id, ticket; /* low 48 bits, as in owner records */
    uint64_t since;      /* ticks */
    struct plk_tally *tally; /* the lock's, or NULL */
};
#define PLK_TIMED_MOST 8u /* by one thread at once */
#define PLK_SAMPLE_EVERY 127u /* of a thread's uncontended acquisitions, so many for one of which the time is taken */

/* Before the first event. */
void plk_events_start(void);

/* A lock is bound to a handle: from now on it may be counted. */
void plk_events_bind(struct plk_segment *s, uint64_t id);

/* The sites' calls: what happened to the vCPU, where (PLK_AT; 0: that does not matter) and in which
 * domain. */
long plk_event_counters(struct plk_vcpu *me, uint64_t event, uint64_t at, struct plk_domain *domain);
long plk_event_trace(struct plk_vcpu *me, uint64_t event, uint64_t at, struct plk_domain *domain);

/* ns in a histogram whose only writer the caller is. */
#define PLK_HISTOGRAM_ADD(histogram, ns)                                                          \
    do {                                                                                          \
        struct plk_histogram *plk_h = (histogram);                                                \
        uint64_t plk_ns = (ns), plk_bits = 64 - (uint64_t)__builtin_clzll(plk_ns | 1);            \
        uint64_t *plk_count;                                                                      \
                                                                                                  \
        plk_bits = plk_bits < PLK_BUCKET_BITS ? 0 : plk_bits - PLK_BUCKET_BITS;                   \
        plk_count = &plk_h->counts[plk_bits < PLK_BUCKETS ? plk_bits : PLK_BUCKETS - 1];          \
        PLK_STORE(plk_count, PLK_LOAD(plk_count) + 1);                                            \
        PLK_STORE(&plk_h->sum_ns, PLK_LOAD(&plk_h->sum_ns) + plk_ns);                             \
    } while (0)

/* ----------------------------------------------------------------- looking */

struct plk_tally_view {
    struct plk_histogram wait, hold;
    uint32_t generation; /* of a lock's: what stands in struct plk_tally */
    uint64_t base;
#define X(name, meaning) uint64_t name;
    PLK_LOCK_COUNTS(X)
#undef X
    uint64_t next, clock; /* of a vCPU's */
};

/* Copies of what was counted, made without a lock, without reserving memory and without a fault
 * where there is none: zeros then.  0; -EINVAL: no such tally; -EBADF: this process has closed the
 * segment's descriptor; or what pread says. */
int plk_vcpu_tally_view(struct plk_segment *s, uint32_t vcpu, struct plk_tally_view *view);
int plk_lock_tally_view(struct plk_segment *s, uint32_t cell, struct plk_tally_view *view);

/* The next run of cells whose tallies have memory, at or after *cell: 1 and [*cell, *end);
 * 0: no more; negative as above. */
int plk_lock_tallies_next(struct plk_segment *s, uint64_t *cell, uint64_t *end);

/* Tickets that locks now allocated, and those of an array, have served. */
int64_t plk_tickets_served(struct plk_segment *s);

/* Records of a vCPU's ring from number `from` on, as far as they are still there, into `out`, which
 * has room for PLK_RING_RECORDS.  How many; the first's number in *first.  Negative as above. */
int64_t plk_ring_read(struct plk_segment *s, uint32_t vcpu, uint64_t from, struct plk_record *out,
                      uint64_t *first);

uint32_t plk_rings(const struct plk_segment *s);
uint64_t plk_ticks_now(uint64_t clock); /* 0: this machine has no such clock */
const char *plk_point_name(uint32_t kind); /* an event or a point; NULL: neither */

#endif
