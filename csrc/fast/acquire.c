/* fast/acquire.c - the contended half of an acquisition from Python: the GIL,
 * signals, timeouts, errors. */
#include "fast/acquire.h"

/* How long the main thread waits before it looks at signals again.  A signal
 * that interrupts a sleep is seen at once; this is for one that came just
 * before the sleep, and for waits that do not sleep. */
#define SIGNAL_PAUSE_NS 50000000ull
#define NS_PER_S 1e9
#define LONGEST_TIMEOUT_S 3e9 /* about 95 years; no sum overflows */

/* ------------------------------------------------------------------ errors */

/* Raise the exception that pylocks.errors makes of a refusal of the core. */
void plk_raise(int rc, PyObject *domain, const struct plk_lock *lock)
{
    PyObject *errors = PyImport_ImportModule("pylocks.errors"), *made = NULL;

    if (errors != NULL)
        made = PyObject_CallMethod(errors, "lock_error", "iOK", -rc, domain,
                                   (unsigned long long)(lock->id - 1));
    if (made != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(made), made);
    Py_XDECREF(made);
    Py_XDECREF(errors);
}

int plk_tell_of_death(struct plk_lock *lock, PyObject *domain, enum plk_death death)
{
    PyObject *errors, *told = NULL;

    if (death == PLK_DEATH_IGNORED)
        return 1;
    errors = PyImport_ImportModule("pylocks.errors");
    if (errors != NULL)
        told = PyObject_CallMethod(errors, "owner_died", "OKi", domain, (unsigned long long)(lock->id - 1),
                                   death == PLK_DEATH_REFUSED);
    Py_XDECREF(errors);
    Py_XDECREF(told);
    return told != NULL ? 1 : -1;
}

int plk_hear_of_death(struct plk_lock *lock, PyObject *domain, enum plk_death death)
{
    PyObject *type, *value, *traceback;

    if (plk_tell_of_death(lock, domain, death) == 1)
        return 1;
    PyErr_Fetch(&type, &value, &traceback);
    plk_unlock(lock);
    PyErr_Restore(type, value, traceback);
    return -1;
}

/* ------------------------------------------------------------ registration */

/* Only Python's main thread handles signals; after a fork it is the thread that
 * forked. */
static __thread int main_thread_known PLK_TLS_MODEL; /* 1: it is, -1: it is not, 0: ask */

/* Not between taking a ticket and waiting: signal handlers run in here.  0, or -1
 * with the exception of one set. */
static int learn_main_thread(void)
{
    PyObject *threading = PyImport_ImportModule("threading"), *main = NULL, *ident = NULL;
    int rc = -1;

    if (threading != NULL && (main = PyObject_CallMethod(threading, "main_thread", NULL)) != NULL &&
        (ident = PyObject_GetAttrString(main, "ident")) != NULL) {
        main_thread_known = PyLong_AsUnsignedLong(ident) == PyThread_get_thread_ident() ? 1 : -1;
        rc = PyErr_Occurred() ? -1 : 0;
    }
    Py_XDECREF(ident);
    Py_XDECREF(main);
    Py_XDECREF(threading);
    return rc;
}

/* A thread that does not know looks at signals, which costs little. */
int plk_is_main_thread(void) { return main_thread_known >= 0; }

/* In the child, the thread that forked is the main one. */
void plk_forget_main_thread(void) { main_thread_known = 1; }

/* This thread's first use of the domain: registration may wait for the domain's
 * mutex, so not under the GIL.  A signal that came meanwhile is handled here, while
 * there is no ticket; its handler may fork or close the domain.  NULL: exception set. */
struct plk_seat *plk_first_seat(struct plk_lock *lock, PyObject *domain)
{
    struct plk_seat *seat;
    int rc;

    if (main_thread_known == 0 && learn_main_thread() != 0)
        return NULL;
    do {
        Py_BEGIN_ALLOW_THREADS
        rc = plk_first_use(lock->domain, &seat);
        Py_END_ALLOW_THREADS
        if (rc != 0) {
            plk_raise(rc, domain, lock);
            return NULL;
        }
        if (PyErr_CheckSignals() != 0)
            return NULL;
    } while ((seat = plk_seat_of(lock->domain)) == NULL);
    return seat;
}

/* ----------------------------------------------------------------- waiting */

uint64_t plk_next_pause(int main_thread)
{
    return main_thread ? plk_module_self.api->now() + SIGNAL_PAUSE_NS : PLK_FOREVER;
}

/* Leave the queue because of the exception that is set, and keep it set. */
static void leave_queue(struct plk_wait *w)
{
    PyObject *type, *value, *traceback;
    int rc;

    PyErr_Fetch(&type, &value, &traceback);
    w->deadline = 0;
    w->pause = PLK_FOREVER;
    w->calls_back = 0;
    Py_BEGIN_ALLOW_THREADS
    do
        rc = plk_wait_turn(w);
    while (rc == -EINTR);
    if (rc == 0)
        plk_unlock(PLK_WANTED(w));
    Py_END_ALLOW_THREADS
    PyErr_Restore(type, value, traceback);
}

/* Python code runs here and may take other locks, or fork: this wait is kept
 * safe.  0; -1: exception set; -ECHILD: this is a forked child, which has no
 * place in the queue (an exception may be set). */
static int look_at_signals(struct plk_wait *w)
{
    int rc;

    if (plk_module_self.api->nest(w) != 0) {
        PyErr_SetString(PyExc_RecursionError,
                        "too many signal handlers, each waiting for a pylocks lock, are nested in "
                        "this thread");
        return -1;
    }
    rc = PyErr_CheckSignals();
    return plk_module_self.api->unnest(w) != 0 ? -ECHILD : rc;
}

/* In a child forked by a signal handler during the wait: queue up as what it
 * is, another vCPU.  1: acquired, 0: queued, -1: exception set. */
static int queue_again(struct plk_wait *w, PyObject *domain)
{
    struct plk_lock *wanted = PLK_WANTED(w);
    struct plk_seat *seat = PyErr_Occurred() ? NULL : plk_seat_for(wanted, domain);
    uint64_t deadline = w->deadline;
    int rc;

    if (seat == NULL)
        return -1;
    rc = plk_take_seated(wanted, seat, w);
    w->deadline = deadline;
    return rc == 0;
}

/* Wait for the ticket of *w.  1: acquired, 0: timed out, -1: exception set. */
int plk_wait_in_queue(struct plk_wait *w, PyObject *domain)
{
    int main_thread = plk_is_main_thread(), rc;

    /* A sibling thread may be the holder, and needs the GIL; but then this does nothing.  Else
     * who drops it may have to wait for a busy sibling's switch interval with the turn come. */
    if (plk_wait_briefly(w))
        return 1;
    w->calls_back = w->gate != NULL;
    for (;;) {
        w->pause = plk_next_pause(main_thread);
        Py_BEGIN_ALLOW_THREADS
        rc = plk_wait_turn(w);
        Py_END_ALLOW_THREADS
        if (rc == 0)
            return 1;
        if (rc == -EAGAIN) { /* the GIL is back, and the turn about to come */
            if (plk_wait_briefly(w))
                return 1;
            continue;
        }
        if (rc == -ETIMEDOUT)
            return 0;
        if (rc != -EINTR) {
            plk_raise(rc, domain, PLK_WANTED(w));
            return -1;
        }
        rc = look_at_signals(w);
        if (rc == -ECHILD && (rc = queue_again(w, domain)) != 0)
            return rc;
        if (rc != 0) {
            leave_queue(w);
            return -1;
        }
    }
}

uint64_t plk_deadline(double seconds)
{
    return plk_module_self.api->now() + (uint64_t)(seconds * NS_PER_S);
}

static int acquire_try(struct plk_lock *lock, PyObject *domain)
{
    struct plk_seat *seat = plk_seat_for(lock, domain);

    return seat == NULL ? -1 : plk_trylock_seated(lock, seat) == 0;
}

static int acquire_timed(struct plk_lock *lock, PyObject *domain, double seconds)
{
    struct plk_seat *seat = plk_seat_for(lock, domain);
    uint64_t deadline;
    struct plk_wait w;
    int main_thread, rc;

    if (seat == NULL)
        return -1;
    /* Free: no call, and the GIL kept.  Not ahead of a ticket of our own. */
    if (seat->left_count == 0 && plk_trylock_seated(lock, seat) == 0)
        return 1;
    deadline = plk_deadline(seconds);
    main_thread = plk_is_main_thread();
    for (;;) {
        /* This may poll, without a ticket, until the pause. */
        Py_BEGIN_ALLOW_THREADS
        rc = plk_take_until(lock, &w, deadline, plk_next_pause(main_thread));
        Py_END_ALLOW_THREADS
        if (rc == 0)
            return 1;
        if (rc > 0)
            return plk_wait_in_queue(&w, domain);
        if (rc == -ETIMEDOUT)
            return 0;
        if (rc != -EINTR) {
            plk_raise(rc, domain, lock);
            return -1;
        }
        if (PyErr_CheckSignals() != 0)
            return -1;
    }
}

int plk_parse_timeout(int blocking, PyObject *timeout, double *found)
{
    double seconds = -1;

    if (timeout != NULL && timeout != Py_None) {
        seconds = PyFloat_AsDouble(timeout);
        if (seconds == -1 && PyErr_Occurred())
            return -1;
        if (!(seconds >= 0) && seconds != -1) {
            PyErr_Format(PyExc_ValueError, "timeout must be None, -1 or seconds >= 0, not %R", timeout);
            return -1;
        }
        if (seconds > LONGEST_TIMEOUT_S) {
            PyErr_Format(PyExc_OverflowError, "timeout of %R s is too large; use None to wait for ever",
                         timeout);
            return -1;
        }
        if (!blocking && seconds != -1) {
            PyErr_SetString(PyExc_ValueError, "a timeout has no meaning with blocking=False");
            return -1;
        }
    }
    *found = blocking ? seconds : 0;
    return 0;
}

int plk_acquire_for(struct plk_lock *lock, PyObject *domain, double seconds)
{
    if (seconds == 0)
        return acquire_try(lock, domain);
    return seconds == -1 ? plk_acquire_blocking(lock, domain) : acquire_timed(lock, domain, seconds);
}

/* Arguments of acquire: (blocking=True, timeout=None), as threading.Lock's. */
int plk_acquire_with(struct plk_lock *lock, PyObject *domain, int blocking, PyObject *timeout)
{
    double seconds;

    return plk_parse_timeout(blocking, timeout, &seconds) != 0 ? -1 : plk_acquire_for(lock, domain, seconds);
}

int plk_parse_acquire(PyObject *const *args, Py_ssize_t nargs, PyObject *names, int *blocking,
                         PyObject **timeout)
{
    return plk_parse_acquire_as("blocking", args, nargs, names, blocking, timeout);
}

int plk_parse_acquire_as(const char *first, PyObject *const *args, Py_ssize_t nargs, PyObject *names,
                         int *blocking, PyObject **timeout)
{
    Py_ssize_t i, count = names != NULL ? PyTuple_GET_SIZE(names) : 0;
    PyObject *given[2] = {NULL, NULL};

    if (nargs > 2) {
        PyErr_Format(PyExc_TypeError, "acquire() takes at most (%s=True, timeout=None)", first);
        return -1;
    }
    for (i = 0; i < nargs; i++)
        given[i] = args[i];
    for (i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        int which = PyUnicode_CompareWithASCIIString(name, first) == 0       ? 0
                    : PyUnicode_CompareWithASCIIString(name, "timeout") == 0 ? 1
                                                                             : -1;

        if (which < 0 || given[which] != NULL) {
            PyErr_Format(PyExc_TypeError, "acquire() got an unexpected or repeated argument %R", name);
            return -1;
        }
        given[which] = args[nargs + i];
    }
    *timeout = given[1];
    *blocking = given[0] == NULL ? 1 : PyObject_IsTrue(given[0]);
    return *blocking < 0 ? -1 : 0;
}
