/* fast/ordered.c - the type pylocks._lock.OrderedLock: before each acquisition it lets
 * pylocks.deadlocks.order look at what its thread holds.
 *
 * A type of its own, so that the others need not even ask whether they are to.  Before,
 * not after: nothing may come between an acquisition and the block that it is for. */
#include "fast/acquire.h"

int plk_look_at_order(LockObject *self, int waits)
{
    PyObject *order = PyImport_ImportModule("pylocks.deadlocks.order"), *done = NULL;

    if (order != NULL)
        done = PyObject_CallMethod(order, "before", "Oi", (PyObject *)self, waits);
    Py_XDECREF(order);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

static PyObject *ordered_acquire(LockObject *self, PyObject *const *args, Py_ssize_t nargs,
                                 PyObject *names)
{
    PyObject *timeout = NULL;
    int blocking = 1, waits = 1;

    if (self->recursive && plk_owns(&self->lock)) /* nothing new is held */
        return plk_recursive_acquire(self, args, nargs, names);
    if (plk_parse_acquire(args, nargs, names, &blocking, &timeout) != 0)
        return NULL;
    if (timeout != NULL && timeout != Py_None && (waits = PyObject_IsTrue(timeout)) < 0)
        return NULL;
    if (plk_look_at_order(self, blocking && waits) != 0)
        return NULL;
    return self->recursive ? plk_recursive_acquire(self, args, nargs, names)
                           : plk_lock_acquire(self, args, nargs, names);
}

static PyObject *ordered_enter(LockObject *self, PyObject *unused)
{
    (void)unused;
    return ordered_acquire(self, NULL, 0, NULL);
}

/* By this thread, now. */
static PyObject *ordered_held(LockObject *self, PyObject *unused)
{
    struct plk_seat *seat = plk_seat_of(self->lock.domain);

    (void)unused;
    return PyBool_FromLong(seat != NULL && PLK_LOAD(&self->lock.cell->owner) ==
                                               PLK_OWNER(PLK_LOAD(&self->lock.cell->head), seat->tag));
}

static PyObject *ordered_get_generation(LockObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(PLK_GENERATION_OF(PLK_LOAD(&self->lock.cell->flags)));
}

static int ordered_traverse(LockObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->domain);
    return 0;
}

static PyMethodDef ordered_methods[] = {
    {"acquire", METHOD(ordered_acquire), METH_FASTCALL | METH_KEYWORDS,
     "acquire($self, /, blocking=True, timeout=None)\n--\n\nAs Lock.acquire; also LockOrderWarning."},
    {"__enter__", METHOD(ordered_enter), METH_NOARGS, "__enter__($self, /)\n--\n\nacquire()."},
    {"held", METHOD(ordered_held), METH_NOARGS, "held($self, /)\n--\n\nThis thread holds it now."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef ordered_getset[] = {
    {"generation", (getter)ordered_get_generation, NULL,
     "How often the cell's memory had been another lock's.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyType_Slot ordered_slots[] = {
    {Py_tp_doc, "A Lock that looks at the order in which its thread takes locks."},
    {Py_tp_traverse, ordered_traverse},
    {Py_tp_methods, ordered_methods},
    {Py_tp_getset, ordered_getset},
    {0, NULL}};

PyType_Spec plk_ordered_spec = {"pylocks._lock.OrderedLock", sizeof(LockObject), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                                ordered_slots};
