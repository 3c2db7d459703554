/* fast/within.c - the type pylocks._lock.Within: one entry into a lock on other
 * terms than its own, with a time limit or to repair what a dead holder left.
 *
 * In C, because a signal handler that raises between two bytecodes of a Python
 * __enter__ would leave the lock held and __exit__ uncalled. */
#include "fast/acquire.h"

typedef struct {
    PyObject_HEAD
    LockObject *lock;
    PyObject *seconds; /* or None */
    int ordered;       /* 1: the lock is an OrderedLock */
    int repairs;       /* 1: enter though a holder died, and mark the lock consistent on success */
} WithinObject;

/* Within(lock, seconds, repairs=False) */
static PyObject *within_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *module = PyType_GetModule(type), *lock, *seconds;
    struct plk_types *types = module != NULL ? PyModule_GetState(module) : NULL;
    WithinObject *self;
    double value;
    int repairs = 0;

    if (types == NULL)
        return NULL;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "Within(lock, seconds, repairs) takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O!O|p:Within", types->lock, &lock, &seconds, &repairs))
        return NULL;
    if (!repairs || seconds != Py_None) {
        value = PyFloat_AsDouble(seconds);
        if (value == -1 && PyErr_Occurred())
            return NULL;
        if (!(value >= 0)) {
            PyErr_Format(PyExc_ValueError, "%s needs seconds >= 0, not %R",
                         repairs ? "the timeout of repair()" : "within()", seconds);
            return NULL;
        }
    }
    self = (WithinObject *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->lock = (LockObject *)Py_NewRef(lock);
    self->seconds = Py_NewRef(seconds);
    self->ordered = PyObject_TypeCheck(lock, (PyTypeObject *)types->ordered);
    self->repairs = repairs;
    return (PyObject *)self;
}

static PyObject *within_enter(WithinObject *self, PyObject *unused)
{
    LockObject *lock = self->lock;
    enum plk_death death = self->repairs ? PLK_DEATH_IGNORED : lock->refuses;
    int rc;

    (void)unused;
    if (self->ordered && !(lock->recursive && plk_owns(&lock->lock)) && plk_look_at_order(lock, 1) != 0)
        return NULL;
    if (lock->recursive)
        rc = plk_recursive_with(lock, 1, self->seconds, death);
    else {
        rc = plk_acquire_with(&lock->lock, lock->domain, 1, self->seconds);
        rc = plk_after(rc, &lock->lock, lock->domain, death);
    }
    if (rc > 0)
        return Py_NewRef((PyObject *)self->lock);
    if (rc == 0)
        PyErr_Format(PyExc_TimeoutError, "%R was not acquired within %S s", self->lock, self->seconds);
    return NULL;
}

static PyObject *within_exit(WithinObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    /* Without an exception: repaired.  A lock that is not held any more says so below. */
    if (self->repairs && (nargs == 0 || args[0] == Py_None))
        plk_mark_consistent(&self->lock->lock);
    return self->lock->recursive ? plk_recursive_release(self->lock, NULL)
                                 : plk_lock_release(self->lock, NULL);
}

static int within_traverse(WithinObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)self->lock);
    Py_VISIT(self->seconds);
    return 0;
}

static void within_dealloc(WithinObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->lock);
    Py_CLEAR(self->seconds);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef within_methods[] = {
    {"__enter__", METHOD(within_enter), METH_NOARGS,
     "__enter__($self, /)\n--\n\nThe lock, acquired; TimeoutError."},
    {"__exit__", METHOD(within_exit), METH_FASTCALL, "__exit__($self, /, *args)\n--\n\nrelease(); marks what has been repaired consistent."},
    {NULL, NULL, 0, NULL}};

static PyType_Slot within_slots[] = {{Py_tp_doc, "One entry into a lock, with a time limit or to repair."},
                                     {Py_tp_new, within_new},
                                     {Py_tp_dealloc, within_dealloc},
                                     {Py_tp_traverse, within_traverse},
                                     {Py_tp_methods, within_methods},
                                     {0, NULL}};

PyType_Spec plk_within_spec = {"pylocks._lock.Within", sizeof(WithinObject), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, within_slots};
