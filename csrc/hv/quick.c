/* hv/quick.c - see quick.h. */
#include "hv/quick.h"

#include <sys/syscall.h>

#include "hv/events.h"

#if defined(__x86_64__)

/* Entries: 8 x 8, in the order of the registers' numbers; of rsp there is none.  `filter` returns in
 * the usual case, when nothing is to be done, with three instructions. */
#define PLK_QUICK_ENTRIES(name, filter, body)                                            \
    __asm__(".pushsection .text\n"                                                       \
            ".balign 64\n"                                                               \
            ".globl " #name "\n.hidden " #name "\n.type " #name ", @function\n"          \
            #name ":\n.cfi_startproc\n"                                                  \
            ".irp in_lock, rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi\n"                     \
            ".irp in_seat, rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi\n"                     \
            ".balign 32\n"                                                               \
            filter                                                                       \
            "push %rdi\n.cfi_adjust_cfa_offset 8\npush %rsi\n.cfi_adjust_cfa_offset 8\n" \
            "push %\\in_lock\n.cfi_adjust_cfa_offset 8\n"                                \
            "mov %\\in_seat, %rsi\n"                                                     \
            "pop %rdi\n.cfi_adjust_cfa_offset -8\n"                                      \
            "call " #body "\n"                                                           \
            "pop %rsi\n.cfi_adjust_cfa_offset -8\npop %rdi\n.cfi_adjust_cfa_offset -8\n" \
            "ret\n"                                                                      \
            ".endr\n.endr\n"                                                             \
            ".cfi_endproc\n.size " #name ", . - " #name "\n.popsection\n")

#define PLK_QUICK_BODY(name) \
    PLK_QUICK __attribute__((used)) void name(const struct plk_lock *lock, struct plk_seat *seat)

/* As the filters below have them. */
PLK_STATIC_ASSERT(quick_timed, offsetof(struct plk_seat, timed_count) == 88);
PLK_STATIC_ASSERT(quick_sample, offsetof(struct plk_seat, sample) == 92);
PLK_STATIC_ASSERT(quick_stride, PLK_QUICK_STRIDE == 32);
PLK_QUICK_ENTRIES(plk_quick_counters_entered, "subl $1, 92(%\\in_seat)\njs 1f\nret\n1:\n", plk_counters_entered);
PLK_QUICK_ENTRIES(plk_quick_counters_left, "cmpl $0, 88(%\\in_seat)\njne 1f\nret\n1:\n", plk_counters_left);
PLK_QUICK_ENTRIES(plk_quick_trace_entered, "", plk_trace_entered);
PLK_QUICK_ENTRIES(plk_quick_trace_left, "", plk_trace_left);

/* CLOCK_MONOTONIC without the C library, which may use registers of all kinds. */
static __attribute__((noinline, cold)) PLK_QUICK uint64_t plk_clock_bare(void)
{
    struct timespec now = {0, 0};
    long rc = SYS_clock_gettime;

    __asm__ volatile("syscall"
                     : "+a"(rc) : "D"((long)CLOCK_MONOTONIC), "S"(&now) : "rcx", "r11", "memory", "cc");
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#define PLK_TICKS() (PLK_LIKELY(plk_tick_clock == PLK_CLOCK_TSC) ? PLK_TSC() : plk_clock_bare())

/* Begin to take the time of one uncontended hold.  The lock's tally has its memory since the lock was
 * bound, or is left out. */
static __attribute__((noinline)) PLK_QUICK void plk_timed_sample(const struct plk_lock *lock, struct plk_seat *seat)
{
    const struct plk_segment *s = (const struct plk_segment *)lock->domain;
    const struct plk_geometry *g = &s->geometry;
    uint64_t at = g->off_tallies + (g->vcpus + lock->id - 1) * sizeof(struct plk_tally);
    struct plk_tally *tally = NULL;

    PLK_STORE(&seat->sample, PLK_SAMPLE_EVERY - 1);
    if (seat->timed == NULL || seat->timed_count == PLK_TIMED_MOST ||
        (PLK_LOAD(&lock->cell->flags) & PLK_CELL_QUEUE) != 0)
        return;
    if (lock->id <= g->tallied && PLK_LOAD(&s->reserved[(at - g->off_cells) / PLK_PAGE]) != 0)
        tally = (struct plk_tally *)(s->base + at);
    seat->timed[seat->timed_count] = (struct plk_timed){lock->id, PLK_LOAD(&lock->cell->head) & (UINT64_MAX >> 16),
                                                        PLK_TICKS(), tally};
    PLK_STORE(&seat->timed_count, seat->timed_count + 1);
}

/* The time of one hold is over.  The thread still holds the lock: nobody else writes to its tally. */
static __attribute__((noinline)) PLK_QUICK void plk_timed_over(const struct plk_lock *lock, struct plk_seat *seat)
{
    uint64_t ticket = PLK_LOAD(&lock->cell->head) & (UINT64_MAX >> 16), now = PLK_TICKS(), ns;
    uint32_t i;

    for (i = 0; i < seat->timed_count && i < PLK_TIMED_MOST; i++) {
        struct plk_timed timed = seat->timed[i];

        if (timed.id != lock->id)
            continue;
        seat->timed[i] = seat->timed[--seat->timed_count];
        if (timed.ticket != ticket)
            return; /* it left by a site that is not patched, and this is another time */
        ns = (uint64_t)((unsigned __int128)(now - timed.since) * plk_tick_ns >> 32);
        if (seat->tally != NULL)
            PLK_HISTOGRAM_ADD(&seat->tally->hold, ns);
        if (timed.tally != NULL)
            PLK_HISTOGRAM_ADD(&timed.tally->hold, ns);
        return;
    }
}

PLK_QUICK_BODY(plk_counters_entered) { plk_timed_sample(lock, seat); }

PLK_QUICK_BODY(plk_counters_left) { plk_timed_over(lock, seat); }

/* A macro, because a function that is to be inlined must have the same attributes. */
#define PLK_QUICK_RECORD(kind)                                                                      \
    do {                                                                                            \
        uint64_t n = PLK_LOAD(&seat->tally->ring.next);                                             \
        struct plk_record *record = &seat->ring[n & (PLK_RING_RECORDS - 1)];                        \
                                                                                                    \
        __atomic_thread_fence(__ATOMIC_RELEASE); /* next before what follows; pairs with plk_ring_read */ \
        PLK_STORE(&record->ticks, PLK_TICKS());                                                     \
        PLK_STORE(&record->word, PLK_RECORD_WORD(kind, PLK_AT(lock->id, PLK_LOAD(&lock->cell->head)))); \
        PLK_STORE_RELEASE(&seat->tally->ring.next, n + 1); /* after the record; pairs with the same */ \
    } while (0)

PLK_QUICK_BODY(plk_trace_entered)
{
    if (PLK_LIKELY(seat->ring != NULL))
        PLK_QUICK_RECORD(PLK_EV_entered);
    if (PLK_UNLIKELY(seat->sample-- == 0))
        plk_timed_sample(lock, seat);
}

PLK_QUICK_BODY(plk_trace_left)
{
    if (PLK_LIKELY(seat->ring != NULL))
        PLK_QUICK_RECORD(PLK_EV_left);
    if (PLK_UNLIKELY(seat->timed_count != 0))
        plk_timed_over(lock, seat);
}

#endif
