/* patch/choices.c - the multi-way choice behind each op.
 *
 * An op's native choice costs nothing or an inlined instruction; its
 * enlightened ones are an inlined instruction or a direct call. */
#include "patch/choices.h"

#include <sched.h>

#include "hv/barrier.h"
#include "hv/events.h"
#include "hv/leave.h"
#include "hv/policy.h"
#include "hv/preempted.h"
#include "hv/quick.h"
#include "slow/slow.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <x86intrin.h>
#endif

#define NOP6 {0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00}
#define PAUSE_NOP4 {0xf3, 0x90, 0x0f, 0x1f, 0x40, 0x00}
#define ZERO_NOP4 {0x31, 0xc0, 0x0f, 0x1f, 0x40, 0x00}
#define LOCK_OR_NOP {0xf0, 0x83, 0x0c, 0x24, 0x00, 0x90}

static long plk_nothing(void) { return 0; }

static long plk_relax_pause(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory"); /* yield is a nop on most cores; isb waits */
#endif
    return 0;
}

static long plk_relax_yield(void)
{
    sched_yield();
    return 0;
}

#if defined(__x86_64__)
static int plk_has_waitpkg(void)
{
    unsigned a, b, c, d;

    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & (1u << 5)) != 0;
}

/* Light sleep (C0.1) of some hundred cycles at most, so that head is looked at
 * about as often as with pause while the sibling hyperthread gets the core. */
__attribute__((target("waitpkg"))) static long plk_relax_tpause(void)
{
    _tpause(1, __rdtsc() + 256);
    return 0;
}
#endif

static long plk_barrier_fence(void)
{
    PLK_FENCE();
    return 0;
}

/* The holder was last seen on this CPU, and this thread is running on it: the
 * holder can't be.  The CPU is recorded only by those who come this way, a hint
 * that may be out of date; a wrong answer costs one spin or one sleep. */
static long plk_on_my_cpu(struct plk_wait *w, uint64_t head)
{
    struct plk_segment *s = plk_segment_of(w->lock->domain);
    uint64_t owner = PLK_LOAD(&w->lock->cell->owner);
    uint32_t index = PLK_OWNER_VCPU(owner);
    uint32_t cpu = (uint32_t)sched_getcpu() + 1; /* 0 where it is unknown */

    PLK_STORE(&w->seat->vcpu->cpu, cpu);
    return cpu != 0 && index < plk_slots(s) && PLK_OWNER_VALID(owner, head) &&
           PLK_LOAD(&plk_vcpu_at(s, index)->cpu) == cpu;
}

/* As the service says, or as this process has chosen.  By the marks: a monitor's program saw it
 * switched out; who has no monitor is no worse off than others. */
static long plk_preempted(struct plk_wait *w, uint64_t head, uint32_t chosen)
{
    uint32_t trust = plk_policy_trust(plk_segment_of(w->lock->domain));
    int out;

    if (trust == PLK_TRUST_OWN)
        trust = chosen;
    if (trust == PLK_TRUST_NOTHING)
        return 0;
    if (trust == PLK_TRUST_MARKS && (out = plk_holder_out(w, head)) >= 0)
        return out;
    return plk_on_my_cpu(w, head);
}

static long plk_preempted_same_cpu(struct plk_wait *w, uint64_t head)
{
    return plk_preempted(w, head, PLK_TRUST_CPU);
}

static long plk_preempted_bpf(struct plk_wait *w, uint64_t head)
{
    return plk_preempted(w, head, PLK_TRUST_MARKS);
}

#define FN(f) ((plk_op_fn)(void (*)(void))(f))
#if defined(__x86_64__)
#define QUICK(name, f) [PLK_PLACE_##name] = FN(f)
#else
#define QUICK(name, f) [PLK_PLACE_##name] = NULL
#endif

static const struct plk_choice plk_choices[] = {
    {PLK_OP_cpu_relax, "pause", "the processor's spin hint", PLK_KIND_INLINE, PAUSE_NOP4,
     FN(plk_relax_pause), 0, 1, NULL, {NULL}},
#if defined(__x86_64__)
    {PLK_OP_cpu_relax, "tpause", "a timed light sleep of the core", PLK_KIND_CALL, {0},
     FN(plk_relax_tpause), 0, 1, plk_has_waitpkg, {NULL}},
#endif
    {PLK_OP_cpu_relax, "yield", "sched_yield in every turn of a spin", PLK_KIND_CALL, {0},
     FN(plk_relax_yield), 0, 1, NULL, {NULL}},

    {PLK_OP_unlock_barrier, "off", "nobody sleeps, so nobody can be missed", PLK_KIND_NOP, NOP6,
     FN(plk_nothing), PLK_NATIVE, 1, NULL, {NULL}},
    {PLK_OP_unlock_barrier, "fence", "a full fence between head and slow", PLK_KIND_INLINE, LOCK_OR_NOP,
     FN(plk_barrier_fence), 0, 1, NULL, {NULL}},

    {PLK_OP_unlock_barrier, "membarrier", "nothing here: a waiter has all CPUs fence before it sleeps",
     PLK_KIND_NOP, NOP6, FN(plk_nothing), PLK_ENLIGHTENED, 1, plk_membarrier_works, {NULL}},

#define X(path, needs, is_sound, says)                                                    \
    {PLK_OP_lock_spinning, #path, says, needs == PLK_NATIVE ? PLK_KIND_NOP : PLK_KIND_CALL, \
     NOP6, FN(plk_slow_##path), needs, is_sound, NULL, {NULL}},
    PLK_SLOW_PATHS(X)
#undef X

    {PLK_OP_unlock_kick, "off", "waiters look for themselves", PLK_KIND_NOP, NOP6, FN(plk_nothing),
     PLK_NATIVE, 1, NULL, {NULL}},
    {PLK_OP_unlock_kick, "kick", "pass over abandoned tickets, wake the next in line", PLK_KIND_CALL,
     {0}, FN(plk_serve_next), PLK_ENLIGHTENED, 1, NULL, {NULL}},
    {PLK_OP_unlock_kick, "hosted", "ask the hypervisor service to wake the next in line", PLK_KIND_CALL,
     {0}, FN(plk_kick_hosted), PLK_ENLIGHTENED, 1, NULL, {NULL}},

    {PLK_OP_vcpu_preempted, "off", "assume that the holder runs", PLK_KIND_INLINE, ZERO_NOP4,
     FN(plk_nothing), 0, 1, NULL, {NULL}},
    {PLK_OP_vcpu_preempted, "same_cpu", "the holder was last seen on the waiter's CPU", PLK_KIND_CALL,
     {0}, FN(plk_preempted_same_cpu), 0, 1, NULL, {NULL}},
    {PLK_OP_vcpu_preempted, "bpf", "a monitor has seen the holder switched out; without one as same_cpu",
     PLK_KIND_CALL, {0}, FN(plk_preempted_bpf), 0, 1, NULL, {NULL}},

    {PLK_OP_lock_event, "off", "no statistics", PLK_KIND_NOP, NOP6, FN(plk_nothing), 0, 1, NULL, {NULL}},
    {PLK_OP_lock_event, "counters", "count what contended acquisitions do, and how long they wait and hold",
     PLK_KIND_CALL, {0}, FN(plk_event_counters), 0, 1, NULL, {QUICK(entered, plk_quick_counters_entered), QUICK(left, plk_quick_counters_left)}},
    {PLK_OP_lock_event, "trace", "the same, and a record of every acquisition in the vCPU's ring", PLK_KIND_CALL,
     {0}, FN(plk_event_trace), 0, 1, NULL,
     {QUICK(entered, plk_quick_trace_entered), QUICK(left, plk_quick_trace_left)}},
};

uint32_t plk_choice_count(void) { return sizeof(plk_choices) / sizeof(plk_choices[0]); }

const struct plk_choice *plk_choice_at(uint32_t index)
{
    return index < plk_choice_count() ? &plk_choices[index] : NULL;
}

int plk_choice_available(uint32_t index)
{
    const struct plk_choice *c = plk_choice_at(index);

    return c != NULL && (c->available == NULL || c->available());
}

enum plk_choice_kind plk_choice_at_place(const struct plk_choice *c, uint8_t place, plk_op_fn *fn)
{
    *fn = place == PLK_PLACE_CONTENDED ? c->fn : c->quick[place];
    return c->kind == PLK_KIND_CALL && *fn == NULL ? PLK_KIND_NOP : c->kind;
}

static const char *const plk_op_names[] = {
#define X(name, where, what) #name,
    PLK_OPS(X)
#undef X
};

uint32_t plk_op_count(void) { return PLK_OP_COUNT; }

const char *plk_op_name(uint32_t op) { return op < PLK_OP_COUNT ? plk_op_names[op] : NULL; }

int plk_choice_view(uint32_t index, struct plk_choice_view *view)
{
    const struct plk_choice *c = plk_choice_at(index);

    if (c == NULL)
        return -EINVAL;
    *view = (struct plk_choice_view){.op = plk_op_names[c->op], .name = c->name,
                                     .meaning = c->meaning, .op_index = c->op,
                                     .kind = c->kind, .protocol = c->protocol,
                                     .sound = c->sound, .available = plk_choice_available(index)};
    return 0;
}
