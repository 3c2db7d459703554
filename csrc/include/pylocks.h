/* pylocks.h - ticket locks between processes, for C.
 *
 * What pylocks._lock is made of, and all that it is made of.  Include it in your
 * own extension and the fast path is compiled into it: no call when the lock is
 * free, and patch sites of your own, which show up in pylocks.ops().
 *
 * A whole extension, which counts in shared memory, under a lock that Python code in this
 * and other processes may use, too:
 *
 *     // tally.c
 *     #include <Python.h>
 *     #include <pylocks.h>
 *     #include <pylocks/python.h>
 *
 *     PLK_MODULE("tally");                            // once in a shared object
 *
 *     // add(lock, buffer, n): n times one more, in the 64-bit number that begins the buffer
 *     static PyObject *add(PyObject *self, PyObject *args)
 *     {
 *         struct plk_lock *lock;
 *         PyObject *object;
 *         Py_buffer total;
 *         unsigned long n;
 *         int rc = 0;
 *
 *         (void)self;
 *         if (!PyArg_ParseTuple(args, "Ow*k", &object, &total, &n))
 *             return NULL;
 *         lock = plk_lock_borrow(object);             // args keep object, and so the lock, alive
 *         if (lock == NULL) {
 *             PyBuffer_Release(&total);
 *             return NULL;
 *         }
 *         Py_BEGIN_ALLOW_THREADS                      // who may wait gives the GIL back
 *         while (n-- != 0 && rc >= 0) {
 *             rc = plk_acquire(lock);
 *             if (rc < 0)                             // not entered
 *                 break;
 *             if (rc == PLK_OWNER_DIED)               // entered; a number can't be half-done
 *                 plk_mark_consistent(lock);
 *             *(long *)total.buf += 1;                // one thread of one process at a time
 *             rc = plk_unlock(lock);
 *         }
 *         Py_END_ALLOW_THREADS
 *         PyBuffer_Release(&total);
 *         if (rc < 0)
 *             return plk_raise_python(rc, object);    // what lock.acquire() would raise
 *         Py_RETURN_NONE;
 *     }
 *
 *     static PyMethodDef methods[] = {{"add", add, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
 *     static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "tally", NULL, -1, methods,
 *                                         NULL, NULL, NULL, NULL};
 *
 *     PyMODINIT_FUNC PyInit_tally(void)
 *     {
 *         if (plk_register_python() != 0)             // ImportError if another ABI is installed
 *             return NULL;
 *         return PyModule_Create(&module);
 *     }
 *     // end
 *
 * Compile with -I "$(python -c 'import pylocks; print(pylocks.get_include())')"; there is
 * nothing to link with.  examples/c has more of the same with its setup.py, docs/native.md the
 * same for Cython, numba, ctypes and cffi.  C99, C++14 or later, with GCC or Clang.
 *
 * Which lock?
 *
 *     plk_lock_borrow(object)                         the one within a TicketLock; python.h
 *     (struct plk_lock *)address                      the same: address is lock.address
 *     plk_lock_init(&mine, domain, index)             a handle of your own, of a lock of
 *                                                     (struct plk_domain *)lock.domain.address;
 *                                                     of a LockArray: array.address
 *
 * The first two are good for as long as the Python object lives, so keep a reference to
 * it; the third for as long as the Domain does, and for as long as the lock does: the
 * memory of an anonymous lock is another lock's when its last TicketLock has been collected.
 * What was borrowed from an object that is gone is a pointer into nothing.  A handle may be
 * used by all threads of a process, and in processes forked from it.
 *
 * What comes back
 *
 *     0                  entered, or left
 *     PLK_OWNER_DIED     entered, but a thread died while it held the lock: see below
 *     negative           not entered, or not left; a negated errno, which stands at each function
 *
 * Rules
 *
 * - A lock belongs to the thread that acquired it, whichever module's code that ran: what C has taken,
 *   lock.release() in Python can give back, and the other way round; another thread can't.
 * - Who waits must not have the GIL: the holder may be a thread of the same process that needs
 *   it to get on.  plk_trylock and plk_unlock never wait.
 * - No signal ends a wait.  For Ctrl-C to be heard, wait with plk_acquire_until for a while,
 *   take the GIL, PyErr_CheckSignals(), and wait again: who comes back before the queue has
 *   moved past its ticket has its old place.
 * - Holding is not inherited over fork: the child is another thread, and gets -EPERM.
 * - Closing the domain (Domain.close) while a handle is about does no harm: -ESHUTDOWN.  It is
 *   refused while a thread of the process holds or waits for a lock.
 * - Not for a signal handler that can interrupt the same thread inside one of these
 *   functions.  Threads that use locks are not to be cancelled (pthread_cancel): some of these
 *   functions are cancellation points.
 * - Nothing of this may be used before plk_register; that ends the program with a message.
 *
 * Reading order: layout.h (the words), fast.h (the argument and the fast path),
 * wait.h (the contended half), bounded.h, ops.h and site.h (patching). */
#ifndef PYLOCKS_H
#define PYLOCKS_H

#include "pylocks/ops.h"

struct plk_lock; /* a process's handle of one lock: fast.h */

/* PLK_MODULE("shop._orders"): in one C file of each shared object, outside of functions.
 * The name is what pylocks.ops() calls the module by. */

/* Register this module's patch sites with the core, before anything else and once a process:
 * 0, -ENOMEM, or -EPROTO if the installed pylocks has another ABI than this header.  api is
 * what pylocks.api_address() says.  An extension module calls plk_register_python instead. */
__attribute__((unused)) static int plk_register(const struct plk_api *api);

/* Make *lock name cell `index` of the domain.  0; -EINVAL: no such cell; -ENOSPC: no memory
 * could be reserved for it; -ESHUTDOWN: the domain is closed; -ENOENT: a part of another lock. */
__attribute__((unused)) static int plk_lock_init(struct plk_lock *lock, struct plk_domain *domain,
                                                 uint32_t index);

/* Take the lock, waiting for as long as it takes.
 *  0, PLK_OWNER_DIED  entered
 *  -EDEADLK           this thread holds it already
 *  -ELOOP             it would wait for itself through others, where the domain detects deadlocks
 *  -ESHUTDOWN         the domain was closed in this process
 * and, at this thread's first use of the domain, which registers it:
 *  -EUSERS            all vCPU slots are taken (Domain(vcpus=))
 *  -ENOSPC, -ENOMEM   no memory is left for the segment, or for this thread
 *  -ETIMEDOUT         a process that is stopped keeps the domain's mutex
 *  -ENOTRECOVERABLE   the domain's mutex was written over */
PLK_INLINE int plk_acquire(struct plk_lock *lock);

/* The same if it is free; -EBUSY if not.  Takes no ticket, so nobody behind is disturbed. */
PLK_INLINE int plk_trylock(struct plk_lock *lock);

/* The same by a deadline, which is plk_in(ns), or PLK_FOREVER; -ETIMEDOUT: its turn had not come.
 * The ticket is abandoned then; who comes again soon gets its old place back. */
PLK_COLD static int plk_acquire_until(struct plk_lock *lock, uint64_t deadline);

/* The deadline so many nanoseconds from now (CLOCK_MONOTONIC). */
__attribute__((unused)) static uint64_t plk_in(uint64_t ns);

/* Give the lock to the next in line.  0, or -EPERM: this thread does not hold it. */
PLK_INLINE int plk_unlock(struct plk_lock *lock);

/* After PLK_OWNER_DIED every acquisition returns that, until a holder who has put in order what
 * the lock protects says so.  0, or -EPERM: this thread does not hold the lock.
 *
 *     rc = plk_acquire(lock);
 *     if (rc == PLK_OWNER_DIED && repair() == 0)
 *         plk_mark_consistent(lock);
 *     ...
 *     plk_unlock(lock);                               // whether repaired or not */
PLK_COLD static int plk_mark_consistent(struct plk_lock *lock);

/* ------------------------------------------------------------ the code */

#include "pylocks/fast.h"

__attribute__((unused)) static int plk_register(const struct plk_api *api)
{
    if (api == NULL || api->abi != PLK_ABI || api->size < sizeof(*api))
        return -EPROTO;
    return api->module_add(&plk_module_self);
}

__attribute__((unused)) static int plk_lock_init(struct plk_lock *lock, struct plk_domain *domain,
                                                 uint32_t index)
{
    if (plk_module_self.api == NULL)
        plk_not_registered();
    return plk_module_self.api->lock_init(lock, domain, index);
}

__attribute__((unused)) static uint64_t plk_in(uint64_t ns)
{
    uint64_t now;

    if (plk_module_self.api == NULL)
        plk_not_registered();
    now = plk_module_self.api->now();
    return ns < PLK_FOREVER - now ? now + ns : PLK_FOREVER;
}

#endif
