/* slow/slow.h - the slow paths: what a waiter does once it has spun its budget.
 *
 * Adding one: write slow/NAME.c with its function, declare the function by its
 * row here, done.  The registry, PYLOCKS_OPS, the contract tests and the stress
 * program read this table. */
#ifndef PLK_SLOW_SLOW_H
#define PLK_SLOW_SLOW_H

#include "recover/segment.h"

/* X(name, protocol, sound, meaning).  A row that is not sound is broken on
 * purpose, never chosen automatically, and there to prove that tests bite. */
#define PLK_SLOW_PATHS(X)                                                                   \
    X(native, PLK_NATIVE, 1, "spin; the unlocker never kicks: for dedicated cores")         \
    X(yield, PLK_ENLIGHTENED, 1, "give the CPU away with sched_yield, again and again")     \
    X(futex, PLK_ENLIGHTENED, 1, "sleep on the ticket's event channel until kicked")        \
    X(hosted, PLK_ENLIGHTENED, 1, "tell the hypervisor service, and sleep until it kicks")  \
    X(busted, PLK_ENLIGHTENED, 0, "broken on purpose: barges past the ticket being served")

/* The unlock_kick that goes with `hosted`: the service kicks. */
void plk_kick_hosted(struct plk_lock *lock, struct plk_seat *seat, uint64_t head);

#define X(name, protocol, sound, meaning) long plk_slow_##name(struct plk_wait *w, uint64_t head);
PLK_SLOW_PATHS(X)
#undef X

#endif
