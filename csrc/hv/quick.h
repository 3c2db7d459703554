/* hv/quick.h - lock_event in the uncontended path: what its two sites (PLK_POINT) are patched to call.
 *
 * The compiler that compiled the caller does not know that there is a call, and keeps what it
 * likes in registers.  So these functions, and all that they call, change none: the compiler
 * of this file is told to, and to use only registers for integers, which are quickly
 * saved.  It is the kernel's PV_CALLEE_SAVE, made by an attribute.
 *
 * Each has as many entries as there are pairs of registers that a site may have its lock and
 * its seat in (site_x86_64.h); the patcher takes the one that fits. */
#ifndef PLK_HV_QUICK_H
#define PLK_HV_QUICK_H

#include "hv/ticks.h"

#if defined(__x86_64__)

/* The sanitizers' own calls would break the promise. */
#if defined(__clang__)
#define PLK_QUICK                                                                    \
    __attribute__((no_caller_saved_registers, target("general-regs-only"),           \
                   no_sanitize("thread", "address", "undefined", "coverage")))
#else
#define PLK_QUICK                                                                    \
    __attribute__((no_caller_saved_registers, target("general-regs-only"),           \
                   no_sanitize("thread", "address", "undefined"), no_sanitize_coverage))
#endif

/* lock_event=counters: takes the time of every PLK_SAMPLE_EVERY-th uncontended hold, and ends that and
 * those that began with a wait.  lock_event=trace: writes a record, and does the same. */
void plk_quick_counters_entered(void);
void plk_quick_counters_left(void);
void plk_quick_trace_entered(void);
void plk_quick_trace_left(void);

/* What they call, for a site that was not patched. */
void plk_counters_entered(const struct plk_lock *lock, struct plk_seat *seat) PLK_HIDDEN PLK_QUICK;
void plk_counters_left(const struct plk_lock *lock, struct plk_seat *seat) PLK_HIDDEN PLK_QUICK;
void plk_trace_entered(const struct plk_lock *lock, struct plk_seat *seat) PLK_HIDDEN PLK_QUICK;
void plk_trace_left(const struct plk_lock *lock, struct plk_seat *seat) PLK_HIDDEN PLK_QUICK;

#endif

#define PLK_QUICK_STRIDE 32 /* bytes between entries */

/* Is it `push` of a register that there are entries for? */
static inline int plk_quick_known(uint8_t push) { return push >= 0x50 && push <= 0x57 && push != 0x54; }

/* The entry for a site with these two. */
static inline plk_op_fn plk_quick_entry(plk_op_fn first, uint8_t push_lock, uint8_t push_seat)
{
    uintptr_t at = (uintptr_t)(push_lock - 0x50) * 8 + (uintptr_t)(push_seat - 0x50);

    return (plk_op_fn)((uintptr_t)first + at * PLK_QUICK_STRIDE);
}

#endif
