/* slow/busted.c - a lock that does not exclude, to prove that what claims to
 * verify locks would notice: every so often a waiter declares its own ticket
 * served while another is inside. */
#include "slow/slow.h"

#include <sched.h>

#define PLK_BUSTED_EVERY 8u

long plk_slow_busted(struct plk_wait *w, uint64_t head)
{
    sched_yield();
    if (w->rounds % PLK_BUSTED_EVERY == 0 && head < w->ticket)
        PLK_STORE_RELEASE(&w->lock->cell->head, w->ticket);
    return PLK_HINT_NONE;
}
