/* fast/sync.c - the type pylocks._lock.Sync, base of semaphores, events and their like; and how its
 * objects are waited for: the GIL, signals, errors. */
#include "fast/sync.h"

int plk_sync_open(SyncObject *self)
{
    if (PLK_LIKELY(PLK_LOAD(&self->ref.guard.domain->id) != PLK_CLOSED_DOMAIN))
        return 1;
    plk_raise(-ESHUTDOWN, self->domain, &self->ref.guard);
    return 0;
}

int plk_sync_do(SyncObject *self, uint32_t what, uint64_t value)
{
    struct plk_seat *seat = plk_sync_seat(self);
    int rc;

    if (seat == NULL)
        return -1;
    Py_BEGIN_ALLOW_THREADS
    rc = PLK_SYNC_API->act(&self->ref, seat, what, value);
    Py_END_ALLOW_THREADS
    return rc;
}

void plk_not_owner(PyObject *object)
{
    PyObject *type = PyObject_GetAttrString(object, "_not_owner"), *errors = NULL;

    if (type == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        if ((errors = PyImport_ImportModule("pylocks.errors")) != NULL)
            type = PyObject_GetAttrString(errors, "NotOwnerError");
    }
    if (type != NULL)
        PyErr_Format(type, "%R is not held by this thread; only the thread that acquired it can release it", object);
    Py_XDECREF(type);
    Py_XDECREF(errors);
}

void plk_sync_undo(SyncObject *self, uint32_t what, uint64_t value)
{
    PyObject *type, *exception, *traceback;

    PyErr_Fetch(&type, &exception, &traceback);
    plk_sync_do(self, what, value);
    PyErr_Clear();
    PyErr_Restore(type, exception, traceback);
}

int plk_parse_wait(PyObject *const *args, Py_ssize_t nargs, PyObject *names, double *seconds)
{
    Py_ssize_t count = names != NULL ? PyTuple_GET_SIZE(names) : 0;
    double value;

    *seconds = -1;
    if (nargs + count > 1 ||
        (count == 1 && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "timeout") != 0)) {
        PyErr_SetString(PyExc_TypeError, "wait() takes at most (timeout=None)");
        return -1;
    }
    if (nargs + count == 0 || args[0] == Py_None)
        return 0;
    value = PyFloat_AsDouble(args[0]);
    if (value == -1 && PyErr_Occurred())
        return -1;
    if (value < 0) {
        *seconds = 0;
        return 0;
    }
    return plk_parse_timeout(1, args[0], seconds);
}

static PyObject *answer(int taken) { return taken < 0 ? NULL : PyBool_FromLong(taken); }

int plk_parse_seconds(PyObject *const *args, Py_ssize_t nargs, PyObject *names, double *seconds)
{
    PyObject *timeout = NULL;
    int blocking;

    *seconds = -1;
    if (PLK_LIKELY(nargs == 0 && names == NULL))
        return 0;
    if (plk_parse_acquire(args, nargs, names, &blocking, &timeout) != 0)
        return -1;
    return plk_parse_timeout(blocking, timeout, seconds);
}

PyObject *plk_sync_acquire(SyncObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names,
                           plk_sync_taker *take)
{
    double seconds;

    return plk_parse_seconds(args, nargs, names, &seconds) != 0 ? NULL : answer(take(self, seconds));
}

#define AS_GOOD_AS_FOR_EVER_S 1e9

PyObject *plk_sync_acquire_block(SyncObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names,
                                 plk_sync_taker *take)
{
    PyObject *timeout = NULL;
    double seconds = -1;
    int block;

    if (PLK_LIKELY(nargs == 0 && names == NULL))
        return answer(take(self, -1));
    if (plk_parse_acquire_as("block", args, nargs, names, &block, &timeout) != 0)
        return NULL;
    if (block && timeout != NULL && timeout != Py_None) {
        seconds = PyFloat_AsDouble(timeout);
        if (seconds == -1 && PyErr_Occurred())
            return NULL;
        if (seconds < 0)
            seconds = 0;
        else if (seconds > AS_GOOD_AS_FOR_EVER_S)
            seconds = -1;
        else if (plk_parse_timeout(1, timeout, &seconds) != 0)
            return NULL;
    }
    return answer(take(self, block ? seconds : 0));
}

/* ----------------------------------------------------------------- waiting */

/* Give up because of the exception that is set, and keep it set.  Nonzero: the turn had come. */
static int give_up(struct plk_sync_wait *w)
{
    PyObject *type, *value, *traceback;
    int over;

    PyErr_Fetch(&type, &value, &traceback);
    Py_BEGIN_ALLOW_THREADS
    over = PLK_SYNC_API->leave(w);
    Py_END_ALLOW_THREADS
    PyErr_Restore(type, value, traceback);
    return over;
}

/* Python code runs here, and may use this object, or others, or fork.  0; -1: exception set. */
static int look_at_signals(SyncObject *self, struct plk_sync_wait *w)
{
    PyObject *type, *value, *traceback;
    int rc, back;

    Py_BEGIN_ALLOW_THREADS
    PLK_SYNC_API->aside(w);
    Py_END_ALLOW_THREADS
    rc = PyErr_CheckSignals();
    PyErr_Fetch(&type, &value, &traceback);
    Py_BEGIN_ALLOW_THREADS
    back = PLK_SYNC_API->back(w);
    Py_END_ALLOW_THREADS
    PyErr_Restore(type, value, traceback);
    if (back == -ECHILD && rc == 0) { /* forked: as what it is, another vCPU */
        w->seat = plk_sync_seat(self);
        rc = w->seat == NULL ? -1 : 0;
    }
    return rc;
}

int plk_sync_wait_on(SyncObject *self, struct plk_sync_wait *w, int32_t *result)
{
    int rc, main_thread = plk_is_main_thread();

    *result = -1;
    for (;;) {
        w->pause = plk_next_pause(main_thread);
        Py_BEGIN_ALLOW_THREADS
        rc = PLK_SYNC_API->wait(w);
        Py_END_ALLOW_THREADS
        if (PLK_LIKELY(rc == 0)) {
            *result = w->result;
            return 1;
        }
        if (rc == -ETIMEDOUT)
            return 0;
        if (rc != -EINTR) {
            plk_raise(rc, self->domain, &self->ref.guard);
            return -1;
        }
        if (main_thread && look_at_signals(self, w) != 0) {
            if (w->node != NULL && give_up(w))
                *result = w->result;
            return -1;
        }
    }
}

int plk_sync_wait_for(SyncObject *self, uint64_t want, double seconds, int32_t *result)
{
    struct plk_sync_wait w = {.ref = &self->ref, .want = want, .deadline = PLK_FOREVER};

    *result = -1;
    w.seat = plk_sync_seat(self);
    if (w.seat == NULL)
        return -1;
    if (seconds >= 0)
        w.deadline = seconds > 0 ? plk_deadline(seconds) : 0;
    return plk_sync_wait_on(self, &w, result);
}

/* -------------------------------------------------------------- the type */

/* Sync(domain, address of its plk_domain, index of the cell, kind) */
static PyObject *sync_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *domain, *address;
    unsigned int index, kind;
    SyncObject *self;
    void *target;
    int rc;

    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "Sync(domain, address, index, kind) takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OO!II:Sync", &domain, &PyLong_Type, &address, &index, &kind))
        return NULL;
    target = PyLong_AsVoidPtr(address);
    if (target == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "Sync: the address of a domain can't be 0");
        return NULL;
    }
    self = (SyncObject *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->domain = Py_NewRef(domain);
    rc = PLK_SYNC_API->init(&self->ref, target, index, kind);
    if (rc == 0)
        return (PyObject *)self;
    self->ref.guard.id = (uint64_t)index + 1;
    plk_raise(rc, domain, &self->ref.guard);
    Py_DECREF(self);
    return NULL;
}

static int sync_traverse(SyncObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->domain);
    return 0;
}

static void sync_dealloc(SyncObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    Py_CLEAR(self->domain);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *sync_get_waiters(SyncObject *self, void *unused)
{
    (void)unused;
    return plk_sync_open(self) ? PyLong_FromUnsignedLong(PLK_LOAD(&self->ref.sync->queued)) : NULL;
}

static PyObject *sync_get_index(SyncObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(self->ref.guard.id - 1);
}

static PyGetSetDef sync_getset[] = {
    {"waiters", (getter)sync_get_waiters, NULL,
     "How many threads wait, in all processes; may be out of date as soon as it is read.", NULL},
    {"index", (getter)sync_get_index, NULL, "Index of the object's cell in its domain.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyMemberDef sync_members[] = {
    {"domain", T_OBJECT, offsetof(SyncObject, domain), READONLY, "The Domain the object lies in."},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(SyncObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL}};

static PyType_Slot sync_slots[] = {{Py_tp_doc, "What threads of many processes wait for; base of the kinds."},
                                   {Py_tp_new, sync_new},
                                   {Py_tp_dealloc, sync_dealloc},
                                   {Py_tp_traverse, sync_traverse},
                                   {Py_tp_getset, sync_getset},
                                   {Py_tp_members, sync_members},
                                   {0, NULL}};

PyType_Spec plk_sync_spec = {"pylocks._lock.Sync", sizeof(SyncObject), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, sync_slots};
