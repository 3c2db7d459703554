/* The ticket lock as it was before anybody thought of preemption. */
#include "ticket_shared.h"

static inline void wait_turn(void) { bench_pause(); }

BENCH_SUBJECT(ticket_spin, 1, "ticket lock that spins");
