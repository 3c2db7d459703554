/* fast/lockmodule.c - pylocks._lock: the lock as a small CPython type.
 *
 * cffi drops and retakes the GIL around every call, which costs more than the
 * lock.  This type keeps the GIL while the lock is free and releases it before
 * any wait, spin or sleep: a sibling thread may be the holder.
 *
 * It includes only the public headers and is to the core what any third-party
 * extension is. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <sys/syscall.h>

#include <pylocks.h>
#include <pylocks/python.h>

PLK_MODULE("pylocks._lock");

/* How long the main thread waits before it looks at signals again.  A signal
 * that interrupts a sleep is seen at once; this is for one that came just
 * before the sleep, and for waits that do not sleep. */
#define SIGNAL_PAUSE_NS 50000000ull
#define NS_PER_S 1e9
#define LONGEST_TIMEOUT_S 3e9 /* about 95 years; no sum overflows */

typedef struct {
    PyObject_HEAD
    struct plk_lock lock;
    PyObject *domain; /* the pylocks.Domain, kept alive for as long as this handle */
    PyObject *weakrefs;
} LockObject;

typedef struct {
    PyObject_HEAD
    struct plk_domain *target;
    PyObject *domain;
    Py_ssize_t length;
    PyObject *weakrefs;
} ArrayObject;

/* ------------------------------------------------------------------ errors */

/* Raise the exception that pylocks.errors makes of a refusal of the core. */
static void raise_refusal(int rc, PyObject *domain, const struct plk_lock *lock)
{
    PyObject *errors = PyImport_ImportModule("pylocks.errors"), *made = NULL;

    if (errors != NULL)
        made = PyObject_CallMethod(errors, "lock_error", "iOK", -rc, domain,
                                   (unsigned long long)(lock->id - 1));
    if (made != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(made), made);
    Py_XDECREF(made);
    Py_XDECREF(errors);
}

/* ------------------------------------------------------------ registration */

/* This thread's first use of the domain: registration may wait for the domain's
 * mutex, so not under the GIL.  NULL: exception set. */
PLK_COLD static struct plk_seat *first_seat(struct plk_lock *lock, PyObject *domain)
{
    struct plk_seat *seat;
    int rc;

    Py_BEGIN_ALLOW_THREADS
    rc = plk_first_use(lock->domain, &seat);
    Py_END_ALLOW_THREADS
    if (rc == 0)
        return seat;
    raise_refusal(rc, domain, lock);
    return NULL;
}

static inline struct plk_seat *seat_for(struct plk_lock *lock, PyObject *domain)
{
    struct plk_seat *seat = plk_seat_of(lock->domain);

    return PLK_LIKELY(seat != NULL) ? seat : first_seat(lock, domain);
}

/* ----------------------------------------------------------------- waiting */

/* Only Python's main thread handles signals: the first thread of the process,
 * and after a fork the thread that forked, which is then the first. */
static __thread int main_thread_known PLK_TLS_MODEL; /* 1: it is, -1: it is not, 0: ask */

static int is_main_thread(void)
{
    if (main_thread_known == 0)
        main_thread_known = syscall(SYS_gettid) == getpid() ? 1 : -1;
    return main_thread_known > 0;
}

static void forget_main_thread(void) { main_thread_known = 0; }

static uint64_t next_pause(int main_thread)
{
    return main_thread ? plk_module_self.api->now() + SIGNAL_PAUSE_NS : PLK_FOREVER;
}

/* Leave the queue because of the exception that is set, and keep it set. */
static void leave_queue(struct plk_wait *w)
{
    PyObject *type, *value, *traceback;
    int rc;

    PyErr_Fetch(&type, &value, &traceback);
    w->deadline = 0;
    w->pause = PLK_FOREVER;
    Py_BEGIN_ALLOW_THREADS
    do
        rc = plk_wait_turn(w);
    while (rc == -EINTR);
    if (rc == 0)
        plk_unlock(w->lock);
    Py_END_ALLOW_THREADS
    PyErr_Restore(type, value, traceback);
}

/* Python code runs here and may take other locks, or fork: this wait is kept
 * safe.  0; -1: exception set; -ECHILD: this is a forked child, which has no
 * place in the queue (an exception may be set). */
static int look_at_signals(struct plk_wait *w)
{
    int rc;

    if (plk_module_self.api->nest(w) != 0) {
        PyErr_SetString(PyExc_RecursionError,
                        "too many signal handlers, each waiting for a pylocks lock, are nested in "
                        "this thread");
        return -1;
    }
    rc = PyErr_CheckSignals();
    return plk_module_self.api->unnest(w) != 0 ? -ECHILD : rc;
}

/* In a child forked by a signal handler during the wait: queue up as what it
 * is, another vCPU.  1: acquired, 0: queued, -1: exception set. */
static int queue_again(struct plk_wait *w, PyObject *domain)
{
    struct plk_seat *seat = PyErr_Occurred() ? NULL : seat_for(w->lock, domain);
    uint64_t deadline = w->deadline;
    int rc;

    if (seat == NULL)
        return -1;
    rc = plk_take_seated(w->lock, seat, w);
    w->deadline = deadline;
    return rc == 0;
}

/* Wait for the ticket of *w.  1: acquired, 0: timed out, -1: exception set. */
static int wait_in_queue(struct plk_wait *w, PyObject *domain)
{
    int main_thread = is_main_thread(), rc;

    for (;;) {
        w->pause = next_pause(main_thread);
        Py_BEGIN_ALLOW_THREADS
        rc = plk_wait_turn(w);
        Py_END_ALLOW_THREADS
        if (rc == 0)
            return 1;
        if (rc == -ETIMEDOUT)
            return 0;
        if (rc != -EINTR) {
            raise_refusal(rc, domain, w->lock);
            return -1;
        }
        rc = look_at_signals(w);
        if (rc == -ECHILD && (rc = queue_again(w, domain)) != 0)
            return rc;
        if (rc != 0) {
            leave_queue(w);
            return -1;
        }
    }
}

/* 1: acquired, -1: exception set. */
static inline int acquire_blocking(struct plk_lock *lock, PyObject *domain)
{
    struct plk_seat *seat = seat_for(lock, domain);
    struct plk_wait w;

    if (PLK_UNLIKELY(seat == NULL))
        return -1;
    return PLK_LIKELY(plk_take_seated(lock, seat, &w) == 0) ? 1 : wait_in_queue(&w, domain);
}

static int acquire_try(struct plk_lock *lock, PyObject *domain)
{
    int rc;

    if (seat_for(lock, domain) == NULL)
        return -1;
    rc = plk_trylock(lock);
    if (rc == 0 || rc == -EBUSY)
        return rc == 0;
    raise_refusal(rc, domain, lock);
    return -1;
}

static int acquire_timed(struct plk_lock *lock, PyObject *domain, double seconds)
{
    struct plk_seat *seat = seat_for(lock, domain);
    uint64_t deadline;
    struct plk_wait w;
    int main_thread, rc;

    if (seat == NULL)
        return -1;
    /* Free: no call, and the GIL kept.  Not ahead of a ticket of our own. */
    if (seat->left_count == 0 && plk_trylock(lock) == 0)
        return 1;
    deadline = plk_module_self.api->now() + (uint64_t)(seconds * NS_PER_S);
    main_thread = is_main_thread();
    for (;;) {
        /* This may poll, without a ticket, until the pause. */
        Py_BEGIN_ALLOW_THREADS
        rc = plk_take_until(lock, &w, deadline, next_pause(main_thread));
        Py_END_ALLOW_THREADS
        if (rc == 0)
            return 1;
        if (rc > 0)
            return wait_in_queue(&w, domain);
        if (rc == -ETIMEDOUT)
            return 0;
        if (rc != -EINTR) {
            raise_refusal(rc, domain, lock);
            return -1;
        }
        if (PyErr_CheckSignals() != 0)
            return -1;
    }
}

/* Arguments of acquire: (blocking=True, timeout=None), as threading.Lock's. */
static int acquire_with(struct plk_lock *lock, PyObject *domain, int blocking, PyObject *timeout)
{
    double seconds = -1;

    if (timeout != NULL && timeout != Py_None) {
        seconds = PyFloat_AsDouble(timeout);
        if (seconds == -1 && PyErr_Occurred())
            return -1;
        if (!(seconds >= 0) && seconds != -1) {
            PyErr_Format(PyExc_ValueError, "timeout must be None or seconds >= 0, not %R", timeout);
            return -1;
        }
        if (seconds > LONGEST_TIMEOUT_S) {
            PyErr_Format(PyExc_OverflowError, "timeout of %R s is too large; use None to wait for ever",
                         timeout);
            return -1;
        }
        if (!blocking && seconds != -1) {
            PyErr_SetString(PyExc_ValueError, "a timeout has no meaning with blocking=False");
            return -1;
        }
    }
    if (!blocking || seconds == 0)
        return acquire_try(lock, domain);
    return seconds == -1 ? acquire_blocking(lock, domain) : acquire_timed(lock, domain, seconds);
}

static int parse_acquire(PyObject *const *args, Py_ssize_t nargs, PyObject *names, int *blocking,
                         PyObject **timeout)
{
    Py_ssize_t i, count = names != NULL ? PyTuple_GET_SIZE(names) : 0;
    PyObject *given[2] = {NULL, NULL};

    if (nargs > 2) {
        PyErr_SetString(PyExc_TypeError, "acquire() takes at most (blocking=True, timeout=None)");
        return -1;
    }
    for (i = 0; i < nargs; i++)
        given[i] = args[i];
    for (i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        int which = PyUnicode_CompareWithASCIIString(name, "blocking") == 0  ? 0
                    : PyUnicode_CompareWithASCIIString(name, "timeout") == 0 ? 1
                                                                             : -1;

        if (which < 0 || given[which] != NULL) {
            PyErr_Format(PyExc_TypeError, "acquire() got an unexpected or repeated argument %R", name);
            return -1;
        }
        given[which] = args[nargs + i];
    }
    *timeout = given[1];
    *blocking = given[0] == NULL ? 1 : PyObject_IsTrue(given[0]);
    return *blocking < 0 ? -1 : 0;
}

/* -------------------------------------------------------------------- Lock */

static PyObject *lock_acquire(LockObject *self, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *names)
{
    PyObject *timeout = NULL;
    int blocking = 1, rc;

    if (PLK_LIKELY(nargs == 0 && names == NULL))
        rc = acquire_blocking(&self->lock, self->domain);
    else if (parse_acquire(args, nargs, names, &blocking, &timeout) != 0)
        return NULL;
    else
        rc = acquire_with(&self->lock, self->domain, blocking, timeout);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

static PyObject *lock_enter(LockObject *self, PyObject *unused)
{
    (void)unused;
    if (PLK_UNLIKELY(acquire_blocking(&self->lock, self->domain) < 0))
        return NULL;
    Py_RETURN_TRUE;
}

static PyObject *lock_release(LockObject *self, PyObject *unused)
{
    int rc = plk_unlock(&self->lock);

    (void)unused;
    if (PLK_LIKELY(rc == 0))
        Py_RETURN_NONE;
    raise_refusal(rc, self->domain, &self->lock);
    return NULL;
}

static PyObject *lock_exit(LockObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    (void)args;
    (void)nargs;
    return lock_release(self, NULL);
}

/* The mapping is there only while the domain is open. */
static int lock_is_open(LockObject *self)
{
    if (PLK_LIKELY(PLK_LOAD(&self->lock.domain->id) != PLK_CLOSED_DOMAIN))
        return 1;
    raise_refusal(-ESHUTDOWN, self->domain, &self->lock);
    return 0;
}

static PyObject *lock_locked(LockObject *self, PyObject *unused)
{
    struct plk_seat *seat = plk_seat_of(self->lock.domain);
    uint64_t head;

    (void)unused;
    if (!lock_is_open(self))
        return NULL;
    if (self->lock.domain->protocol == PLK_NATIVE && seat != NULL)
        plk_look_after(&self->lock, seat);
    head = PLK_LOAD_ACQUIRE(&self->lock.cell->head);
    return PyBool_FromLong(PLK_LOAD(&self->lock.cell->tail) != head);
}

static PyObject *lock_get_ticket(LockObject *self, void *unused)
{
    (void)unused;
    if (!lock_is_open(self))
        return NULL;
    return PyLong_FromUnsignedLongLong(PLK_LOAD_ACQUIRE(&self->lock.cell->head));
}

static PyObject *lock_get_waiters(LockObject *self, void *unused)
{
    uint64_t head, queue;

    (void)unused;
    if (!lock_is_open(self))
        return NULL;
    head = PLK_LOAD_ACQUIRE(&self->lock.cell->head);
    queue = PLK_LOAD(&self->lock.cell->tail) - head;
    return PyLong_FromUnsignedLongLong(queue > 0 ? queue - 1 : 0);
}

static PyObject *lock_get_index(LockObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(self->lock.id - 1);
}

/* Lock(domain, address of its plk_domain, index of the cell) */
static PyObject *lock_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *domain, *address;
    unsigned int index;
    LockObject *self;
    void *target;
    int rc;

    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "Lock(domain, address, index) takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OO!I:Lock", &domain, &PyLong_Type, &address, &index))
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
    rc = plk_lock_init(&self->lock, target, index);
    if (rc == 0)
        return (PyObject *)self;
    self->lock.id = (uint64_t)index + 1;
    raise_refusal(rc, domain, &self->lock);
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

#define METHOD(f) ((PyCFunction)(void (*)(void))(f))

static PyMethodDef lock_methods[] = {
    {"acquire", METHOD(lock_acquire), METH_FASTCALL | METH_KEYWORDS,
     "acquire($self, /, blocking=True, timeout=None)\n--\n\n"
     "Take the lock in first-come-first-served order; True if taken.\n\n"
     "timeout is in seconds, None for ever; when it passes, the place in the queue is\n"
     "given up and False returned.  Raises AlreadyOwnerError if this thread holds the\n"
     "lock, ClosedError, DomainFullError, and whatever a signal handler raises."},
    {"release", METHOD(lock_release), METH_NOARGS,
     "release($self, /)\n--\n\n"
     "Give the lock to the next in line.  Raises NotOwnerError if this thread does not\n"
     "hold it."},
    {"locked", METHOD(lock_locked), METH_NOARGS,
     "locked($self, /)\n--\n\nTrue if somebody holds the lock or is about to."},
    {"__enter__", METHOD(lock_enter), METH_NOARGS, "__enter__($self, /)\n--\n\nacquire()."},
    {"__exit__", METHOD(lock_exit), METH_FASTCALL, "__exit__($self, /, *args)\n--\n\nrelease()."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef lock_getset[] = {
    {"ticket", (getter)lock_get_ticket, NULL,
     "The ticket now served; while this thread holds the lock, its own: a number that rises with\n"
     "every acquisition by anybody, fit as a fencing token.", NULL},
    {"waiters", (getter)lock_get_waiters, NULL,
     "Tickets queued behind the one now served; may be out of date as soon as it is read.", NULL},
    {"index", (getter)lock_get_index, NULL, "Index of the lock's cell in its domain.", NULL},
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

static PyType_Spec lock_spec = {"pylocks._lock.Lock", sizeof(LockObject), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                                lock_slots};

/* ------------------------------------------------------------------ Within */

/* In C, because a signal handler that raises between two bytecodes of a Python
 * __enter__ would leave the lock held and __exit__ uncalled. */
typedef struct {
    PyObject_HEAD
    LockObject *lock;
    PyObject *seconds;
} WithinObject;

/* Within(lock, seconds) */
static PyObject *within_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *module = PyType_GetModule(type), *lock, *seconds;
    PyObject **lock_type = module != NULL ? PyModule_GetState(module) : NULL;
    WithinObject *self;
    double value;

    if (lock_type == NULL)
        return NULL;
    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "Within(lock, seconds) takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "O!O:Within", *lock_type, &lock, &seconds))
        return NULL;
    value = PyFloat_AsDouble(seconds);
    if (value == -1 && PyErr_Occurred())
        return NULL;
    if (!(value >= 0)) {
        PyErr_Format(PyExc_ValueError, "within() needs seconds >= 0, not %R", seconds);
        return NULL;
    }
    self = (WithinObject *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->lock = (LockObject *)Py_NewRef(lock);
    self->seconds = Py_NewRef(seconds);
    return (PyObject *)self;
}

static PyObject *within_enter(WithinObject *self, PyObject *unused)
{
    int rc = acquire_with(&self->lock->lock, self->lock->domain, 1, self->seconds);

    (void)unused;
    if (rc > 0)
        return Py_NewRef((PyObject *)self->lock);
    if (rc == 0)
        PyErr_Format(PyExc_TimeoutError, "%R was not acquired within %S s", self->lock, self->seconds);
    return NULL;
}

static PyObject *within_exit(WithinObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    (void)args;
    (void)nargs;
    return lock_release(self->lock, NULL);
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
    {"__exit__", METHOD(within_exit), METH_FASTCALL, "__exit__($self, /, *args)\n--\n\nrelease()."},
    {NULL, NULL, 0, NULL}};

static PyType_Slot within_slots[] = {{Py_tp_doc, "A lock with a time limit on entering."},
                                     {Py_tp_new, within_new},
                                     {Py_tp_dealloc, within_dealloc},
                                     {Py_tp_traverse, within_traverse},
                                     {Py_tp_methods, within_methods},
                                     {0, NULL}};

static PyType_Spec within_spec = {"pylocks._lock.Within", sizeof(WithinObject), 0,
                                  Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, within_slots};

/* ------------------------------------------------------------------- Array */

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
    *lock = (struct plk_lock){NULL, self->target, (uint64_t)index + 1};
    raise_refusal(rc, self->domain, lock);
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
        rc = acquire_blocking(&lock, self->domain);
    else if (parse_acquire(args + 1, nargs - 1, names, &blocking, &timeout) != 0)
        return NULL;
    else
        rc = acquire_with(&lock, self->domain, blocking, timeout);
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
    raise_refusal(rc, self->domain, &lock);
    return NULL;
}

static Py_ssize_t array_length(ArrayObject *self) { return self->length; }

/* Array(domain, address of its plk_domain, length) */
static PyObject *array_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *domain, *address;
    Py_ssize_t length;
    ArrayObject *self;
    void *target;

    if (kwargs != NULL && PyDict_GET_SIZE(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "Array(domain, address, length) takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "OO!n:Array", &domain, &PyLong_Type, &address, &length))
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

static PyMemberDef array_members[] = {
    {"domain", T_OBJECT, offsetof(ArrayObject, domain), READONLY, "The Domain that is the array."},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(ArrayObject, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL}};

static PyType_Slot array_slots[] = {{Py_tp_doc, "An array of ticket locks; base of pylocks.LockArray."},
                                    {Py_tp_new, array_new},
                                    {Py_tp_dealloc, array_dealloc},
                                    {Py_tp_traverse, array_traverse},
                                    {Py_tp_methods, array_methods},
                                    {Py_tp_members, array_members},
                                    {Py_sq_length, array_length},
                                    {0, NULL}};

static PyType_Spec array_spec = {"pylocks._lock.Array", sizeof(ArrayObject), 0,
                                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
                                 array_slots};

/* ------------------------------------------------------------------ module */

static int module_exec(PyObject *module)
{
    PyType_Spec *specs[] = {&lock_spec, &array_spec, &within_spec};
    static int at_fork;
    size_t i;

    if (plk_register_python() != 0)
        return -1;
    if (!at_fork && pthread_atfork(NULL, NULL, forget_main_thread) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    at_fork = 1;
    for (i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
        PyObject *type = PyType_FromModuleAndSpec(module, specs[i], NULL);
        int rc = type != NULL ? PyModule_AddType(module, (PyTypeObject *)type) : -1;

        if (specs[i] == &lock_spec)
            *(PyObject **)PyModule_GetState(module) = type; /* keeps this reference */
        else
            Py_XDECREF(type);
        if (rc != 0)
            return -1;
    }
    return 0;
}

/* Through here and not through cffi, which would let other threads acquire
 * between the look whether anybody holds a lock and the closing. */
static PyObject *module_retire(PyObject *module, PyObject *address)
{
    struct plk_domain *target = PyLong_AsVoidPtr(address);

    (void)module;
    if (target == NULL)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "no domain at address 0");
    return PyLong_FromLong(plk_module_self.api->retire(target));
}

static PyMethodDef module_methods[] = {
    {"retire", module_retire, METH_O,
     "retire(address, /)\n--\n\n"
     "Close the domain at that address in this process: 0, or a negative errno (EBUSY: a thread\n"
     "holds or waits for one of its locks)."},
    {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
                                          {Py_mod_multiple_interpreters,
                                           Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
                                          {0, NULL}};

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    PyObject **lock_type = PyModule_GetState(module);

    if (lock_type != NULL)
        Py_VISIT(*lock_type);
    return 0;
}

static int module_clear(PyObject *module)
{
    PyObject **lock_type = PyModule_GetState(module);

    if (lock_type != NULL)
        Py_CLEAR(*lock_type);
    return 0;
}

static struct PyModuleDef module_def = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "pylocks._lock",
    .m_doc = "The ticket lock and the lock array as CPython types.",
    .m_size = sizeof(PyObject *), /* the type Lock */
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__lock(void) { return PyModuleDef_Init(&module_def); }
