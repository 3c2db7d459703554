/* hv/ticks.h - the clock of events: the processor's time stamp counter where the kernel itself
 * keeps time by it, else CLOCK_MONOTONIC by a bare system call.  Either way nothing is called
 * that could touch other registers than those that hold integers (hv/quick.c). */
#ifndef PLK_HV_TICKS_H
#define PLK_HV_TICKS_H

#include <pylocks.h>

/* What ticks are in this process, and ns of one, times 2^32. */
extern uint32_t plk_tick_clock; /* enum plk_clock */
extern uint64_t plk_tick_ns;

/* Find out; before the first event, and never again. */
void plk_ticks_init(void);

#if defined(__x86_64__)
#define PLK_TSC() ((uint64_t)__builtin_ia32_rdtsc())
#else
#define PLK_TSC() UINT64_C(0)
#endif

#endif
