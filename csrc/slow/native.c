/* slow/native.c - the ticket lock as it was: spin until served.  As a function
 * (where the site could not be patched to a nop) it does what the nop does. */
#include "slow/slow.h"

long plk_slow_native(struct plk_wait *w, uint64_t head)
{
    (void)w;
    (void)head;
    return PLK_HINT_NONE;
}
