/* pieces.h - what the games are made of, inlined into each subject's own.
 *
 * Work is counted in turns, not by the clock: a preempted worker still has all of it
 * to do.  A wait costs two reads of the processor's counter and two stores to the
 * worker's own cache line; counting it costs some more, outside the critical section.
 * All that can be seen in subject `empty`. */
#ifndef BENCH_PIECES_H
#define BENCH_PIECES_H

#include <stdint.h>
#include <time.h>

#include "harness.cdef"

#define BENCH_LOAD(at) __atomic_load_n(at, __ATOMIC_RELAXED)
#define BENCH_STORE(at, value) __atomic_store_n(at, value, __ATOMIC_RELAXED)

/* A counter that runs evenly on all CPUs; bench_ticks_per_ns() says how fast. */
static inline uint64_t bench_stamp(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;

    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
#endif
}

static inline void bench_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* A chain of multiplications, each waiting for the one before: its length is the same
 * in every process, touches no memory, and can't be folded away. */
static inline void bench_turns(uint64_t turns)
{
    uint64_t x = turns;

    while (turns-- != 0) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(x) : : "memory");
    }
}

static inline uint32_t bench_bucket_of(uint64_t ticks)
{
    uint32_t top;

    if (ticks < 16)
        return (uint32_t)ticks;
    top = 63u - (uint32_t)__builtin_clzll(ticks);
    return (top - 3) * 16 + (uint32_t)((ticks >> (top - 4)) & 15);
}

/* What a worker keeps to itself. */
struct bench_pace {
    uint64_t random;
    uint32_t phase;
};

/* Notice a new phase: context switches are counted from one to the next. */
void bench_notice(struct bench_worker *me, struct bench_pace *pace, uint32_t phase);

static inline struct bench_pace bench_begin(struct bench_control *c, struct bench_worker *me)
{
    struct bench_pace pace = {(c->seed + (uint64_t)me->pid) * 0x9e3779b97f4a7c15u | 1, BENCH_GATHER};

    return pace;
}

static inline int bench_go_on(struct bench_control *c, struct bench_worker *me, struct bench_pace *pace)
{
    uint32_t phase = BENCH_LOAD(&c->phase);

    if (__builtin_expect(phase != pace->phase, 0))
        bench_notice(me, pace, phase);
    return phase != BENCH_OVER;
}

/* From now on it waits. */
static inline uint64_t bench_ask(struct bench_worker *me)
{
    uint64_t asked = bench_stamp();

    BENCH_STORE(&me->waiting_since, asked);
    return asked;
}

/* The critical section. */
static inline void bench_enter(struct bench_control *c, struct bench_worker *me)
{
    uint64_t before = BENCH_LOAD(&c->counter);

    BENCH_STORE(&me->waiting_since, 0);
    bench_turns(c->cs_turns);
    if (BENCH_LOAD(&c->counter) != before)
        BENCH_STORE(&me->violations, me->violations + 1);
    BENCH_STORE(&c->counter, before + 1);
}

/* Count an acquisition, and its wait (or the time it took to be handed over) if the window is open. */
static inline void bench_note(struct bench_worker *me, struct bench_pace *pace, uint64_t asked,
                              uint64_t inside)
{
    /* Counters of two CPUs may differ by some ticks. */
    uint64_t waited = inside > asked ? inside - asked : 0;

    BENCH_STORE(&me->acquisitions, me->acquisitions + 1);
    if (pace->phase != BENCH_MEASURE)
        return;
    me->waits[bench_bucket_of(waited)]++;
    if (waited > me->longest)
        BENCH_STORE(&me->longest, waited);
}

/* The work between: so many turns, half of them more or less. */
static inline void bench_outside(struct bench_control *c, struct bench_pace *pace)
{
    uint64_t turns = c->outside_turns;

    pace->random ^= pace->random << 13;
    pace->random ^= pace->random >> 7;
    pace->random ^= pace->random << 17;
    bench_turns(turns / 2 + (uint64_t)(((__uint128_t)pace->random * (turns + 1)) >> 64));
}

#endif
