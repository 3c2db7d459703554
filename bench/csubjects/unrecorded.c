/* The same lock without the stores that are there for recovery alone: what robustness
 * costs is the difference.  Not to be used where anybody may die, time out or fork. */
#define PLK_RECORD(store) \
    do {                  \
        if (0) {          \
            store;        \
        }                 \
    } while (0)
#include <pylocks.h>

#include "subject.h"

static int create(void *place, const struct bench_env *env)
{
    /* The module is the one of pylocks.c; registering it again does nothing. */
    int rc = plk_register((const struct plk_api *)(uintptr_t)env->pylocks_api);

    if (rc != 0)
        return rc;
    return plk_lock_init(place, (struct plk_domain *)(uintptr_t)env->pylocks_domain, env->pylocks_cell);
}

__attribute__((always_inline)) static inline int lock(void *place) { return plk_acquire(place); }
__attribute__((always_inline)) static inline int unlock(void *place) { return plk_unlock(place); }
static void destroy(void *place) { (void)place; } /* the cell is its TicketLock's */

BENCH_SUBJECT(unrecorded, 1, "pylocks without the records that recovery reads");
