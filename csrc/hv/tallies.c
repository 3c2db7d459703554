/* hv/tallies.c - looking at what was counted and traced; see events.h.
 *
 * By pread, because a look at the mapping would reserve memory where there is none, or fault.  A
 * tally is copied while its writers go on.  So is a ring; which of its records were overwritten
 * meanwhile is told by `next`, read before and after:
 *
 *       writer of record n                   reader
 *       fence (release)                      next -> m       (a system call, a full fence)
 *       record n over n - PLK_RING_RECORDS   records m - PLK_RING_RECORDS to m - 1
 *       next = n + 1     (release)           next -> k
 *
 * What the reader has seen of record n was written after next had become n; so its second look finds
 * k >= n, and it drops all up to k - PLK_RING_RECORDS. */
#include "hv/events.h"

#include <string.h>
#include <unistd.h>

#include "hv/futex.h"
#include "hv/reserve.h"

/* Zeros where the segment ends. */
static int plk_copy(struct plk_segment *s, void *out, size_t size, uint64_t offset)
{
    ssize_t got;

    if (!plk_fd_is_ours(s))
        return -EBADF;
    do
        got = pread(s->fd, out, size, (off_t)offset);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return -errno;
    memset((unsigned char *)out + got, 0, size - (size_t)got);
    return 0;
}

static int plk_tally_read(struct plk_segment *s, uint64_t index, struct plk_tally *out)
{
    return plk_copy(s, out, sizeof(*out), s->geometry.off_tallies + index * sizeof(*out));
}

int plk_vcpu_tally_view(struct plk_segment *s, uint32_t vcpu, struct plk_tally_view *view)
{
    struct plk_tally tally;
    int rc = vcpu < s->geometry.vcpus ? plk_tally_read(s, vcpu, &tally) : -EINVAL;

    if (rc == 0)
        *view = (struct plk_tally_view){.wait = tally.wait, .hold = tally.hold, .next = tally.ring.next,
                                        .clock = tally.ring.clock};
    return rc;
}

int plk_lock_tally_view(struct plk_segment *s, uint32_t cell, struct plk_tally_view *view)
{
    struct plk_tally tally;
    int rc = cell < s->geometry.tallied ? plk_tally_read(s, (uint64_t)s->geometry.vcpus + cell, &tally) : -EINVAL;

    if (rc == 0)
        *view = (struct plk_tally_view){.wait = tally.wait, .hold = tally.hold,
#define X(name, meaning) .name = tally.lock.name,
                                        PLK_LOCK_COUNTS(X)
#undef X
                                        .generation = tally.lock.generation, .base = tally.lock.base};
    return rc;
}

int plk_lock_tallies_next(struct plk_segment *s, uint64_t *cell, uint64_t *end)
{
    const struct plk_geometry *g = &s->geometry;

    return plk_extent_next(s, g->off_tallies + g->vcpus * sizeof(struct plk_tally), sizeof(struct plk_tally),
                           g->tallied, cell, end);
}

int64_t plk_tickets_served(struct plk_segment *s)
{
    uint64_t index = 0, end, sum = 0;
    int rc;

    while ((rc = plk_cells_next(s, &index, &end)) > 0) {
        for (; index < end; index++) {
            const struct plk_cell *cell = plk_cell_at(s, index);

            if ((PLK_LOAD(&cell->flags) & (PLK_CELL_QUEUE | PLK_CELL_SYNC)) == 0)
                sum += PLK_LOAD(&cell->head);
        }
    }
    return rc < 0 ? rc : (int64_t)(sum & INT64_MAX);
}

int64_t plk_ring_read(struct plk_segment *s, uint32_t vcpu, uint64_t from, struct plk_record *out,
                      uint64_t *first)
{
    uint64_t next, behind, at, tail, part;
    struct plk_tally tally;
    int rc = vcpu < s->geometry.rings ? plk_tally_read(s, vcpu, &tally) : -EINVAL;

    if (rc != 0)
        return rc;
    next = tally.ring.next;
    *first = from;
    if (from >= next)
        return 0;
    if (next - from > PLK_RING_RECORDS)
        *first = from = next - PLK_RING_RECORDS;
    at = from & (PLK_RING_RECORDS - 1);
    tail = PLK_RING_RECORDS - at;
    part = next - from < tail ? next - from : tail;
    rc = plk_copy(s, out, part * sizeof(*out), plk_ring_offset(s, vcpu) + at * sizeof(*out));
    if (rc == 0 && part < next - from)
        rc = plk_copy(s, out + part, (next - from - part) * sizeof(*out), plk_ring_offset(s, vcpu));
    if (rc == 0)
        rc = plk_tally_read(s, vcpu, &tally);
    if (rc != 0)
        return rc;
    behind = tally.ring.next - PLK_RING_RECORDS + 1; /* one more: that which is being written */
    if (tally.ring.next >= PLK_RING_RECORDS && behind > from) {
        uint64_t lost = behind - from < next - from ? behind - from : next - from;

        memmove(out, out + lost, (next - from - lost) * sizeof(*out));
        *first = from += lost;
    }
    return (int64_t)(next - from);
}

uint32_t plk_rings(const struct plk_segment *s) { return s->geometry.rings; }

uint64_t plk_ticks_now(uint64_t clock)
{
    return clock == PLK_CLOCK_TSC ? PLK_TSC() : clock == PLK_CLOCK_MONOTONIC ? plk_now() : 0;
}

const char *plk_point_name(uint32_t kind)
{
    static const char *const points[] = {
#define X(name, meaning) #name,
        PLK_POINTS(X)
#undef X
    };
    static const char *const events[] = {
#define X(name, meaning) #name,
        PLK_EVENTS(X)
#undef X
    };

    if (kind < PLK_EV_COUNT)
        return events[kind];
    return kind >= PLK_FIRST_POINT && kind < PLK_POINTS_END ? points[kind - PLK_FIRST_POINT] : NULL;
}
