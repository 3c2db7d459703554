#include "hv/bounded.h"

#include <sched.h>

#include "hv/barrier.h"
#include "hv/futex.h"
#include "hv/leave.h"
#include "hv/park.h"
#include "hv/watch.h"

/* A promotion that takes longer than this to come through waited for a CPU. */
#define PLK_CROWDED_NS (5 * PLK_BOUND_NS)
/* Unlocks between looks at the clock. */
#define PLK_CLOCK_EVERY 16u
/* So many times PLK_BOUND_NS is the holder on one particular CPU given to promote. */
#define PLK_OVERDUE 3u

static uint32_t plk_promotion(uint64_t ticket) { return (uint32_t)ticket + 1; }

/* Tell the holder of the queue, ticket `head`, to come to the gate. */
static void plk_promote(struct plk_lock *lock, struct plk_seat *seat, uint64_t head, uint64_t now)
{
    struct plk_segment *s = plk_segment_of(lock->domain);
    struct plk_gate *gate = plk_gate_of(lock->cell);

    PLK_STORE(&gate->due, 0);
    PLK_STORE(&gate->seen, 0);
    PLK_STORE(&gate->promoted_ns, now);
    PLK_STORE_RELEASE(&gate->promoted, plk_promotion(head)); /* [B1] before the kick bumps seq */
    plk_kick(s, seat->vcpu, lock->id + 1, head, PLK_KICK_AGAIN);
}

/* Which CPU is used by waiters that go round, and which do they leave to others? */
static uint32_t plk_cpu_here(struct plk_gate *gate)
{
    uint32_t cpu = (uint32_t)sched_getcpu() + 1, bit = 1u << (cpu % 32), seen = PLK_LOAD(&gate->seen);

    if ((seen & bit) == 0)
        PLK_STORE(&gate->seen, seen | bit);
    return cpu;
}

/* Holders run on all CPUs that there are, so whoever comes in besides takes one from them. */
static int plk_gate_full(const struct plk_lock *lock, const struct plk_gate *gate)
{
    return (uint32_t)__builtin_popcount(PLK_LOAD(&gate->seen)) >= lock->domain->cpus ||
           PLK_LOAD(&gate->crowded) != 0;
}

/* Who was promoted does not come.  Were it dead, with nobody behind it who would look, all
 * unlocks would come past here from now on. */
static void plk_queue_doubt(struct plk_lock *lock, struct plk_seat *seat)
{
    struct plk_lock queue = {plk_queue_cell(lock->cell), lock->domain, lock->id + 1, PLK_FIFO};
    struct plk_wait w = {.lock = &queue, .seat = seat, .ticket = PLK_NO_TICKET};

    if (++seat->since_clock % PLK_CLOCK_EVERY == 0 &&
        plk_now() - PLK_LOAD(&plk_gate_of(lock->cell)->promoted_ns) >= plk_watchdog())
        plk_watch(&w);
}

void plk_queue_call(struct plk_lock *lock, struct plk_seat *seat)
{
    struct plk_segment *s = plk_segment_of(lock->domain);
    struct plk_gate *gate = plk_gate_of(lock->cell);
    const struct plk_cell *queue = plk_queue_cell(lock->cell);
    uint64_t head = PLK_LOAD_ACQUIRE(&queue->head), now, age;
    uint32_t cpu, home, bit, spinner;

    if (PLK_LOAD(&queue->tail) == head)
        return; /* nobody waits */
    if (PLK_LOAD_ACQUIRE(&gate->promoted) == plk_promotion(head)) {
        plk_queue_doubt(lock, seat); /* somebody is on the way */
        return;
    }
    cpu = plk_cpu_here(gate);
    spinner = PLK_LOAD(&gate->spinner);
    if (PLK_LOAD(&gate->due) == cpu) {
        seat->retired = lock->id;
        plk_promote(lock, seat, head, plk_now());
        return;
    }
    /* [B1] The spinner takes the gate, or the armed one looks at it: no need to hurry, nor to
     * look at the clock each time. */
    if ((spinner & PLK_SPINNER_CALLS) == 0 && (spinner != 0 || PLK_LOAD(&gate->armed_ns) != 0) &&
        ++seat->since_clock % PLK_CLOCK_EVERY != 0)
        return;
    now = plk_now();
    age = now - PLK_LOAD(&gate->promoted_ns);
    if (age < PLK_BOUND_NS) {
        if (spinner == 0 && PLK_LOAD(&gate->armed_ns) < now) /* or died, with nobody left to look */
            plk_promote(lock, seat, head, now);
        return;
    }
    /* Who is to run where others of us run can't until one of them makes room: the one that is
     * on its CPU.  A wake there needs no interrupt, and the caches are warm. */
    if (plk_gate_full(lock, gate)) {
        home = PLK_LOAD(&plk_channel_of(s, lock->id + 1, head, &bit)->cpu);
        if (home != 0 && home != cpu && age < PLK_OVERDUE * PLK_BOUND_NS) {
            PLK_STORE(&gate->due, (uint16_t)home);
            return;
        }
        seat->retired = lock->id;
    }
    plk_promote(lock, seat, head, now);
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
    uint64_t now = plk_now(), age = now - PLK_LOAD(&gate->promoted_ns);

    if (PLK_LOAD_ACQUIRE(&gate->promoted) == plk_promotion(w->ticket)) {
        PLK_STORE(&gate->crowded, age > PLK_CROWDED_NS);
        return 1;
    }
    if (age < PLK_BOUND_NS)
        return 0;
    PLK_STORE(&gate->promoted_ns, now); /* awake anyway, and it is time */
    PLK_STORE(&gate->promoted, plk_promotion(w->ticket));
    return 1;
}

uint64_t plk_queue_arm(struct plk_wait *w)
{
    struct plk_gate *gate = plk_gate_of(w->gate->cell);
    uint64_t now = plk_now(), armed = PLK_LOAD(&gate->armed_ns), until = now + PLK_ARMED_NS;

    if (armed > now && armed - now <= PLK_ARMED_NS)
        return PLK_FOREVER;
    return __atomic_compare_exchange_n(&gate->armed_ns, &armed, until, 0, __ATOMIC_SEQ_CST,
                                       __ATOMIC_RELAXED) ? until : PLK_FOREVER;
}

void plk_queue_disarm(struct plk_wait *w, uint64_t armed)
{
    struct plk_lock *lock = w->gate;
    struct plk_cell *cell = lock->cell;
    struct plk_gate *gate = plk_gate_of(cell);
    struct plk_wait at_gate = {.lock = lock, .seat = w->seat, .ticket = PLK_NO_TICKET};
    uint64_t now = plk_now(), until = armed, head;

    __atomic_compare_exchange_n(&gate->armed_ns, &until, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    head = PLK_LOAD_ACQUIRE(&plk_queue_cell(cell)->head);
    if (now - PLK_LOAD(&gate->promoted_ns) < PLK_BOUND_NS)
        return;
    if (PLK_LOAD(&cell->tail) != PLK_LOAD_ACQUIRE(&cell->head))
        plk_watch(&at_gate); /* its holder may be dead */
    if (head != w->ticket && PLK_LOAD(&cell->tail) == PLK_LOAD_ACQUIRE(&cell->head))
        plk_promote(lock, w->seat, head, now);
}

long plk_queue_standby(struct plk_wait *w)
{
    return plk_park(w);
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
        plk_promote(w->gate, w->seat, head, plk_now());
    PLK_RECORD(PLK_STORE_RELEASE(&me->held, PLK_LOAD(&me->held) - 1));
}
