/* The ticket lock through its public header, as a third party uses it: this shared
 * object is a module of its own, with its own patch sites. */
#include <pylocks.h>

#include "subject.h"

PLK_MODULE("bench.csubjects");

static int create(void *place, const struct bench_env *env)
{
    int rc = plk_register((const struct plk_api *)(uintptr_t)env->pylocks_api);

    if (rc != 0)
        return rc;
    return plk_lock_init(place, (struct plk_domain *)(uintptr_t)env->pylocks_domain, env->pylocks_cell);
}

__attribute__((always_inline)) static inline int lock(void *place) { return plk_acquire(place); }
__attribute__((always_inline)) static inline int unlock(void *place) { return plk_unlock(place); }
static void destroy(void *place) { (void)place; } /* the cell is its TicketLock's */

BENCH_SUBJECT(pylocks, 1, "plk_acquire and plk_unlock of <pylocks.h>, inlined");
