/* hv/events.c - see events.h; what is written and by whom stands in pylocks/events.h. */
#include "hv/events.h"

#include <stdlib.h>
#include <string.h>

#include "hv/futex.h"
#include "hv/reserve.h"
#include "hv/vcpu.h"

static int plk_events_on;

void plk_events_start(void)
{
    plk_ticks_init();
    plk_events_on = 1;
}

/* ----------------------------------------------------------------- counting */

/* Where in a lock's tally an event is counted. */
static const uint16_t plk_lock_count_at[PLK_EV_COUNT] = {
#define X(name, meaning) [PLK_EV_##name] = (uint16_t)offsetof(struct plk_tally, lock.name),
    PLK_LOCK_COUNTS(X)
#undef X
};

static void plk_count(struct plk_vcpu *me, uint64_t event)
{
    PLK_STORE(&me->events[event], PLK_LOAD(&me->events[event]) + 1);
}

/* The lock that a cell is of: of a bounded one's queue, the gate. */
static uint64_t plk_lock_id(struct plk_segment *s, uint64_t id)
{
    struct plk_cell *cell;

    if (id < 2 || plk_reserve_cell(s, (uint32_t)(id - 1), &cell) != 0)
        return id;
    return (PLK_LOAD(&cell->flags) & PLK_CELL_QUEUE) != 0 ? id - 1 : id;
}

/* The tally of a lock, its memory reserved; NULL: none is left, or the lock has none.  Whoever finds
 * that the cell was another lock's before begins anew; what others count at that moment may be lost. */
static struct plk_tally *plk_tally_of(struct plk_segment *s, uint64_t id)
{
    struct plk_tally *tally;
    struct plk_cell *cell;
    uint32_t was, now;

    id = plk_lock_id(s, id);
    if (id == 0 || id > s->geometry.tallied || plk_reserve_cell(s, (uint32_t)(id - 1), &cell) != 0 ||
        plk_reserve_tally(s, (uint64_t)s->geometry.vcpus + id - 1, &tally) != 0)
        return NULL;
    was = PLK_LOAD(&tally->lock.generation);
    now = PLK_GENERATION_OF(PLK_LOAD(&cell->flags));
    if (PLK_UNLIKELY(was != now) &&
        __atomic_compare_exchange_n(&tally->lock.generation, &was, now, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        memset(&tally->wait, 0, sizeof(tally->wait));
        memset(&tally->hold, 0, sizeof(tally->hold));
#define X(name, meaning) PLK_STORE(&tally->lock.name, 0);
        PLK_LOCK_COUNTS(X)
#undef X
        PLK_STORE(&tally->lock.base, PLK_LOAD(&cell->head));
    }
    return tally;
}

void plk_events_bind(struct plk_segment *s, uint64_t id)
{
    struct plk_tally *tally;

    if (!plk_events_on)
        return;
    if (s->is_array) /* at every use of one of its locks, which are never another's */
        plk_reserve_tally(s, (uint64_t)s->geometry.vcpus + id - 1, &tally);
    else
        plk_tally_of(s, id);
}

/* This thread's seat, or NULL. */
static struct plk_seat *plk_seat_here(struct plk_domain *domain)
{
    struct plk_seat *seats = domain != NULL ? plk_thread_seats() : NULL;

    return seats != NULL ? &seats[plk_segment_of(domain)->id] : NULL;
}

/* The same, if that is its vCPU; NULL: it acts for another one. */
static struct plk_seat *plk_seat_with(const struct plk_vcpu *me, struct plk_domain *domain)
{
    struct plk_seat *seat = plk_seat_here(domain);

    return seat != NULL && seat->vcpu == me ? seat : NULL;
}

/* A thread is about to use the domain: what it needs to be counted, as far as there is memory. */
static void plk_counters_joined(struct plk_seat *seat, struct plk_domain *domain)
{
    struct plk_segment *s = plk_segment_of(domain);

    if (plk_reserve_tally(s, seat->tag - 1, &seat->tally) != 0)
        seat->tally = NULL;
    PLK_STORE(&seat->sample, PLK_SAMPLE_EVERY - 1);
    if (seat->timed == NULL)
        seat->timed = calloc(PLK_TIMED_MOST, sizeof(*seat->timed));
}

static uint64_t plk_ticks(void) { return plk_tick_clock == PLK_CLOCK_TSC ? PLK_TSC() : plk_now(); }

/* The thread has just entered: begin to take the time. */
static void plk_timed_begin(struct plk_seat *seat, uint64_t id, uint64_t ticket, struct plk_tally *tally)
{
    uint32_t i;

    if (seat->timed == NULL)
        return;
    for (i = 0; i < seat->timed_count && seat->timed[i].id != id; i++)
        ; /* there, if it left by a site that is not patched */
    if (i == PLK_TIMED_MOST)
        return;
    seat->timed[i] = (struct plk_timed){id, ticket & (UINT64_MAX >> 16), plk_ticks(), tally};
    if (i == seat->timed_count)
        seat->timed_count++;
}

/* After a wait; the lock is the thread's, and so is its tally. */
static void plk_counters_granted(struct plk_seat *seat, uint64_t id, struct plk_segment *s)
{
    struct plk_tally *tally = plk_tally_of(s, id);
    uint64_t since = PLK_LOAD(&seat->vcpu->wait_since), ns = since != 0 ? plk_now() - since : 0;
    struct plk_cell *cell = plk_cell_at(s, id - 1);

    if (seat->tally != NULL)
        PLK_HISTOGRAM_ADD(&seat->tally->wait, ns);
    if (tally != NULL)
        PLK_HISTOGRAM_ADD(&tally->wait, ns);
    plk_timed_begin(seat, id, PLK_LOAD(&cell->head), tally);
}

long plk_event_counters(struct plk_vcpu *me, uint64_t event, uint64_t at, struct plk_domain *domain)
{
    struct plk_seat *seat;
    struct plk_tally *tally;
    uint64_t *count;

    if (event < PLK_EV_COUNT) {
        plk_count(me, event);
        if (event == PLK_EV_waits && PLK_LOAD(&me->wait_since) == 0)
            PLK_STORE_RELEASE(&me->wait_since, plk_now()); /* `wanted` is out: hv/deadlock.c */
        if (plk_lock_count_at[event] == 0 || domain == NULL)
            return 0;
        if ((tally = plk_tally_of(plk_segment_of(domain), PLK_AT_ID(at))) != NULL) {
            count = (uint64_t *)(void *)((unsigned char *)tally + plk_lock_count_at[event]);
            __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
        }
    } else if ((event == PLK_EV_granted || event == PLK_EV_joined) && (seat = plk_seat_with(me, domain)) != NULL) {
        if (event == PLK_EV_joined)
            plk_counters_joined(seat, domain);
        else
            plk_counters_granted(seat, PLK_AT_ID(at), plk_segment_of(domain));
    }
    return 0;
}

/* ------------------------------------------------------------------ tracing */

static void plk_trace_joined(struct plk_seat *seat, struct plk_segment *s)
{
    struct plk_record *ring = plk_ring_at(s, seat->tag - 1);

    seat->ring = NULL;
    if (seat->tally == NULL || ring == NULL || plk_reserve(s, ring, PLK_RING_RECORDS * sizeof(*ring)) != 0)
        return;
    PLK_STORE(&seat->tally->ring.clock, plk_tick_clock);
    seat->ring = ring;
}

long plk_event_trace(struct plk_vcpu *me, uint64_t event, uint64_t at, struct plk_domain *domain)
{
    struct plk_seat *seat;
    struct plk_record *record;
    uint64_t n;

    plk_event_counters(me, event, at, domain);
    /* Of a dead holder, the recoverer tells; what else it does for the dead is not its own doing. */
    seat = event == PLK_EV_owner_deaths ? plk_seat_here(domain) : plk_seat_with(me, domain);
    if (seat == NULL)
        return 0;
    if (event == PLK_EV_joined)
        plk_trace_joined(seat, plk_segment_of(domain));
    if (seat->ring == NULL)
        return 0;
    n = PLK_LOAD(&seat->tally->ring.next);
    record = &seat->ring[n & (PLK_RING_RECORDS - 1)];
    __atomic_thread_fence(__ATOMIC_RELEASE); /* next before what follows; pairs with plk_ring_read */
    PLK_STORE(&record->ticks, plk_ticks());
    PLK_STORE(&record->word, PLK_RECORD_WORD(event, at));
    PLK_STORE_RELEASE(&seat->tally->ring.next, n + 1); /* after the record; pairs with the same */
    return 0;
}
