/* The usual cure: after a while of spinning, give the CPU to whoever may be next. */
#include <sched.h>

#include "ticket_shared.h"

#define SPINS 100u /* turns before each sched_yield; a pause takes some 20 to 60 ns */

static inline void wait_turn(uint32_t round)
{
    if (round % SPINS == 0)
        sched_yield();
    else
        bench_pause();
}

BENCH_SUBJECT(ticket_yield, 1, "ticket lock that spins and yields");
