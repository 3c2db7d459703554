/* fast/semaphore.c - the type pylocks._lock.Semaphore, of semaphores of three kinds: any permit may be given
 * back by anybody (semaphore, bounded), or it is its thread's (owned). */
#include "fast/sync.h"

static int take_slowly(SyncObject *self, double seconds)
{
    struct plk_seat *seat;
    int32_t result;
    int again;

    if (seconds != 0 || self->ref.kind == PLK_KIND_owned)
        return plk_sync_wait_for(self, 0, seconds, &result);
    seat = plk_sync_seat(self);
    if (seat == NULL)
        return -1;
    Py_BEGIN_ALLOW_THREADS
    again = PLK_SYNC_API->look(&self->ref, seat) && plk_permit_take(self->ref.sync, 0) == 0;
    Py_END_ALLOW_THREADS
    return again;
}

int plk_semaphore_take(SyncObject *self, double seconds)
{
    int rc;

    if (PLK_UNLIKELY(!plk_sync_open(self)))
        return -1;
    if (PLK_LIKELY(self->ref.kind != PLK_KIND_owned) && PLK_LIKELY(plk_permit_take(self->ref.sync, 0) == 0))
        return 1;
    rc = take_slowly(self, seconds);
    if (rc == 0 && seconds == 0 && self->ref.kind == PLK_KIND_owned) {
        struct plk_seat *seat = plk_sync_seat(self);
        int32_t result;
        int again;

        if (seat == NULL)
            return -1;
        Py_BEGIN_ALLOW_THREADS
        again = PLK_SYNC_API->look(&self->ref, seat);
        Py_END_ALLOW_THREADS
        if (again)
            rc = plk_sync_wait_for(self, 0, 0, &result);
    }
    return rc;
}

static int give_raises(SyncObject *self, int rc, uint64_t n)
{
    if (rc == -EOVERFLOW && self->ref.kind == PLK_KIND_bounded)
        PyErr_Format(PyExc_ValueError, "%R was released %llu times too often: it has %llu permits at most",
                     self, (unsigned long long)(plk_permits(self->ref.sync) + n - self->ref.sync->limit),
                     (unsigned long long)self->ref.sync->limit);
    else if (rc == -EOVERFLOW)
        PyErr_Format(PyExc_OverflowError, "%R can't have more than %llu permits", self, PLK_PERMITS_MOST);
    else if (!PyErr_Occurred())
        plk_raise(rc, self->domain, &self->ref.guard);
    return -1;
}

static int give(SyncObject *self, uint64_t n)
{
    uint64_t most = self->ref.kind == PLK_KIND_bounded ? self->ref.sync->limit : PLK_PERMITS_MOST;
    int rc;

    if (PLK_UNLIKELY(!plk_sync_open(self)))
        return -1;
    if (PLK_UNLIKELY(self->ref.kind == PLK_KIND_owned))
        rc = plk_sync_do(self, PLK_ACT_GIVE, n);
    else {
        /* To call somebody takes a seat: without one, nothing is given. */
        if (PLK_UNLIKELY((PLK_LOAD(&self->ref.sync->word) & PLK_SYNC_WAITERS) != 0) && plk_sync_seat(self) == NULL)
            return -1;
        rc = plk_permit_give(self->ref.sync, n, most);
        if (PLK_UNLIKELY(rc == 1))
            rc = plk_sync_do(self, PLK_ACT_SETTLE, 0);
    }
    return PLK_LIKELY(rc == 0) ? 0 : give_raises(self, rc, n);
}

int plk_semaphore_give(SyncObject *self) { return give(self, 1); }

static PyObject *semaphore_acquire(SyncObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return plk_sync_acquire(self, args, nargs, names, plk_semaphore_take);
}

static PyObject *semaphore_acquire_block(SyncObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return plk_sync_acquire_block(self, args, nargs, names, plk_semaphore_take);
}

static PyObject *semaphore_release(SyncObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    Py_ssize_t count = names != NULL ? PyTuple_GET_SIZE(names) : 0;
    long long n = 1;

    if (nargs + count > 1 ||
        (count == 1 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "n") != 0)) {
        PyErr_SetString(PyExc_TypeError, "release() takes at most (n=1)");
        return NULL;
    }
    if (nargs + count == 1) {
        n = PyLong_AsLongLong(args[0]);
        if (n == -1 && PyErr_Occurred())
            return NULL;
        if (n < 1) {
            PyErr_Format(PyExc_ValueError, "n must be one or more, not %lld", n);
            return NULL;
        }
    }
    if (give(self, (uint64_t)n) != 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *semaphore_enter(SyncObject *self, PyObject *unused)
{
    (void)unused;
    if (plk_semaphore_take(self, -1) < 0)
        return NULL;
    Py_RETURN_TRUE;
}

static PyObject *semaphore_exit(SyncObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    (void)args;
    (void)nargs;
    if (give(self, 1) != 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *semaphore_get_value(SyncObject *self, void *unused)
{
    (void)unused;
    return plk_sync_open(self) ? PyLong_FromUnsignedLongLong(plk_permits(self->ref.sync)) : NULL;
}

static PyMethodDef semaphore_methods[] = {
    {"acquire", METHOD(semaphore_acquire), METH_FASTCALL | METH_KEYWORDS,
     "acquire($self, /, blocking=True, timeout=None)\n--\n\n"
     "Take a permit; True if taken.\n\n"
     "timeout is in seconds, None for ever; when it passes, False is returned.  Who waits is woken\n"
     "in order of arrival; who comes while a permit is there may be quicker, but not for more than a\n"
     "fraction of a millisecond.  Raises ClosedError, DomainFullError, and whatever a signal\n"
     "handler raises."},
    {"_acquire_block", METHOD(semaphore_acquire_block), METH_FASTCALL | METH_KEYWORDS,
     "_acquire_block($self, /, block=True, timeout=None)\n--\n\n"
     "True if taken; without `block`, or when `timeout` seconds have passed, False."},
    {"release", METHOD(semaphore_release), METH_FASTCALL | METH_KEYWORDS,
     "release($self, /, n=1)\n--\n\n"
     "Give n permits.  ValueError if n is less than 1, or a BoundedSemaphore would have more than it\n"
     "began with; OverflowError beyond 2147483647; of owned permits, NotOwnerError if this thread does\n"
     "not have so many."},
    {"__enter__", METHOD(semaphore_enter), METH_NOARGS, "__enter__($self, /)\n--\n\nacquire()."},
    {"__exit__", METHOD(semaphore_exit), METH_FASTCALL, "__exit__($self, /, *args)\n--\n\nrelease()."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef semaphore_getset[] = {
    {"value", (getter)semaphore_get_value, NULL,
     "How many permits there are now; may be out of date as soon as it is read.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot semaphore_slots[] = {{Py_tp_doc, "Permits in a domain; base of pylocks.Semaphore."},
                                        {Py_tp_methods, semaphore_methods},
                                        {Py_tp_getset, semaphore_getset},
                                        {0, NULL}};

PyType_Spec plk_semaphore_spec = {"pylocks._lock.Semaphore", sizeof(SyncObject), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, semaphore_slots};
