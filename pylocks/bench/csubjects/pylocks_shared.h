/* pylocks_shared.h - the ticket lock through its public header, as a third party uses it: this shared
 * object is a module of its own, with its own patch sites. */
#ifndef BENCH_PYLOCKS_SHARED_H
#define BENCH_PYLOCKS_SHARED_H

#include <pylocks.h>

#include "subject.h"

static int create(void *place, const struct bench_env *env)
{
    /* One module for all of its files; registering it again does nothing. */
    int rc = plk_register((const struct plk_api *)(uintptr_t)env->pylocks_api);

    if (rc != 0)
        return rc;
    return plk_lock_init(place, (struct plk_domain *)(uintptr_t)env->pylocks_domain, env->pylocks_cell);
}

__attribute__((always_inline)) static inline int lock(void *place) { return plk_acquire(place); }
__attribute__((always_inline)) static inline int unlock(void *place) { return plk_unlock(place); }
static void destroy(void *place) { (void)place; } /* the cell is its TicketLock's */

#endif
