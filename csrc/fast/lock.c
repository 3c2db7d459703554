/* fast/lock.c - the type pylocks._lock.Lock. */
#include "fast/acquire.h"

PyObject *plk_lock_acquire(LockObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    PyObject *timeout = NULL;
    int blocking = 1, rc;

    if (PLK_LIKELY(nargs == 0 && names == NULL))
        rc = plk_acquire_blocking(&self->lock, self->domain);
    else if (plk_parse_acquire(args, nargs, names, &blocking, &timeout) != 0)
        return NULL;
    else
        rc = plk_acquire_with(&self->lock, self->domain, blocking, timeout);
    rc = plk_after(rc, &self->lock, self->domain, self->refuses);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

PyObject *plk_lock_enter(LockObject *self, PyObject *unused)
{
    int rc = plk_acquire_blocking(&self->lock, self->domain);

    (void)unused;
    if (PLK_UNLIKELY(plk_after(rc, &self->lock, self->domain, self->refuses) < 0))
        return NULL;
    Py_RETURN_TRUE;
}

PyObject *plk_lock_release(LockObject *self, PyObject *unused)
{
    int rc = plk_unlock(&self->lock);

    (void)unused;
    if (PLK_LIKELY(rc == 0))
        Py_RETURN_NONE;
    plk_raise(rc, self->domain, &self->lock);
    return NULL;
}

static PyObject *lock_exit(LockObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    (void)args;
    (void)nargs;
    return plk_lock_release(self, NULL);
}

/* The mapping is there only while the domain is open. */
static int lock_is_open(LockObject *self)
{
    if (PLK_LIKELY(PLK_LOAD(&self->lock.domain->id) != PLK_CLOSED_DOMAIN))
        return 1;
    plk_raise(-ESHUTDOWN, self->domain, &self->lock);
    return 0;
}

static PyObject *lock_locked(LockObject *self, PyObject *unused)
{
    struct plk_seat *seat = plk_seat_of(self->lock.domain);
    uint64_t head;

    (void)unused;
    if (!lock_is_open(self))
        return NULL;
    head = PLK_LOAD_ACQUIRE(&self->lock.cell->head);
    if (PLK_LOAD(&self->lock.cell->tail) != head && seat == NULL) {
        int rc;

        Py_BEGIN_ALLOW_THREADS
        rc = plk_first_use(self->lock.domain, &seat);
        Py_END_ALLOW_THREADS
        if (rc != 0)
            seat = NULL; /* no slot to be had: no look at others' either */
    }
    if (PLK_LOAD(&self->lock.cell->tail) != head && seat != NULL) {
        plk_look_after(&self->lock, seat); /* its owner may be dead */
        head = PLK_LOAD_ACQUIRE(&self->lock.cell->head);
    }
    return PyBool_FromLong(PLK_LOAD(&self->lock.cell->tail) != head);
}

static PyObject *lock_mark_consistent(LockObject *self, PyObject *unused)
{
    int rc = plk_mark_consistent(&self->lock);

    (void)unused;
    if (rc == 0)
        Py_RETURN_NONE;
    plk_raise(rc, self->domain, &self->lock);
    return NULL;
}

static PyObject *lock_get_owner_died(LockObject *self, void *unused)
{
    (void)unused;
    return lock_is_open(self) ? PyBool_FromLong(plk_entered(&self->lock) == PLK_OWNER_DIED) : NULL;
}

static PyObject *lock_get_ticket(LockObject *self, void *unused)
{
    (void)unused;
    if (!lock_is_open(self))
        return NULL;
    return PyLong_FromUnsignedLongLong(PLK_LOAD_ACQUIRE(&self->lock.cell->head));
}

/* Tickets behind the one that is served. */
static uint64_t tickets_behind(const struct plk_cell *cell)
{
    uint64_t head = PLK_LOAD_ACQUIRE(&cell->head), tickets = PLK_LOAD(&cell->tail) - head;

    return tickets > 0 ? tickets - 1 : 0;
}

static PyObject *lock_get_waiters(LockObject *self, void *unused)
{
    uint64_t waiters;

    (void)unused;
    if (!lock_is_open(self))
        return NULL;
    waiters = tickets_behind(self->lock.cell);
    if (self->lock.policy == PLK_BOUNDED) {
        const struct plk_cell *queue = plk_queue_cell(self->lock.cell);
        uint64_t head = PLK_LOAD_ACQUIRE(&queue->head), queued = PLK_LOAD(&queue->tail) - head;

        /* Who has come from the queue to the gate has a ticket in each. */
        waiters += queued - (queued != 0 && waiters != 0);
    }
    return PyLong_FromUnsignedLongLong(waiters);
}

static PyObject *lock_get_index(LockObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(self->lock.id - 1);
}

static PyObject *lock_get_address(LockObject *self, void *unused)
{
    (void)unused;
    if (self->recursive) /* plk_acquire knows nothing of the count */
        return PyErr_Format(PyExc_TypeError, "%R has no address: C code needs a TicketLock", self);
    return PyLong_FromVoidPtr(&self->lock);
}

/* Lock(domain, address of its plk_domain, index of the cell, whether it refuses) */
static PyObject *lock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *domain, *address;
    unsigned int index;
    LockObject *self;
    void *target;
    int refuses = 0, rc;

    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "Lock(domain, address, index, refuses) takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OO!I|p:Lock", &domain, &PyLong_Type, &address, &index, &refuses))
        return NULL;
    target = PyLong_AsVoidPtr(address);
    if (target == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "Lock: the address of a domain can't be 0");
        return NULL;
    }
    self = (LockObject *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    Py_INCREF(domain);
    self->domain = domain;
    self->refuses = (char)refuses;
    rc = plk_lock_init(&self->lock, target, index);
    if (rc == 0) {
        self->recursive = (char)plk_is_recursive(&self->lock);
        return (PyObject *)self;
    }
    self->lock.id = (uint64_t)index + 1;
    plk_raise(rc, domain, &self->lock);
    Py_DECREF(self);
    return NULL;
}

static int lock_traverse(LockObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->domain);
    return 0;
}

static void lock_dealloc(LockObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs((PyObject *)self);
    Py_CLEAR(self->domain);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef lock_methods[] = {
    {"acquire", METHOD(plk_lock_acquire), METH_FASTCALL | METH_KEYWORDS,
     "acquire($self, /, blocking=True, timeout=None)\n--\n\n"
     "Take the lock in first-come-first-served order; True if taken.\n\n"
     "timeout is in seconds, None for ever; when it passes, the place in the queue is\n"
     "given up and False returned.  Raises AlreadyOwnerError if this thread holds the\n"
     "lock, DeadlockError (see Domain), ClosedError, DomainFullError, and whatever a\n"
     "signal handler raises.  After a\n"
     "thread died while it held the lock: issues OwnerDiedWarning, or, where\n"
     "on_owner_death is \"raise\", raises OwnerDiedError and does not keep the lock."},
    {"release", METHOD(plk_lock_release), METH_NOARGS,
     "release($self, /)\n--\n\n"
     "Give the lock to the next in line.  Raises NotOwnerError if this thread does not\n"
     "hold it."},
    {"locked", METHOD(lock_locked), METH_NOARGS,
     "locked($self, /)\n--\n\nTrue if somebody holds the lock or is about to.\n\n"
     "A thread that finds it so is registered, as by acquire(), and recovers an owner that has died."},
    {"mark_consistent", METHOD(lock_mark_consistent), METH_NOARGS,
     "mark_consistent($self, /)\n--\n\n"
     "What the lock protects is in order again after a holder died; owner_died is False from\n"
     "now on.  Raises NotOwnerError if this thread does not hold the lock."},
    {"__enter__", METHOD(plk_lock_enter), METH_NOARGS, "__enter__($self, /)\n--\n\nacquire()."},
    {"__exit__", METHOD(lock_exit), METH_FASTCALL, "__exit__($self, /, *args)\n--\n\nrelease()."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef lock_getset[] = {
    {"ticket", (getter)lock_get_ticket, NULL,
     "The ticket now served; while this thread holds the lock, its own: a number that rises with\n"
     "every acquisition by anybody, fit as a fencing token.", NULL},
    {"waiters", (getter)lock_get_waiters, NULL,
     "Tickets queued behind the one now served; may be out of date as soon as it is read.", NULL},
    {"owner_died", (getter)lock_get_owner_died, NULL,
     "True if a thread died while it held the lock, and nobody has called mark_consistent since:\n"
     "what the lock protects may be half-done.", NULL},
    {"index", (getter)lock_get_index, NULL, "Index of the lock's cell in its domain.", NULL},
    {"address", (getter)lock_get_address, NULL,
     "Where C finds the lock: the struct plk_lock of <pylocks.h> within this object.\n\n"
     "Good for as long as this object is alive, in this process and those forked from it, which C code\n"
     "has to see to; not in others: pickle the lock and ask there again.  TypeError for a TicketRLock,\n"
     "which counts in Python alone.", NULL},
    {NULL, NULL, NULL, NULL, NULL}};

static PyMemberDef lock_members[] = {
    {"domain", T_OBJECT, offsetof(LockObject, domain), READONLY, "The Domain the lock lies in."},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(LockObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL}};

static PyType_Slot lock_slots[] = {{Py_tp_doc, "A ticket lock in a domain; base of pylocks.TicketLock."},
                                   {Py_tp_new, lock_new},
                                   {Py_tp_dealloc, lock_dealloc},
                                   {Py_tp_traverse, lock_traverse},
                                   {Py_tp_methods, lock_methods},
                                   {Py_tp_getset, lock_getset},
                                   {Py_tp_members, lock_members},
                                   {0, NULL}};

PyType_Spec plk_lock_spec = {"pylocks._lock.Lock", sizeof(LockObject), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                                lock_slots};
