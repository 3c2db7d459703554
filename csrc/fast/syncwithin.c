/* fast/syncwithin.c - the type pylocks._lock.SyncWithin: one entry with a time limit, as within.c's of a lock. */
#include "fast/sync.h"

typedef struct {
    PyObject_HEAD
    SyncObject *sync;
    PyObject *seconds;
    double value;
} SyncWithinObject;

/* By kind: what `with` does.  The others can't be entered. */
static const struct {
    int (*take)(SyncObject *, double);
    int (*give)(SyncObject *);
} faces[PLK_KIND_COUNT] = {
    [PLK_KIND_semaphore] = {plk_semaphore_take, plk_semaphore_give},
    [PLK_KIND_bounded] = {plk_semaphore_take, plk_semaphore_give},
    [PLK_KIND_owned] = {plk_semaphore_take, plk_semaphore_give},
    [PLK_KIND_mutex] = {plk_mutex_enter, plk_mutex_leave},
    [PLK_KIND_rmutex] = {plk_rmutex_take, plk_rmutex_give},
};

/* SyncWithin(object, seconds) */
static PyObject *within_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *module = PyType_GetModule(type), *sync, *seconds;
    struct plk_types *types = module != NULL ? PyModule_GetState(module) : NULL;
    SyncWithinObject *self;
    double value;

    if (types == NULL)
        return NULL;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "SyncWithin(object, seconds) takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O!O:SyncWithin", types->sync, &sync, &seconds))
        return NULL;
    if (faces[((SyncObject *)sync)->ref.kind].take == NULL) {
        PyErr_Format(PyExc_TypeError, "%R can't be entered", sync);
        return NULL;
    }
    value = seconds == Py_None ? -1 : PyFloat_AsDouble(seconds);
    if (value == -1 && PyErr_Occurred())
        return NULL;
    if (!(value >= 0))
        return PyErr_Format(PyExc_ValueError, "within() needs seconds >= 0, not %R", seconds);
    if (plk_parse_timeout(1, seconds, &value) != 0)
        return NULL;
    self = (SyncWithinObject *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->sync = (SyncObject *)Py_NewRef(sync);
    self->seconds = Py_NewRef(seconds);
    self->value = value;
    return (PyObject *)self;
}

static PyObject *within_enter(SyncWithinObject *self, PyObject *unused)
{
    int rc = faces[self->sync->ref.kind].take(self->sync, self->value);

    (void)unused;
    if (rc > 0)
        return Py_NewRef((PyObject *)self->sync);
    if (rc == 0)
        PyErr_Format(PyExc_TimeoutError, "%R was not acquired within %S s", self->sync, self->seconds);
    return NULL;
}

static PyObject *within_exit(SyncWithinObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    (void)args;
    (void)nargs;
    if (faces[self->sync->ref.kind].give(self->sync) != 0)
        return NULL;
    Py_RETURN_NONE;
}

static int within_traverse(SyncWithinObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)self->sync);
    Py_VISIT(self->seconds);
    return 0;
}

static void within_dealloc(SyncWithinObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->sync);
    Py_CLEAR(self->seconds);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef within_methods[] = {
    {"__enter__", METHOD(within_enter), METH_NOARGS,
     "__enter__($self, /)\n--\n\nThe object, acquired; TimeoutError."},
    {"__exit__", METHOD(within_exit), METH_FASTCALL, "__exit__($self, /, *args)\n--\n\nrelease()."},
    {NULL, NULL, 0, NULL}};

static PyType_Slot within_slots[] = {{Py_tp_doc, "One entry with a time limit."},
                                     {Py_tp_new, within_new},
                                     {Py_tp_dealloc, within_dealloc},
                                     {Py_tp_traverse, within_traverse},
                                     {Py_tp_methods, within_methods},
                                     {0, NULL}};

PyType_Spec plk_sync_within_spec = {"pylocks._lock.SyncWithin", sizeof(SyncWithinObject), 0,
                                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, within_slots};
