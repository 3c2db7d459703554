/* fast/acquire.h - acquiring from Python; shared by the types of pylocks._lock.
 *
 * The uncontended path is inline and makes no call.  What lies behind it, in
 * acquire.c, releases the GIL before any wait, spin or sleep, for a sibling
 * thread may be the holder. */
#ifndef PLK_FAST_ACQUIRE_H
#define PLK_FAST_ACQUIRE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <pylocks.h>
#include <pylocks/recursive.h>

#define METHOD(f) ((PyCFunction)(void (*)(void))(f))

typedef struct {
    PyObject_HEAD
    struct plk_lock lock;
    PyObject *domain; /* the pylocks.Domain, kept alive for as long as this handle */
    PyObject *weakrefs;
    char refuses; /* 1: PLK_DEATH_REFUSED */
    char recursive; /* 1: what follows the cell is a plk_depth */
} LockObject;

/* The module's state: types that others are checked against. */
struct plk_types {
    PyObject *lock, *ordered, *recursive, *sync;
};

/* What becomes of an acquisition after a holder died inside. */
enum plk_death {
    PLK_DEATH_WARNED = 0,  /* OwnerDiedWarning, and the lock is held */
    PLK_DEATH_REFUSED = 1, /* OwnerDiedError, and it is not */
    PLK_DEATH_IGNORED = 2, /* held; whoever asks for this came because of the death */
};

extern PyType_Spec plk_lock_spec PLK_HIDDEN, plk_array_spec PLK_HIDDEN, plk_within_spec PLK_HIDDEN;
extern PyType_Spec plk_ordered_spec PLK_HIDDEN, plk_recursive_spec PLK_HIDDEN, plk_seat_spec PLK_HIDDEN;

/* Raise the exception that pylocks.errors makes of a refusal of the core. */
void plk_raise(int rc, PyObject *domain, const struct plk_lock *lock) PLK_HIDDEN;

/* Register this thread.  NULL: exception set. */
struct plk_seat *plk_first_seat(struct plk_lock *lock, PyObject *domain) PLK_HIDDEN;

/* Wait for the ticket of *w.  1: acquired, 0: timed out, -1: exception set. */
int plk_wait_in_queue(struct plk_wait *w, PyObject *domain) PLK_HIDDEN;

/* This thread may be Python's main one, which has to look at signals; when, while it waits. */
int plk_is_main_thread(void) PLK_HIDDEN;
uint64_t plk_next_pause(int main_thread) PLK_HIDDEN;

/* So many seconds from now, CLOCK_MONOTONIC ns. */
uint64_t plk_deadline(double seconds) PLK_HIDDEN;

/* What the two come to: seconds, 0: do not wait, -1: for ever.  0; -1: exception set. */
int plk_parse_timeout(int blocking, PyObject *timeout, double *found) PLK_HIDDEN;

/* Arguments (blocking=True, timeout=None) of acquire; -1: exception set. */
int plk_parse_acquire(PyObject *const *args, Py_ssize_t nargs, PyObject *names, int *blocking,
                      PyObject **timeout) PLK_HIDDEN;

/* The same where the first argument has another name. */
int plk_parse_acquire_as(const char *first, PyObject *const *args, Py_ssize_t nargs, PyObject *names,
                         int *blocking, PyObject **timeout) PLK_HIDDEN;

/* Who has just acquired the lock hears of the death of another inside.  1; -1: exception set. */
int plk_tell_of_death(struct plk_lock *lock, PyObject *domain, enum plk_death death) PLK_HIDDEN;

/* The holder of the lock, which has just acquired it, hears of the death of another
 * inside.  1: it keeps the lock; -1: exception set, and released. */
int plk_hear_of_death(struct plk_lock *lock, PyObject *domain, enum plk_death death) PLK_HIDDEN;

/* Acquire within so many seconds, of plk_parse_timeout.  1: acquired, 0: not, -1: exception set. */
int plk_acquire_for(struct plk_lock *lock, PyObject *domain, double seconds) PLK_HIDDEN;

/* acquire with those arguments.  1: acquired, 0: not, -1: exception set. */
int plk_acquire_with(struct plk_lock *lock, PyObject *domain, int blocking, PyObject *timeout) PLK_HIDDEN;

/* Of the Lock type, for those built on it. */
PyObject *plk_lock_acquire(LockObject *self, PyObject *const *args, Py_ssize_t nargs,
                           PyObject *names) PLK_HIDDEN;
PyObject *plk_lock_enter(LockObject *self, PyObject *unused) PLK_HIDDEN;
PyObject *plk_lock_release(LockObject *self, PyObject *unused) PLK_HIDDEN;

/* Of the RecursiveLock type.  The first and the second: 1: acquired, 0: not, -1: exception set. */
int plk_enter_again(LockObject *self) PLK_HIDDEN;
int plk_recursive_with(LockObject *self, int blocking, PyObject *timeout,
                       enum plk_death death) PLK_HIDDEN;
PyObject *plk_recursive_acquire(LockObject *self, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *names) PLK_HIDDEN;
PyObject *plk_recursive_enter(LockObject *self, PyObject *unused) PLK_HIDDEN;
PyObject *plk_recursive_release(LockObject *self, PyObject *unused) PLK_HIDDEN;

/* Before an acquisition of an OrderedLock; waits: 0 if it takes the lock only if it is free.
 * 0; -1: exception set. */
int plk_look_at_order(LockObject *self, int waits) PLK_HIDDEN;

/* Name -> address of the functions of pylocks.callables. */
PyObject *plk_callables(PyObject *module, PyObject *unused) PLK_HIDDEN;

/* Forget, in a forked child, which thread is Python's main one. */
void plk_forget_main_thread(void) PLK_HIDDEN;

PLK_INLINE struct plk_seat *plk_seat_for(struct plk_lock *lock, PyObject *domain)
{
    struct plk_seat *seat = plk_seat_of(lock->domain);

    return PLK_LIKELY(seat != NULL) ? seat : plk_first_seat(lock, domain);
}

/* What an acquisition has come to in the end, given its result. */
PLK_INLINE int plk_after(int rc, struct plk_lock *lock, PyObject *domain, enum plk_death death)
{
    if (PLK_LIKELY(rc != 1) || PLK_LIKELY(plk_entered(lock) == 0))
        return rc;
    return plk_hear_of_death(lock, domain, death);
}

/* 1: acquired, -1: exception set. */
PLK_INLINE int plk_acquire_blocking(struct plk_lock *lock, PyObject *domain)
{
    struct plk_seat *seat = plk_seat_for(lock, domain);
    struct plk_wait w;

    if (PLK_UNLIKELY(seat == NULL))
        return -1;
    return PLK_LIKELY(plk_take_seated(lock, seat, &w) == 0) ? 1 : plk_wait_in_queue(&w, domain);
}

#endif
