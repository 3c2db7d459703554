/* slow/futex.c - sleep on the ticket's event channel; see hv/park.c. */
#include "slow/slow.h"

#include "hv/park.h"

long plk_slow_futex(struct plk_wait *w, uint64_t head)
{
    (void)head;
    return plk_park(w);
}
