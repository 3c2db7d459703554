/* fast/rmutex.c - the type pylocks._lock.RMutex: a Mutex that its holder, and nobody else, releases as often as
 * it has acquired it.
 *
 * The word says who holds it, so the count, data[0] of the record, is written by that thread alone; who has newly
 * taken it begins at 0, for a former holder may have died at any depth. */
#include "fast/sync.h"

#define AGAIN(self) ((self)->ref.sync->data[0])

/* 1: held by this thread, and once more now; 0: not held by it; -1: exception set. */
static int once_more(SyncObject *self)
{
    if (!plk_sync_open(self))
        return -1;
    if (!plk_mutex_owned(self))
        return 0;
    if (AGAIN(self) == UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "the lock is acquired too often by its owner to count");
        return -1;
    }
    PLK_STORE(&AGAIN(self), AGAIN(self) + 1);
    return 1;
}

int plk_rmutex_take(SyncObject *self, double seconds)
{
    int rc = once_more(self);

    if (rc != 0)
        return rc;
    rc = plk_mutex_enter(self, seconds);
    if (rc == 1)
        PLK_STORE(&AGAIN(self), 0);
    return rc;
}

int plk_rmutex_give(SyncObject *self)
{
    if (!plk_sync_open(self))
        return -1;
    if (!plk_mutex_owned(self)) {
        plk_not_owner((PyObject *)self);
        return -1;
    }
    if (AGAIN(self) == 0)
        return plk_mutex_leave(self);
    PLK_STORE(&AGAIN(self), AGAIN(self) - 1);
    return 0;
}

static PyObject *rmutex_acquire(SyncObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return plk_sync_acquire(self, args, nargs, names, plk_rmutex_take);
}

static PyObject *rmutex_acquire_block(SyncObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    return plk_sync_acquire_block(self, args, nargs, names, plk_rmutex_take);
}

static PyObject *rmutex_enter(SyncObject *self, PyObject *unused)
{
    (void)unused;
    if (plk_rmutex_take(self, -1) < 0)
        return NULL;
    Py_RETURN_TRUE;
}

static PyObject *rmutex_release(SyncObject *self, PyObject *unused)
{
    (void)unused;
    if (plk_rmutex_give(self) != 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *rmutex_exit(SyncObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    (void)args;
    (void)nargs;
    return rmutex_release(self, NULL);
}

static PyObject *rmutex_get_depth(SyncObject *self, void *unused)
{
    (void)unused;
    if (!plk_sync_open(self))
        return NULL;
    return PyLong_FromUnsignedLongLong(plk_mutex_owned(self) ? PLK_LOAD(&AGAIN(self)) + 1 : 0);
}

static PyMethodDef rmutex_methods[] = {
    {"acquire", METHOD(rmutex_acquire), METH_FASTCALL | METH_KEYWORDS,
     "acquire($self, /, blocking=True, timeout=None)\n--\n\nAs Mutex.acquire, and at once if this thread holds it."},
    {"_acquire_block", METHOD(rmutex_acquire_block), METH_FASTCALL | METH_KEYWORDS,
     "_acquire_block($self, /, block=True, timeout=None)\n--\n\n"
     "True if taken; without `block`, or when `timeout` seconds have passed, False."},
    {"release", METHOD(rmutex_release), METH_NOARGS,
     "release($self, /)\n--\n\nUndo one acquire(); NotOwnerError if this thread does not hold it."},
    {"__enter__", METHOD(rmutex_enter), METH_NOARGS, "__enter__($self, /)\n--\n\nacquire()."},
    {"__exit__", METHOD(rmutex_exit), METH_FASTCALL, "__exit__($self, /, *args)\n--\n\nrelease()."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef rmutex_getset[] = {
    {"depth", (getter)rmutex_get_depth, NULL,
     "How often this thread has acquired the lock and not yet released it.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot rmutex_slots[] = {{Py_tp_doc, "A Mutex for its holder alone, recursive; base of pylocks.mutex.RMutex."},
                                     {Py_tp_methods, rmutex_methods},
                                     {Py_tp_getset, rmutex_getset},
                                     {0, NULL}};

PyType_Spec plk_rmutex_spec = {"pylocks._lock.RMutex", sizeof(SyncObject), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, rmutex_slots};
