/* fast/sync.h - what the types of semaphores, events and their like have in common. */
#ifndef PLK_FAST_SYNC_H
#define PLK_FAST_SYNC_H

#include "fast/acquire.h"

typedef struct {
    PyObject_HEAD
    struct plk_ref ref;
    PyObject *domain; /* the pylocks.Domain, kept alive for as long as this handle */
    PyObject *weakrefs;
} SyncObject;

extern PyType_Spec plk_sync_spec PLK_HIDDEN, plk_semaphore_spec PLK_HIDDEN, plk_mutex_spec PLK_HIDDEN,
    plk_event_spec PLK_HIDDEN, plk_sync_within_spec PLK_HIDDEN, plk_condition_spec PLK_HIDDEN,
    plk_rmutex_spec PLK_HIDDEN,
    plk_barrier_spec PLK_HIDDEN, plk_rwlock_spec PLK_HIDDEN, plk_side_spec PLK_HIDDEN;

/* How an object is entered and left by `with`.  seconds as plk_sync_wait_for.  1: taken, 0: timed out, -1:
 * exception set.  0; -1: exception set. */
int plk_semaphore_take(SyncObject *self, double seconds) PLK_HIDDEN;
int plk_semaphore_give(SyncObject *self) PLK_HIDDEN;
int plk_mutex_enter(SyncObject *self, double seconds) PLK_HIDDEN;
int plk_mutex_leave(SyncObject *self) PLK_HIDDEN;
int plk_rmutex_take(SyncObject *self, double seconds) PLK_HIDDEN;
int plk_rmutex_give(SyncObject *self) PLK_HIDDEN;

typedef int plk_sync_taker(SyncObject *self, double seconds); /* one of those that take */

/* Method acquire(blocking=True, timeout=None). */
PyObject *plk_sync_acquire(SyncObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names,
                           plk_sync_taker *take) PLK_HIDDEN;

/* Method acquire(block=True, timeout=None) of multiprocessing: less than 0 seconds are none, and no timeout
 * counts without `block`. */
PyObject *plk_sync_acquire_block(SyncObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names,
                                 plk_sync_taker *take) PLK_HIDDEN;

/* NotOwnerError: the object is not this thread's; or what its class has as _not_owner. */
void plk_not_owner(PyObject *object) PLK_HIDDEN;

#define PLK_SYNC_API (plk_module_self.api->sync)

/* With the GIL, which is released to wait; signal handlers run, and may use the same object.  want: the
 * kind's own.  seconds: 0, do not wait; -1, for ever.  1: over, *result says how; 0: timed out;
 * -1: exception set, and if its turn had come all the same, *result is not negative. */
int plk_sync_wait_for(SyncObject *self, uint64_t want, double seconds, int32_t *result) PLK_HIDDEN;

/* The same of a wait that has begun (api->begin), or is to: all but ref and seat are the caller's. */
int plk_sync_wait_on(SyncObject *self, struct plk_sync_wait *w, int32_t *result) PLK_HIDDEN;

/* Arguments (blocking=True, timeout=None) of acquire; in *seconds 0: do not wait, -1: for ever.  0; -1:
 * exception set. */
int plk_parse_seconds(PyObject *const *args, Py_ssize_t nargs, PyObject *names, double *seconds) PLK_HIDDEN;

/* Arguments (timeout=None) of wait; less than 0 seconds are none, as threading has it.  -1 in *seconds: for
 * ever.  0; -1: exception set. */
int plk_parse_wait(PyObject *const *args, Py_ssize_t nargs, PyObject *names, double *seconds) PLK_HIDDEN;

/* plk_sync_do while an exception may be set, which stays set. */
void plk_sync_undo(SyncObject *self, uint32_t what, uint64_t value) PLK_HIDDEN;

/* api->act, without the GIL.  What that returns; -1 with an exception set if it can't be done. */
int plk_sync_do(SyncObject *self, uint32_t what, uint64_t value) PLK_HIDDEN;

/* 1: the domain is open; 0: exception set. */
int plk_sync_open(SyncObject *self) PLK_HIDDEN;

/* The seat of this thread, registered if need be.  NULL: exception set. */
PLK_INLINE struct plk_seat *plk_sync_seat(SyncObject *self)
{
    return plk_seat_for(&self->ref.guard, self->domain);
}

/* It is a mutex, and this thread's; only while its domain is open. */
PLK_INLINE int plk_mutex_owned(const SyncObject *self)
{
    struct plk_seat *seat = plk_seat_of(self->ref.guard.domain);

    return seat != NULL && (PLK_LOAD(&self->ref.sync->word) & PLK_SYNC_STATE) ==
                               PLK_MUTEX_HOLDER(PLK_LOAD(&seat->vcpu->generation), seat->tag);
}

#endif
