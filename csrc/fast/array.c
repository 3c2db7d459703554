/* fast/array.c - the type pylocks._lock.Array. */
#include "fast/acquire.h"

typedef struct {
    PyObject_HEAD
    struct plk_domain *target;
    PyObject *domain;
    Py_ssize_t length;
    PyObject *weakrefs;
    char refuses; /* 1: PLK_DEATH_REFUSED */
} ArrayObject;

/* The handle of element `key`, made on the stack: an array has a million. */
static int array_lock(ArrayObject *self, PyObject *key, struct plk_lock *lock)
{
    Py_ssize_t index = PyNumber_AsSsize_t(key, PyExc_IndexError);
    int rc;

    if (index == -1 && PyErr_Occurred())
        return -1;
    if (index < 0)
        index += self->length;
    if (index < 0 || index >= self->length) {
        PyErr_Format(PyExc_IndexError, "lock %R is not in an array of %zd locks", key, self->length);
        return -1;
    }
    rc = plk_lock_init(lock, self->target, (uint32_t)index);
    if (rc == 0)
        return 0;
    *lock = (struct plk_lock){NULL, self->target, (uint64_t)index + 1, PLK_FIFO};
    plk_raise(rc, self->domain, lock);
    return -1;
}

static PyObject *array_acquire(ArrayObject *self, PyObject *const *args, Py_ssize_t nargs,
                               PyObject *names)
{
    PyObject *timeout = NULL;
    struct plk_lock lock;
    int blocking = 1, rc;

    if (nargs < 1) {
        PyErr_SetString(PyExc_TypeError, "acquire() needs the index of a lock");
        return NULL;
    }
    if (array_lock(self, args[0], &lock) != 0)
        return NULL;
    if (PLK_LIKELY(nargs == 1 && names == NULL))
        rc = plk_acquire_blocking(&lock, self->domain);
    else if (plk_parse_acquire(args + 1, nargs - 1, names, &blocking, &timeout) != 0)
        return NULL;
    else
        rc = plk_acquire_with(&lock, self->domain, blocking, timeout);
    rc = plk_after(rc, &lock, self->domain, self->refuses);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

static PyObject *array_release(ArrayObject *self, PyObject *key)
{
    struct plk_lock lock;
    int rc;

    if (array_lock(self, key, &lock) != 0)
        return NULL;
    rc = plk_unlock(&lock);
    if (PLK_LIKELY(rc == 0))
        Py_RETURN_NONE;
    plk_raise(rc, self->domain, &lock);
    return NULL;
}

static Py_ssize_t array_length(ArrayObject *self) { return self->length; }

/* Array(domain, address of its plk_domain, length, whether it refuses) */
static PyObject *array_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *domain, *address;
    Py_ssize_t length;
    ArrayObject *self;
    void *target;
    int refuses = 0;

    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "Array(domain, address, length, refuses) takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OO!n|p:Array", &domain, &PyLong_Type, &address, &length, &refuses))
        return NULL;
    target = PyLong_AsVoidPtr(address);
    if (target == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "Array: the address of a domain can't be 0");
        return NULL;
    }
    self = (ArrayObject *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    Py_INCREF(domain);
    self->domain = domain;
    self->target = target;
    self->length = length;
    self->refuses = (char)refuses;
    return (PyObject *)self;
}

static int array_traverse(ArrayObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->domain);
    return 0;
}

static void array_dealloc(ArrayObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    Py_CLEAR(self->domain);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef array_methods[] = {
    {"acquire", METHOD(array_acquire), METH_FASTCALL | METH_KEYWORDS,
     "acquire($self, index, /, blocking=True, timeout=None)\n--\n\n"
     "Take the lock at index; as TicketLock.acquire, without making a handle."},
    {"release", METHOD(array_release), METH_O,
     "release($self, index, /)\n--\n\nGive up the lock at index; as TicketLock.release."},
    {NULL, NULL, 0, NULL}};

static PyObject *array_get_address(ArrayObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromVoidPtr(self->target);
}

static PyGetSetDef array_getset[] = {
    {"address", (getter)array_get_address, NULL,
     "Where C finds the array: the struct plk_domain of <pylocks.h> whose locks it is.\n\n"
     "Good for as long as this object or its domain is alive, in this process and those forked from it.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyMemberDef array_members[] = {
    {"domain", T_OBJECT, offsetof(ArrayObject, domain), READONLY, "The Domain that is the array."},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(ArrayObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL}};

static PyType_Slot array_slots[] = {{Py_tp_doc, "An array of ticket locks; base of pylocks.LockArray."},
                                    {Py_tp_new, array_new},
                                    {Py_tp_dealloc, array_dealloc},
                                    {Py_tp_traverse, array_traverse},
                                    {Py_tp_methods, array_methods},
                                    {Py_tp_getset, array_getset},
                                    {Py_tp_members, array_members},
                                    {Py_sq_length, array_length},
                                    {0, NULL}};

PyType_Spec plk_array_spec = {"pylocks._lock.Array", sizeof(ArrayObject), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                                 array_slots};
