/* hv/bounded.c - who is promoted, when, and by whom; see pylocks/bounded.h.
 *
 * Waiters that go round between the gate and their own work (the active ones) should
 * be as many as there are CPUs for them: fewer leave CPUs idle, more wait for each other's
 * time slices, milliseconds long, some of them inside.  So:
 *
 *   all CPUs used      a promotion is a swap: one comes, one of the active goes to sleep.
 *                      The one to go is that on whose CPU the other fell asleep, because
 *                      there it will be put again: a switch on one CPU, 2 us, where a wake
 *                      across CPUs takes up to 60.
 *   a CPU unused       a promotion at once, and nobody goes, if that is where the other fell
 *                      asleep.  Else, a swap at once: soon one comes that did.
 *
 * Which CPUs are used is seen from where the gate's holders run. */
#include "hv/bounded.h"

#include <sched.h>

#include "hv/barrier.h"
#include "hv/futex.h"
#include "hv/leave.h"
#include "hv/park.h"
#include "hv/reserve.h"
#include "hv/watch.h"

/* The most unlocks between looks at the clock. */
#define PLK_CLOCK_MOST 32u
/* So many times PLK_BOUND_NS is the holder on one particular CPU given to promote. */
#define PLK_OVERDUE 3u
/* So many times PLK_BOUND_NS may one stay among the active: sleepers gather on one CPU, where
 * they come and go, and the active one on another would never be asked to. */
#define PLK_STAY 6u
/* So late in promoting, a holder was long inside, perhaps for want of a CPU or of an interpreter's
 * lock: nobody need go who would then have to come back. */
#define PLK_SLOW 4u
/* Acquisitions that tell which CPUs are used. */
#define PLK_WINDOW 8u
/* An armed sleeper whose time has come may wait for a CPU, too. */
#define PLK_GRACE_NS 5000000u
/* Where there was room, a promotion that has not come through after so many times PLK_BOUND_NS
 * gets some after all. */
#define PLK_PATIENCE 5u

enum plk_idle { PLK_IDLE_NONE, PLK_IDLE_HOME, PLK_IDLE_OTHER };

static uint32_t plk_promotion(uint64_t ticket) { return (uint32_t)ticket + 1; }

/* Tell the holder of the queue, ticket `head`, to come to the gate. */
static void plk_promote(struct plk_lock *lock, struct plk_seat *seat, uint64_t head, uint64_t now, uint16_t due)
{
    struct plk_gate *gate = plk_gate_of(lock->cell);
    uint32_t spinner = PLK_LOAD(&gate->spinner);

    if ((spinner & PLK_SPINNER_CALLS) != 0)
        plk_spinner_change(gate, spinner, spinner & ~PLK_SPINNER_CALLS);
    PLK_STORE(&gate->due, due);
    PLK_STORE(&gate->promoted_ns, now);
    PLK_STORE_RELEASE(&gate->promoted, plk_promotion(head));
    PLK_FENCE(); /* [B1] promoted is out before the kick looks at parked; pairs with plk_slow_raise */
    plk_kick(plk_segment_of(lock->domain), seat->vcpu, lock->id + 1, head, PLK_KICK_AGAIN);
}

/* Where the holder of the queue fell asleep, + 1; 0: unknown. */
static uint16_t plk_home(struct plk_lock *lock, uint64_t head)
{
    uint32_t bit;

    return (uint16_t)PLK_LOAD(&plk_channel_of(plk_segment_of(lock->domain), lock->id + 1, head, &bit)->cpu);
}

/* The CPU here, + 1, and note that a holder has run on it. */
static uint16_t plk_cpu_seen(struct plk_gate *gate)
{
    unsigned cpu = (unsigned)sched_getcpu() + 1, seen = PLK_LOAD(&gate->seen), bit = 1u << cpu % 16;

    if ((seen & bit) == 0)
        PLK_STORE(&gate->seen, (uint16_t)(seen | bit));
    return (uint16_t)cpu;
}

static void plk_window_open(const struct plk_lock *lock, struct plk_gate *gate)
{
    PLK_STORE(&gate->window, (uint32_t)PLK_LOAD(&lock->cell->head));
    PLK_STORE(&gate->seen, 0);
}

/* Is there a CPU on which nobody of ours has run for a while?  `home`: and is it that one? */
static enum plk_idle plk_cpu_idle(const struct plk_lock *lock, struct plk_gate *gate, uint16_t home)
{
    unsigned seen = PLK_LOAD(&gate->seen);
    unsigned used = (unsigned)__builtin_popcount(seen) + (PLK_LOAD(&gate->spinner) != 0);
    int full = used >= lock->domain->cpus || used >= 16;

    if (!full && (uint32_t)PLK_LOAD(&lock->cell->head) - PLK_LOAD(&gate->window) < PLK_WINDOW)
        return PLK_IDLE_NONE;
    plk_window_open(lock, gate);
    return full ? PLK_IDLE_NONE : home == 0 || (seen & 1u << home % 16) == 0 ? PLK_IDLE_HOME : PLK_IDLE_OTHER;
}

static int plk_clock_due(struct plk_seat *seat) { return ++seat->since_clock >= seat->clock_every; }

static uint64_t plk_clock(struct plk_seat *seat)
{
    uint64_t now = plk_now(), each = (now - seat->clock_ns) / ((uint64_t)seat->since_clock + 1);
    uint64_t every = PLK_CLOCK_NS / (each + 1);

    seat->clock_every = every < PLK_CLOCK_MOST ? (uint32_t)every : PLK_CLOCK_MOST;
    seat->since_clock = 0;
    seat->clock_ns = now;
    return now;
}

/* The holder of the queue has been told to come and is not here yet: it may be waiting for a
 * CPU that one of the active uses, most likely the one where it fell asleep; or be dead, with
 * nobody behind it who would look. */
static void plk_make_room(struct plk_lock *lock, struct plk_seat *seat, struct plk_gate *gate, uint64_t head)
{
    struct plk_lock queue = {plk_queue_cell(lock->cell), lock->domain, lock->id + 1, PLK_FIFO};
    struct plk_wait at_queue = {.lock = &queue, .seat = seat, .ticket = PLK_NO_TICKET};
    uint64_t age = plk_clock(seat) - PLK_LOAD(&gate->promoted_ns);
    uint16_t due = PLK_LOAD(&gate->due);

    if (age >= plk_watchdog())
        plk_watch(&at_queue);
    if (due != PLK_DUE_DONE && age >= (due == PLK_DUE_NONE ? PLK_PATIENCE : 1) * PLK_BOUND_NS) {
        PLK_STORE(&gate->due, PLK_DUE_DONE); /* that must do: it may be stopped */
        seat->retired = lock->id;
    } else if (due == 0 && age >= PLK_LATE_NS)
        PLK_STORE(&gate->due, plk_home(lock, head));
}

/* It is time for the next, ticket `head`, and one of the active is to go: this one, or that
 * on the CPU where the next fell asleep.  [B1] is_seen: somebody sees to it if that never comes. */
static void plk_swap(struct plk_lock *lock, struct plk_seat *seat, uint64_t head, uint64_t now, uint16_t cpu,
                     uint16_t home, int is_seen)
{
    struct plk_gate *gate = plk_gate_of(lock->cell);

    if (is_seen && home != 0 && home != cpu && now - seat->active_ns < PLK_STAY * PLK_BOUND_NS &&
        now - PLK_LOAD(&gate->promoted_ns) < PLK_OVERDUE * PLK_BOUND_NS) {
        if (PLK_LOAD(&gate->due) != home) {
            PLK_STORE(&gate->due, home);
            plk_window_open(lock, gate);
        }
        return;
    }
    seat->retired = lock->id;
    plk_promote(lock, seat, head, now, 0);
}

void plk_queue_call(struct plk_lock *lock, struct plk_seat *seat)
{
    struct plk_gate *gate = plk_gate_of(lock->cell);
    const struct plk_cell *queue = plk_queue_cell(lock->cell);
    uint64_t head = PLK_LOAD_ACQUIRE(&queue->head), now, armed, age;
    int coming = PLK_LOAD_ACQUIRE(&gate->promoted) == plk_promotion(head), is_seen;
    enum plk_idle idle;
    uint16_t cpu, home;

    if (PLK_LOAD(&queue->tail) == head)
        return;
    cpu = plk_cpu_seen(gate);
    if (PLK_LOAD(&gate->due) == cpu) {
        seat->retired = lock->id;
        if (coming)
            PLK_STORE(&gate->due, 0);
        else
            plk_promote(lock, seat, head, plk_clock(seat), 0);
        return;
    }
    if (coming) {
        if (plk_clock_due(seat))
            plk_make_room(lock, seat, gate, head);
        return;
    }
    /* [B1] The armed one looks at the gate: no need to hurry, nor to look at the clock each time.
     * A spinner would take it, but its mark may be that of one who is dead or stopped. */
    armed = PLK_LOAD(&gate->armed_ns);
    if (armed != 0 && (PLK_LOAD(&gate->spinner) & PLK_SPINNER_CALLS) == 0 && !plk_clock_due(seat))
        return;
    now = plk_clock(seat);
    age = now - PLK_LOAD(&gate->promoted_ns);
    is_seen = armed + PLK_GRACE_NS >= now;
    home = plk_home(lock, head);
    idle = plk_cpu_idle(lock, gate, home);
    if (idle == PLK_IDLE_HOME || age >= PLK_SLOW * PLK_BOUND_NS)
        plk_promote(lock, seat, head, now, PLK_DUE_NONE);
    else if (!is_seen || age >= PLK_BOUND_NS || (idle == PLK_IDLE_OTHER && age >= PLK_LATE_NS))
        plk_swap(lock, seat, head, now, cpu, home, is_seen);
}

void plk_queue_wake(struct plk_segment *s, struct plk_vcpu *me, struct plk_cell *cell, uint64_t id)
{
    struct plk_cell *queue;

    if ((PLK_LOAD(&cell->flags) & PLK_CELL_BOUNDED) == 0 || s->geometry.stride != PLK_LINE ||
        plk_reserve_cell(s, (uint32_t)id, &queue) != 0) /* index of the next one */
        return;
    if (PLK_LOAD(&queue->tail) != PLK_LOAD_ACQUIRE(&queue->head))
        plk_kick(s, me, id + 1, PLK_LOAD_ACQUIRE(&queue->head), PLK_KICK_AGAIN);
}

void plk_queue_shown(struct plk_lock *lock)
{
    plk_slow_raise(plk_segment_of(lock->domain), lock->cell); /* [S1] after the xadd on the queue */
}

int plk_queue_called(const struct plk_wait *w)
{
    struct plk_cell *cell = w->gate->cell;

    return PLK_LOAD_ACQUIRE(&plk_gate_of(cell)->promoted) == plk_promotion(w->ticket) ||
           PLK_LOAD(&cell->tail) == PLK_LOAD_ACQUIRE(&cell->head);
}

int plk_queue_promoted(struct plk_wait *w)
{
    struct plk_gate *gate = plk_gate_of(w->gate->cell);

    if (PLK_LOAD_ACQUIRE(&gate->promoted) != plk_promotion(w->ticket)) {
        uint64_t now = plk_now();

        if (now - PLK_LOAD(&gate->promoted_ns) < PLK_BOUND_NS)
            return 0;
        PLK_STORE(&gate->promoted_ns, now); /* awake anyway, and it is time */
        PLK_STORE(&gate->promoted, plk_promotion(w->ticket));
    }
    PLK_STORE(&gate->due, 0);
    return 1;
}

uint64_t plk_queue_arm(struct plk_wait *w)
{
    struct plk_gate *gate = plk_gate_of(w->gate->cell);
    uint64_t now = plk_now(), armed = PLK_LOAD(&gate->armed_ns), until = now + PLK_ARMED_NS;

    /* While the present one has half of its time left, nobody else need be. */
    if (armed > now + PLK_ARMED_NS / 2 && armed <= until)
        return PLK_FOREVER;
    return __atomic_compare_exchange_n(&gate->armed_ns, &armed, until, 0, __ATOMIC_SEQ_CST,
                                       __ATOMIC_RELAXED) ? until : PLK_FOREVER;
}

void plk_gate_watch(const struct plk_wait *w)
{
    struct plk_wait at_gate = {.lock = w->gate, .seat = w->seat, .ticket = PLK_NO_TICKET};

    plk_watch(&at_gate);
}

void plk_queue_disarm(struct plk_wait *w, uint64_t armed)
{
    struct plk_lock *lock = w->gate;
    struct plk_cell *cell = lock->cell;
    struct plk_gate *gate = plk_gate_of(cell);
    uint64_t now = plk_now(), mine = armed, head, age;

    /* [B1] Before the look at the gate; pairs with the unlock_barrier before the look at armed_ns.
     * Whether or not its time has come: it may not sleep again, and then nobody looks. */
    __atomic_compare_exchange_n(&gate->armed_ns, &mine, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    head = PLK_LOAD_ACQUIRE(&plk_queue_cell(cell)->head);
    age = now - PLK_LOAD(&gate->promoted_ns);
    if (PLK_LOAD(&cell->tail) != PLK_LOAD_ACQUIRE(&cell->head)) {
        if (age >= PLK_BOUND_NS)
            plk_gate_watch(w); /* its holder may be dead */
    } else if (head != w->ticket &&
               (now < armed || age >= 2 * PLK_BOUND_NS || now >= w->deadline || now >= w->pause) &&
               PLK_LOAD(&gate->promoted) != plk_promotion(head))
        plk_promote(lock, w->seat, head, now, PLK_DUE_NONE);
}

void plk_queue_pass(struct plk_wait *w, int wake)
{
    struct plk_segment *s = plk_segment_of(w->gate->domain);
    struct plk_vcpu *me = w->seat->vcpu;
    struct plk_cell *cell = w->queue.cell;
    uint64_t head = PLK_LOAD(&cell->head) + 1;

    PLK_STORE_RELEASE(&me->pending, 0); /* plk_unnest may have set it to the queue again */
    PLK_STORE_RELEASE(&cell->head, head);
    PLK_FENCE(); /* [K2] head is out before we look for tombstones; pairs with plk_leave */
    head = plk_pass(s, me, cell, w->queue.id, head);
    if (wake && PLK_LOAD(&cell->tail) != head)
        plk_promote(w->gate, w->seat, head, plk_now(), PLK_DUE_NONE);
    if (!wake)
        w->seat->active_ns = plk_now();
    PLK_RECORD(PLK_STORE_RELEASE(&me->held, PLK_LOAD(&me->held) - 1));
}
