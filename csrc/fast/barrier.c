/* fast/barrier.c - the type pylocks._lock.Barrier. */
#include "fast/sync.h"

static PyObject *broken(SyncObject *self)
{
    PyObject *errors = PyImport_ImportModule("pylocks.errors"), *made = NULL;

    if (errors != NULL)
        made = PyObject_CallMethod(errors, "broken_barrier", "OK", (PyObject *)self,
                                   (unsigned long long)PLK_BARRIER_VICTIM(self->ref.sync));
    if (made != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(made), made);
    Py_XDECREF(made);
    Py_XDECREF(errors);
    return NULL;
}

/* The last of all is here, and acts before they go on; in C, for an exception between two bytecodes would
 * leave the others waiting. */
static PyObject *act(SyncObject *self, PyObject *action)
{
    PyObject *done = PyObject_CallNoArgs(action);
    int rc;

    if (done == NULL) {
        plk_sync_undo(self, PLK_ACT_BREAK, 0);
        return NULL;
    }
    Py_DECREF(done);
    rc = plk_sync_do(self, PLK_ACT_PASS, 0);
    if (rc == 0)
        return PyLong_FromUnsignedLongLong(self->ref.sync->limit - 1);
    if (rc == -EPIPE)
        return broken(self);
    if (!PyErr_Occurred())
        plk_raise(rc, self->domain, &self->ref.guard);
    return NULL;
}

/* _wait(timeout, action or None) */
static PyObject *barrier_wait(SyncObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    struct plk_sync_wait w = {.ref = &self->ref, .deadline = PLK_FOREVER};
    int32_t result;
    double seconds;
    int rc;

    if (nargs != 2)
        return PyErr_Format(PyExc_TypeError, "_wait(timeout, action)");
    if (plk_parse_wait(args, 1, NULL, &seconds) != 0 || !plk_sync_open(self))
        return NULL;
    w.want = args[1] != Py_None;
    w.seat = plk_sync_seat(self);
    if (w.seat == NULL)
        return NULL;
    if (seconds >= 0)
        w.deadline = seconds > 0 ? plk_deadline(seconds) : 1;
    rc = plk_sync_wait_on(self, &w, &result);
    if (rc < 0 && result == PLK_BARRIER_ACT)
        plk_sync_undo(self, PLK_ACT_BREAK, 0);
    if (rc < 0)
        return NULL;
    if (rc == 0 || result == PLK_BARRIER_BREACH)
        return broken(self);
    return result == PLK_BARRIER_ACT ? act(self, args[1]) : PyLong_FromLong(result);
}

static PyObject *change(SyncObject *self, uint32_t what)
{
    int rc;

    if (!plk_sync_open(self))
        return NULL;
    rc = plk_sync_do(self, what, 0);
    if (rc == 0)
        Py_RETURN_NONE;
    if (!PyErr_Occurred())
        plk_raise(rc, self->domain, &self->ref.guard);
    return NULL;
}

static PyObject *barrier_reset(SyncObject *self, PyObject *unused)
{
    (void)unused;
    return change(self, PLK_ACT_RESET);
}

static PyObject *barrier_abort(SyncObject *self, PyObject *unused)
{
    (void)unused;
    return change(self, PLK_ACT_BREAK);
}

static PyObject *barrier_get_parties(SyncObject *self, void *unused)
{
    (void)unused;
    return plk_sync_open(self) ? PyLong_FromUnsignedLongLong(PLK_LOAD(&self->ref.sync->limit)) : NULL;
}

static PyObject *barrier_get_broken(SyncObject *self, void *unused)
{
    (void)unused;
    return plk_sync_open(self) ? PyBool_FromLong((PLK_LOAD(&self->ref.sync->word) & PLK_BARRIER_BROKEN) != 0) : NULL;
}

static PyMethodDef barrier_methods[] = {
    {"_wait", METHOD(barrier_wait), METH_FASTCALL, "_wait($self, timeout, action, /)\n--\n\nwait(), with nothing left out."},
    {"reset", METHOD(barrier_reset), METH_NOARGS,
     "reset($self, /)\n--\n\nAs new; who waits now gets a threading.BrokenBarrierError."},
    {"abort", METHOD(barrier_abort), METH_NOARGS,
     "abort($self, /)\n--\n\nBreak it: who waits now, or comes before reset(), gets a threading.BrokenBarrierError."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef barrier_getset[] = {
    {"parties", (getter)barrier_get_parties, NULL, "How many go on together.", NULL},
    {"broken", (getter)barrier_get_broken, NULL, "True until reset(), once a wait has failed or a waiter has died.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot barrier_slots[] = {{Py_tp_doc, "Threads that wait for each other; base of pylocks.Barrier."},
                                      {Py_tp_methods, barrier_methods},
                                      {Py_tp_getset, barrier_getset},
                                      {0, NULL}};

PyType_Spec plk_barrier_spec = {"pylocks._lock.Barrier", sizeof(SyncObject), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, barrier_slots};
