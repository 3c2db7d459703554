/* fast/condition.c - the type pylocks._lock.Condition.
 *
 * Who waits queues before it lets go of its lock; so a notify by whoever has the lock next finds it.  Whatever
 * ends the wait, an exception too, the lock is taken again to its former depth first, and signal handlers
 * that raise meanwhile can't prevent that: what wait() raises or returns, its caller has the lock. */
#include "fast/sync.h"

typedef struct {
    SyncObject sync;
    PyObject *lock; /* a LockObject, or a SyncObject of kind mutex or rmutex; NULL until it is paired */
    char is_mutex;
} ConditionObject;

#define LOCK_OF(self) ((LockObject *)(self)->lock)
#define MUTEX_OF(self) ((SyncObject *)(self)->lock)

/* ------------------------------------------------------------------- its lock */

/* 1; 0: exception set. */
static int has_lock(ConditionObject *self)
{
    if (self->lock == NULL) {
        PyErr_SetString(PyExc_ValueError, "the condition has no lock yet");
        return 0;
    }
    if (self->is_mutex ? plk_mutex_owned(MUTEX_OF(self)) : plk_owns(&LOCK_OF(self)->lock))
        return 1;
    if (self->is_mutex)
        plk_not_owner(self->lock);
    else
        plk_raise(-EPERM, LOCK_OF(self)->domain, &LOCK_OF(self)->lock);
    return 0;
}

/* In full; without the GIL.  How often it was held beyond the first time. */
static uint32_t let_go(ConditionObject *self, struct plk_seat *seat)
{
    struct plk_lock *lock = &LOCK_OF(self)->lock;
    uint32_t again = 0;

    if (self->is_mutex) {
        if (MUTEX_OF(self)->ref.kind == PLK_KIND_rmutex)
            again = (uint32_t)PLK_LOAD(&MUTEX_OF(self)->ref.sync->data[0]);
        if (plk_mutex_give(MUTEX_OF(self)->ref.sync) == 1)
            PLK_SYNC_API->act(&MUTEX_OF(self)->ref, seat, PLK_ACT_SETTLE, 0);
        return again;
    }
    if (LOCK_OF(self)->recursive) {
        again = PLK_LOAD(plk_again(lock));
        plk_first(lock);
    }
    plk_unlock(lock);
    return again;
}

/* It will never come, whoever waits how long.  An exception is set. */
static int is_final(void)
{
    PyObject *errors, *base = NULL, *type, *value, *traceback;
    int final = 1;

    PyErr_Fetch(&type, &value, &traceback);
    errors = PyImport_ImportModule("pylocks.errors");
    if (errors != NULL)
        base = PyObject_GetAttrString(errors, "PylocksError");
    if (base != NULL)
        final = PyErr_GivenExceptionMatches(type, base);
    PyErr_Clear();
    Py_XDECREF(base);
    Py_XDECREF(errors);
    PyErr_Restore(type, value, traceback);
    return final;
}

/* Have the lock again, whatever handlers raise meanwhile: the first of that, or what was set before, is set
 * afterwards.  0; -1: exception set. */
static int take_back(ConditionObject *self, uint32_t again)
{
    struct plk_lock *lock = &LOCK_OF(self)->lock;
    PyObject *type, *value, *traceback;
    int rc;

    PyErr_Fetch(&type, &value, &traceback);
    for (;;) {
        rc = self->is_mutex ? plk_mutex_enter(MUTEX_OF(self), -1)
                            : plk_acquire_blocking(lock, LOCK_OF(self)->domain);
        if (rc == 1 || is_final())
            break;
        if (type == NULL)
            PyErr_Fetch(&type, &value, &traceback);
        else
            PyErr_Clear();
    }
    if (rc == 1 && self->is_mutex && MUTEX_OF(self)->ref.kind == PLK_KIND_rmutex)
        PLK_STORE(&MUTEX_OF(self)->ref.sync->data[0], again);
    if (rc == 1 && !self->is_mutex && LOCK_OF(self)->recursive)
        PLK_STORE(plk_again(lock), again);
    /* It has the lock and keeps it: who is refused would otherwise leave a `with` without it. */
    if (rc == 1 && !self->is_mutex && type == NULL && plk_entered(lock) == PLK_OWNER_DIED)
        rc = plk_tell_of_death(lock, LOCK_OF(self)->domain, LOCK_OF(self)->refuses);
    if (type != NULL) {
        PyErr_Clear();
        PyErr_Restore(type, value, traceback);
        rc = -1;
    }
    return rc == 1 ? 0 : -1;
}

/* -------------------------------------------------------------------- methods */

static PyObject *condition_wait(ConditionObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    struct plk_sync_wait w = {.ref = &self->sync.ref, .deadline = PLK_FOREVER};
    uint32_t again = 0;
    int32_t result;
    double seconds;
    int rc;

    if (plk_parse_wait(args, nargs, names, &seconds) != 0 || !plk_sync_open(&self->sync) || !has_lock(self))
        return NULL;
    w.seat = plk_sync_seat(&self->sync);
    if (w.seat == NULL)
        return NULL;
    if (seconds >= 0)
        w.deadline = seconds > 0 ? plk_deadline(seconds) : 1;
    Py_BEGIN_ALLOW_THREADS
    rc = PLK_SYNC_API->begin(&w);
    if (rc == 1)
        again = let_go(self, w.seat);
    Py_END_ALLOW_THREADS
    if (rc == -ETIMEDOUT) /* somebody keeps the guard: it never let go */
        Py_RETURN_FALSE;
    if (rc != 1) {
        plk_raise(rc, self->sync.domain, &self->sync.ref.guard);
        return NULL;
    }
    rc = plk_sync_wait_on(&self->sync, &w, &result);
    if (rc < 0 && result >= 0) /* told, and about to raise: somebody else can use it */
        plk_sync_undo(&self->sync, PLK_ACT_NOTIFY, 1);
    return take_back(self, again) != 0 ? NULL : PyBool_FromLong(rc);
}

static PyObject *notify(ConditionObject *self, uint32_t what, uint64_t value)
{
    int rc;

    if (!plk_sync_open(&self->sync) || !has_lock(self))
        return NULL;
    if (plk_condition_waited(self->sync.ref.sync)) {
        rc = plk_sync_do(&self->sync, what, value);
        if (rc != 0) {
            if (!PyErr_Occurred())
                plk_raise(rc, self->sync.domain, &self->sync.ref.guard);
            return NULL;
        }
    }
    Py_RETURN_NONE;
}

static PyObject *condition_notify(ConditionObject *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"n", NULL};
    Py_ssize_t n = 1;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|n:notify", names, &n))
        return NULL;
    if (n < 0)
        return PyErr_Format(PyExc_ValueError, "notify() takes how many to wake, not %zd", n);
    return notify(self, PLK_ACT_NOTIFY, (uint64_t)n);
}

static PyObject *condition_notify_all(ConditionObject *self, PyObject *unused)
{
    (void)unused;
    return notify(self, PLK_ACT_NOTIFY_ALL, 0);
}

/* _pair(lock or None): the index of the cell of its lock, which is this one if it had none; -1: it has none.
 * _use(lock): this handle's lock. */
static PyObject *condition_pair(ConditionObject *self, PyObject *index)
{
    unsigned long value = PyLong_AsUnsignedLong(index);
    int rc;

    if (PyErr_Occurred() || !plk_sync_open(&self->sync))
        return NULL;
    rc = plk_sync_do(&self->sync, PLK_ACT_PAIR, value);
    if (rc < 0) {
        if (!PyErr_Occurred())
            plk_raise(rc, self->sync.domain, &self->sync.ref.guard);
        return NULL;
    }
    return PyLong_FromLong(rc);
}

static PyObject *condition_use(ConditionObject *self, PyTypeObject *type, PyObject *const *args,
                               Py_ssize_t nargs, PyObject *names)
{
    struct plk_types *types = PyType_GetModuleState(type);
    int is_mutex;

    if (types == NULL)
        return NULL;
    if (nargs != 1 || (names != NULL && PyTuple_GET_SIZE(names) != 0))
        return PyErr_Format(PyExc_TypeError, "_use(lock) takes a lock");
    is_mutex = PyObject_TypeCheck(args[0], (PyTypeObject *)types->sync) &&
               (((SyncObject *)args[0])->ref.kind == PLK_KIND_mutex ||
                ((SyncObject *)args[0])->ref.kind == PLK_KIND_rmutex);
    if (!is_mutex && !PyObject_TypeCheck(args[0], (PyTypeObject *)types->lock))
        return PyErr_Format(PyExc_TypeError, "the lock of a condition is a TicketLock or a TicketRLock, not %R",
                            args[0]);
    Py_XSETREF(self->lock, Py_NewRef(args[0]));
    self->is_mutex = (char)is_mutex;
    Py_RETURN_NONE;
}

static PyObject *condition_get_lock(ConditionObject *self, void *unused)
{
    (void)unused;
    return Py_NewRef(self->lock != NULL ? self->lock : Py_None);
}

static int condition_traverse(ConditionObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->sync.domain);
    Py_VISIT(self->lock);
    return 0;
}

static void condition_dealloc(ConditionObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    if (self->sync.weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    Py_CLEAR(self->lock);
    Py_CLEAR(self->sync.domain);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef condition_methods[] = {
    {"wait", METHOD(condition_wait), METH_FASTCALL | METH_KEYWORDS,
     "wait($self, /, timeout=None)\n--\n\n"
     "Let go of the lock, however often it was acquired, wait to be notified, and take it back.  True,\n"
     "or False if the timeout, in seconds, came first.  Raises NotOwnerError if this thread does not\n"
     "hold the lock, and whatever a signal handler raises, with the lock held.  If a thread died\n"
     "while it held the lock: OwnerDiedWarning, or OwnerDiedError, also with the lock held."},
    {"notify", METHOD(condition_notify), METH_VARARGS | METH_KEYWORDS,
     "notify($self, /, n=1)\n--\n\n"
     "Wake the first n of those who wait now.  A waiter that dies before it has woken passes that on.\n"
     "Raises NotOwnerError if this thread does not hold the lock."},
    {"notify_all", METHOD(condition_notify_all), METH_NOARGS,
     "notify_all($self, /)\n--\n\nWake all who wait now, in order of arrival; NotOwnerError."},
    {"_pair", METHOD(condition_pair), METH_O,
     "_pair($self, index, /)\n--\n\nIts lock is the cell before that index, if it has none; which it has, 0: none."},
    {"_use", METHOD(condition_use), METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
     "_use($self, lock, /)\n--\n\nThe handle of its lock."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef condition_getset[] = {
    {"lock", (getter)condition_get_lock, NULL, "Its lock.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot condition_slots[] = {
    {Py_tp_doc, "A condition variable; base of pylocks.Condition."},
    {Py_tp_dealloc, condition_dealloc},
    {Py_tp_traverse, condition_traverse},
    {Py_tp_methods, condition_methods},
    {Py_tp_getset, condition_getset},
    {0, NULL}};

PyType_Spec plk_condition_spec = {"pylocks._lock.Condition", sizeof(ConditionObject), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                                  condition_slots};
