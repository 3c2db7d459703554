/* fast/recursive.c - the type pylocks._lock.RecursiveLock: a Lock that its owner may
 * acquire again.
 *
 * A type of its own, so that the others need not even ask.  How the count is kept, and
 * why it is right, is told in <pylocks/recursive.h>.  What is said about a holder's death
 * is said to whoever newly enters, not once more at each depth. */
#include "fast/acquire.h"

int plk_enter_again(LockObject *self)
{
    if (!self->recursive || !plk_owns(&self->lock))
        return 0;
    if (plk_deepen(&self->lock) == 0)
        return 1;
    PyErr_SetString(PyExc_OverflowError, "the lock is acquired too often by its owner to count");
    return -1;
}

/* An acquisition has come to rc.  Before anything that runs Python code. */
static int newly_entered(LockObject *self, int rc, enum plk_death death)
{
    if (rc == 1)
        plk_first(&self->lock);
    return plk_after(rc, &self->lock, self->domain, death);
}

int plk_recursive_with(LockObject *self, int blocking, PyObject *timeout, enum plk_death death)
{
    double seconds;
    int rc = plk_parse_timeout(blocking, timeout, &seconds);

    if (rc != 0 || (rc = plk_enter_again(self)) != 0)
        return rc;
    return newly_entered(self, plk_acquire_for(&self->lock, self->domain, seconds), death);
}

PyObject *plk_recursive_acquire(LockObject *self, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *names)
{
    PyObject *timeout = NULL;
    int blocking = 1, rc;

    if (PLK_LIKELY(nargs == 0 && names == NULL)) {
        rc = plk_enter_again(self);
        if (rc == 0)
            rc = newly_entered(self, plk_acquire_blocking(&self->lock, self->domain), self->refuses);
    } else if (plk_parse_acquire(args, nargs, names, &blocking, &timeout) != 0)
        return NULL;
    else
        rc = plk_recursive_with(self, blocking, timeout, self->refuses);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

PyObject *plk_recursive_enter(LockObject *self, PyObject *unused)
{
    (void)unused;
    return plk_recursive_acquire(self, NULL, 0, NULL);
}

PyObject *plk_recursive_release(LockObject *self, PyObject *unused)
{
    int rc = self->recursive ? plk_unlock_recursive(&self->lock) : plk_unlock(&self->lock);

    (void)unused;
    if (PLK_LIKELY(rc == 0))
        Py_RETURN_NONE;
    plk_raise(rc, self->domain, &self->lock);
    return NULL;
}

static PyObject *recursive_exit(LockObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    (void)args;
    (void)nargs;
    return plk_recursive_release(self, NULL);
}

/* ------------------------------------------- what conditions of any make ask of a lock */

static PyObject *recursive_is_owned(LockObject *self, PyObject *unused)
{
    (void)unused;
    return PyBool_FromLong(plk_owns(&self->lock));
}

static PyObject *recursive_release_save(LockObject *self, PyObject *unused)
{
    uint32_t again = 0;

    if (self->recursive && plk_owns(&self->lock)) {
        again = PLK_LOAD(plk_again(&self->lock));
        plk_first(&self->lock);
    }
    if (recursive_exit(self, NULL, 0) == NULL)
        return NULL;
    Py_DECREF(Py_None);
    (void)unused;
    return PyLong_FromUnsignedLong(again);
}

static PyObject *recursive_acquire_restore(LockObject *self, PyObject *saved)
{
    unsigned long again = PyLong_AsUnsignedLong(saved);
    PyObject *done;

    if (again > PLK_DEEPEST) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_OverflowError, "no depth that _release_save has returned");
        return NULL;
    }
    done = plk_recursive_enter(self, NULL);
    if (done == NULL)
        return NULL;
    Py_DECREF(done);
    if (self->recursive)
        PLK_STORE(plk_again(&self->lock), (uint32_t)again);
    Py_RETURN_NONE;
}

static PyObject *recursive_get_depth(LockObject *self, void *unused)
{
    uint32_t depth = 0;

    (void)unused;
    if (PLK_LOAD(&self->lock.domain->id) == PLK_CLOSED_DOMAIN) {
        plk_raise(-ESHUTDOWN, self->domain, &self->lock);
        return NULL;
    }
    if (plk_owns(&self->lock))
        depth = self->recursive ? PLK_LOAD(plk_again(&self->lock)) + 1 : 1;
    return PyLong_FromUnsignedLong(depth);
}

static int recursive_traverse(LockObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->domain);
    return 0;
}

static PyMethodDef recursive_methods[] = {
    {"acquire", METHOD(plk_recursive_acquire), METH_FASTCALL | METH_KEYWORDS,
     "acquire($self, /, blocking=True, timeout=None)\n--\n\n"
     "As Lock.acquire, and at once if this thread holds the lock: it must then release it once\n"
     "more.  AlreadyOwnerError is left to a signal handler that interrupts the wait for the lock."},
    {"release", METHOD(plk_recursive_release), METH_NOARGS,
     "release($self, /)\n--\n\n"
     "Undo one acquire(); the last of them gives the lock to the next in line.  Raises\n"
     "NotOwnerError if this thread does not hold it."},
    {"__enter__", METHOD(plk_recursive_enter), METH_NOARGS, "__enter__($self, /)\n--\n\nacquire()."},
    {"__exit__", METHOD(recursive_exit), METH_FASTCALL, "__exit__($self, /, *args)\n--\n\nrelease()."},
    {"_is_owned", METHOD(recursive_is_owned), METH_NOARGS,
     "_is_owned($self, /)\n--\n\nThis thread holds it; for threading.Condition."},
    {"_release_save", METHOD(recursive_release_save), METH_NOARGS,
     "_release_save($self, /)\n--\n\nRelease it at whatever depth; for threading.Condition."},
    {"_acquire_restore", METHOD(recursive_acquire_restore), METH_O,
     "_acquire_restore($self, saved, /)\n--\n\nAcquire it to the depth before _release_save()."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef recursive_getset[] = {
    {"depth", (getter)recursive_get_depth, NULL,
     "How often this thread has acquired the lock and not yet released it.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot recursive_slots[] = {
    {Py_tp_doc, "A Lock that its owner may acquire again; base of pylocks.TicketRLock."},
    {Py_tp_traverse, recursive_traverse},
    {Py_tp_methods, recursive_methods},
    {Py_tp_getset, recursive_getset},
    {0, NULL}};

PyType_Spec plk_recursive_spec = {"pylocks._lock.RecursiveLock", sizeof(LockObject), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                                  recursive_slots};
