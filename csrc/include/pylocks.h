/* pylocks.h - ticket locks between processes, for C.
 *
 * What pylocks._lock is made of, and all that it is made of.  Include it in your
 * own extension and the fast path is compiled into it: no call when the lock is
 * free, and patch sites of your own, which show up in pylocks.ops().
 *
 *     #include <Python.h>
 *     #include <pylocks.h>
 *     #include <pylocks/python.h>
 *
 *     PLK_MODULE("shop._orders");                     // once a shared object
 *
 *     static struct plk_lock lock;                    // one a process and lock
 *
 *     // in the module's init function: registers the patch sites
 *     if (plk_register_python() != 0)
 *         return NULL;
 *
 *     // given pylocks.TicketLock l: domain is l.domain.address, index is l.index
 *     if (plk_lock_init(&lock, (struct plk_domain *)address, index) != 0)
 *         ...
 *
 *     switch (plk_acquire(&lock)) {                   // or a negative errno
 *     case PLK_OWNER_DIED:                            // entered, but a holder was killed inside:
 *         repair();                                   // look after what the lock protects
 *         plk_mark_consistent(&lock);
 *     case 0:                                         // entered
 *         ...
 *     }
 *     plk_unlock(&lock);                              // -EPERM if not the owner
 *
 * Compile with -I "$(python -c 'import pylocks; print(pylocks.get_include())')".
 * A module that is not a Python extension calls plk_register with the address
 * that pylocks.api_address() gives.
 *
 * Rules.  The Domain must stay open while a plk_lock of it is used.  A handle
 * may be shared by the threads of a process; after fork the child may use it,
 * too, and is another vCPU.  Not for use in a signal handler that can interrupt
 * the same thread inside one of these functions.  Threads that use locks are not to
 * be cancelled (pthread_cancel): some of these functions are cancellation points.
 *
 * Reading order: layout.h (the words), fast.h (the argument and the fast path),
 * wait.h (the contended half), ops.h and site.h (patching). */
#ifndef PYLOCKS_H
#define PYLOCKS_H

#include "pylocks/fast.h"

/* Register this module's patch sites with the core: 0, -ENOMEM, or -EPROTO if
 * the installed pylocks has another ABI than this header. */
__attribute__((unused)) static int plk_register(const struct plk_api *api)
{
    if (api == NULL || api->abi != PLK_ABI || api->size < sizeof(*api))
        return -EPROTO;
    return api->module_add(&plk_module_self);
}

/* Make *lock name cell `index` of the domain.  0; -EINVAL: no such cell;
 * -ENOSPC: no memory could be reserved for it; -ESHUTDOWN: domain closed. */
__attribute__((unused)) static int plk_lock_init(struct plk_lock *lock, struct plk_domain *domain,
                                                 uint32_t index)
{
    if (plk_module_self.api == NULL)
        plk_not_registered();
    return plk_module_self.api->lock_init(lock, domain, index);
}

#endif
