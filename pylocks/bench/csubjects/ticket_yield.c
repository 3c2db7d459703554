/* The usual cure: whose turn it is not gives the CPU to whoever it may be. */
#include <sched.h>

#include "ticket_shared.h"

static inline void wait_turn(void) { sched_yield(); }

BENCH_SUBJECT(ticket_yield, 1, "ticket lock that waits with sched_yield");
