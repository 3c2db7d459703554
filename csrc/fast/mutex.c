/* fast/mutex.c - the type pylocks._lock.Mutex: a lock that any thread may release. */
#include "fast/sync.h"

static int give(SyncObject *self)
{
    int rc;

    if ((PLK_LOAD(&self->ref.sync->word) & PLK_SYNC_WAITERS) != 0 && plk_sync_seat(self) == NULL)
        return -1;
    rc = plk_mutex_give(self->ref.sync);
    return PLK_UNLIKELY(rc == 1) ? plk_sync_do(self, PLK_ACT_SETTLE, 0) : rc;
}

/* It is taken, and a holder had died: the method says so.  1; -1: exception set, and released. */
static int hear_of_death(SyncObject *self)
{
    PyObject *told = PyObject_CallMethod((PyObject *)self, "_hear_of_death", NULL), *type, *value, *traceback;

    if (told != NULL) {
        Py_DECREF(told);
        return 1;
    }
    PyErr_Fetch(&type, &value, &traceback);
    give(self);
    PyErr_Clear();
    PyErr_Restore(type, value, traceback);
    return -1;
}

int plk_mutex_enter(SyncObject *self, double seconds)
{
    struct plk_seat *seat;
    int32_t result;
    int rc;

    if (PLK_UNLIKELY(!plk_sync_open(self)) || PLK_UNLIKELY((seat = plk_sync_seat(self)) == NULL))
        return -1;
    rc = plk_mutex_take(self->ref.sync, seat, 0);
    if (PLK_LIKELY(rc == 0))
        return 1;
    if (rc == PLK_OWNER_DIED)
        return hear_of_death(self);
    if (seconds == 0) {
        Py_BEGIN_ALLOW_THREADS
        rc = PLK_SYNC_API->look(&self->ref, seat) ? plk_mutex_take(self->ref.sync, seat, 0) : -EAGAIN;
        Py_END_ALLOW_THREADS
        return rc == PLK_OWNER_DIED ? hear_of_death(self) : rc == 0;
    }
    rc = plk_sync_wait_for(self, 0, seconds, &result);
    return rc == 1 && result == PLK_OWNER_DIED ? hear_of_death(self) : rc;
}

int plk_mutex_leave(SyncObject *self)
{
    int rc = plk_sync_open(self) ? give(self) : -1;

    if (PLK_LIKELY(rc == 0))
        return 0;
    if (!PyErr_Occurred() && rc == -EPERM)
        PyErr_Format(PyExc_ValueError, "%R was released, but nobody holds it", self);
    else if (!PyErr_Occurred())
        plk_raise(rc, self->domain, &self->ref.guard);
    return -1;
}

static PyObject *mutex_acquire(SyncObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return plk_sync_acquire(self, args, nargs, names, plk_mutex_enter);
}

static PyObject *mutex_acquire_block(SyncObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return plk_sync_acquire_block(self, args, nargs, names, plk_mutex_enter);
}

static PyObject *mutex_release(SyncObject *self, PyObject *unused)
{
    (void)unused;
    if (plk_mutex_leave(self) != 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *mutex_enter(SyncObject *self, PyObject *unused)
{
    (void)unused;
    if (plk_mutex_enter(self, -1) < 0)
        return NULL;
    Py_RETURN_TRUE;
}

static PyObject *mutex_exit(SyncObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    (void)args;
    (void)nargs;
    return mutex_release(self, NULL);
}

static PyObject *mutex_locked(SyncObject *self, PyObject *unused)
{
    (void)unused;
    if (!plk_sync_open(self))
        return NULL;
    return PyBool_FromLong((PLK_LOAD(&self->ref.sync->word) & PLK_SYNC_STATE) != 0);
}

static PyObject *mutex_get_holder(SyncObject *self, void *unused)
{
    uint64_t word;

    (void)unused;
    if (!plk_sync_open(self))
        return NULL;
    word = PLK_LOAD(&self->ref.sync->word);
    if ((word & PLK_SYNC_STATE) == 0)
        Py_RETURN_NONE;
    return Py_BuildValue("II", PLK_MUTEX_VCPU(word), PLK_MUTEX_GENERATION(word));
}

static PyMethodDef mutex_methods[] = {
    {"acquire", METHOD(mutex_acquire), METH_FASTCALL | METH_KEYWORDS,
     "acquire($self, /, blocking=True, timeout=None)\n--\n\n"
     "Take the lock; True if taken.\n\n"
     "timeout is in seconds, None for ever; when it passes, False is returned.  A thread that holds the\n"
     "lock already waits like any other.  Issues OwnerDiedWarning after a thread died while it held\n"
     "the lock.  Raises ClosedError, DomainFullError, and whatever a signal handler raises."},
    {"_acquire_block", METHOD(mutex_acquire_block), METH_FASTCALL | METH_KEYWORDS,
     "_acquire_block($self, /, block=True, timeout=None)\n--\n\n"
     "True if taken; without `block`, or when `timeout` seconds have passed, False."},
    {"release", METHOD(mutex_release), METH_NOARGS,
     "release($self, /)\n--\n\nLet go of the lock, whoever took it; ValueError if nobody holds it."},
    {"locked", METHOD(mutex_locked), METH_NOARGS, "locked($self, /)\n--\n\nTrue if somebody holds the lock."},
    {"__enter__", METHOD(mutex_enter), METH_NOARGS, "__enter__($self, /)\n--\n\nacquire()."},
    {"__exit__", METHOD(mutex_exit), METH_FASTCALL, "__exit__($self, /, *args)\n--\n\nrelease()."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef mutex_getset[] = {
    {"holder", (getter)mutex_get_holder, NULL,
     "(vCPU, generation of its slot) of the thread that took the lock; None if nobody holds it.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot mutex_slots[] = {{Py_tp_doc, "A lock that any thread may release; base of pylocks.mutex.Mutex."},
                                    {Py_tp_methods, mutex_methods},
                                    {Py_tp_getset, mutex_getset},
                                    {0, NULL}};

PyType_Spec plk_mutex_spec = {"pylocks._lock.Mutex", sizeof(SyncObject), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, mutex_slots};
