/* fast/rwlock.c - the types pylocks._lock.RWLock and Side, one of its two sides: to read and to write. */
#include "fast/sync.h"

typedef struct {
    PyObject_HEAD
    SyncObject *lock;
    double seconds; /* how long `with` waits: -1, for ever */
    uint32_t want;  /* enum plk_want */
} SideObject;

/* 0; -1: exception set. */
static int side_give(SideObject *self)
{
    int rc = plk_sync_open(self->lock) ? plk_sync_do(self->lock, PLK_ACT_UNLOCK, self->want) : -1;

    if (PLK_UNLIKELY(rc != 0) && !PyErr_Occurred())
        plk_raise(rc, self->lock->domain, &self->lock->ref.guard);
    return rc == 0 ? 0 : -1;
}

/* 1; -1: exception set, and let go of. */
static int hear_of_death(SideObject *self)
{
    PyObject *errors = PyImport_ImportModule("pylocks.errors"), *told = NULL;

    if (errors != NULL)
        told = PyObject_CallMethod(errors, "writer_died", "OK", self->lock->domain,
                                   (unsigned long long)(self->lock->ref.guard.id - 1));
    Py_XDECREF(errors);
    Py_XDECREF(told);
    if (told != NULL)
        return 1;
    plk_sync_undo(self->lock, PLK_ACT_UNLOCK, self->want);
    return -1;
}

/* 1: entered; 0: timed out; -1: exception set. */
static int side_take(SideObject *self, double seconds)
{
    SyncObject *lock = self->lock;
    struct plk_seat *seat;
    int32_t result;
    int rc;

    if (!plk_sync_open(lock) || (seat = plk_sync_seat(lock)) == NULL)
        return -1;
    rc = plk_sync_wait_for(lock, self->want, seconds, &result);
    if (rc == 0 && seconds == 0) { /* who was inside may be dead */
        int again;

        Py_BEGIN_ALLOW_THREADS
        again = PLK_SYNC_API->look(&lock->ref, seat);
        Py_END_ALLOW_THREADS
        if (again)
            rc = plk_sync_wait_for(lock, self->want, 0, &result);
    }
    if (rc < 0 && result >= 0)
        plk_sync_undo(lock, PLK_ACT_UNLOCK, self->want);
    return rc == 1 && result == PLK_OWNER_DIED ? hear_of_death(self) : rc;
}

static PyObject *side_acquire(SideObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    double seconds;
    int rc;

    if (plk_parse_seconds(args, nargs, names, &seconds) != 0)
        return NULL;
    rc = side_take(self, seconds);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

static PyObject *side_release(SideObject *self, PyObject *unused)
{
    (void)unused;
    if (side_give(self) != 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *side_enter(SideObject *self, PyObject *unused)
{
    int rc = side_take(self, self->seconds);

    (void)unused;
    if (rc > 0)
        return Py_NewRef((PyObject *)self->lock);
    if (rc == 0) {
        PyObject *seconds = PyFloat_FromDouble(self->seconds);

        if (seconds != NULL)
            PyErr_Format(PyExc_TimeoutError, "%R was not acquired within %S s", (PyObject *)self->lock, seconds);
        Py_XDECREF(seconds);
    }
    return NULL;
}

static PyObject *side_exit(SideObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    (void)args;
    (void)nargs;
    return side_release(self, NULL);
}

/* Side(lock, whether to write, seconds=-1) */
static PyObject *side_make(PyTypeObject *type, PyObject *lock, uint32_t want, double seconds)
{
    SideObject *self = (SideObject *)type->tp_alloc(type, 0);

    if (self == NULL)
        return NULL;
    self->lock = (SyncObject *)Py_NewRef(lock);
    self->want = want;
    self->seconds = seconds;
    return (PyObject *)self;
}

static PyObject *side_within(SideObject *self, PyObject *seconds)
{
    double value = PyFloat_AsDouble(seconds);

    if (value == -1 && PyErr_Occurred())
        return NULL;
    if (!(value >= 0))
        return PyErr_Format(PyExc_ValueError, "within() needs seconds >= 0, not %R", seconds);
    if (plk_parse_timeout(1, seconds, &value) != 0)
        return NULL;
    return side_make(Py_TYPE(self), (PyObject *)self->lock, self->want, value);
}

static PyObject *side_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    struct plk_types *types = PyType_GetModuleState(type);
    PyObject *lock;
    int writes;

    if (types == NULL)
        return NULL;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0)
        return PyErr_Format(PyExc_TypeError, "Side(lock, writes) takes no keywords");
    if (!PyArg_ParseTuple(args, "O!p:Side", types->sync, &lock, &writes))
        return NULL;
    if (((SyncObject *)lock)->ref.kind != PLK_KIND_rwlock)
        return PyErr_Format(PyExc_TypeError, "%R has no sides", lock);
    return side_make(type, lock, writes ? PLK_WANT_WRITE : PLK_WANT_READ, -1);
}

static int side_traverse(SideObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)self->lock);
    return 0;
}

static void side_dealloc(SideObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->lock);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef side_methods[] = {
    {"acquire", METHOD(side_acquire), METH_FASTCALL | METH_KEYWORDS,
     "acquire($self, /, blocking=True, timeout=None)\n--\n\n"
     "Enter; True, or False if the timeout, in seconds, came first.  Raises AlreadyOwnerError if this\n"
     "thread is inside already, unless it reads and wants to read once more, ClosedError,\n"
     "DomainFullError, and whatever a signal handler raises; issues OwnerDiedWarning after a writer's\n"
     "death inside."},
    {"release", METHOD(side_release), METH_NOARGS,
     "release($self, /)\n--\n\nLeave; NotOwnerError if this thread is not inside."},
    {"within", METHOD(side_within), METH_O,
     "within($self, seconds, /)\n--\n\n`with` this enters in that time, or raises TimeoutError."},
    {"__enter__", METHOD(side_enter), METH_NOARGS, "__enter__($self, /)\n--\n\nacquire(); the RWLock."},
    {"__exit__", METHOD(side_exit), METH_FASTCALL, "__exit__($self, /, *args)\n--\n\nrelease()."},
    {NULL, NULL, 0, NULL}};

static PyType_Slot side_slots[] = {{Py_tp_doc, "One side of an RWLock: to read, or to write."},
                                   {Py_tp_new, side_new},
                                   {Py_tp_dealloc, side_dealloc},
                                   {Py_tp_traverse, side_traverse},
                                   {Py_tp_methods, side_methods},
                                   {0, NULL}};

PyType_Spec plk_side_spec = {"pylocks._lock.Side", sizeof(SideObject), 0,
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, side_slots};

/* ------------------------------------------------------------------ the lock */

static PyObject *rwlock_get_owner_died(SyncObject *self, void *unused)
{
    (void)unused;
    return plk_sync_open(self) ? PyBool_FromLong((PLK_LOAD(&self->ref.sync->word) & PLK_SYNC_OWNER_DIED) != 0) : NULL;
}

static PyObject *rwlock_mark_consistent(SyncObject *self, PyObject *unused)
{
    int rc = plk_sync_open(self) ? plk_sync_do(self, PLK_ACT_MEND, PLK_WANT_WRITE) : -1;

    (void)unused;
    if (rc == 0)
        Py_RETURN_NONE;
    if (!PyErr_Occurred())
        plk_raise(rc, self->domain, &self->ref.guard);
    return NULL;
}

static PyMethodDef rwlock_methods[] = {
    {"mark_consistent", METHOD(rwlock_mark_consistent), METH_NOARGS,
     "mark_consistent($self, /)\n--\n\n"
     "What it protects is in order again after a writer died; NotOwnerError if this thread does not write."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef rwlock_getset[] = {
    {"owner_died", (getter)rwlock_get_owner_died, NULL,
     "True from the death of a writer inside until mark_consistent().", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot rwlock_slots[] = {{Py_tp_doc, "A lock for readers and writers; base of pylocks.RWLock."},
                                     {Py_tp_methods, rwlock_methods},
                                     {Py_tp_getset, rwlock_getset},
                                     {0, NULL}};

PyType_Spec plk_rwlock_spec = {"pylocks._lock.RWLock", sizeof(SyncObject), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, rwlock_slots};
