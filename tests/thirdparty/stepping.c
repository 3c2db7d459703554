/* stepping.c - an extension for tests that stop a thread between two
 * instructions.
 *
 * Each step of the lock is a function of its own.  With traps(1) it is enclosed
 * in two breakpoints, so that a debugger knows where to begin and to end. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pylocks.h>
#include <pylocks/python.h>

PLK_MODULE("stepping");

#define HANDLES 8
static struct plk_lock locks[HANDLES];
static struct plk_wait waits[HANDLES];
static Py_ssize_t used;
static int trapping;

#define TRAP()                            \
    do {                                  \
        if (trapping)                     \
            __asm__ volatile("int3");     \
    } while (0)

/* One Python function: evaluates `what` for handle n between two traps. */
#define STEP(name, what)                                                  \
    __attribute__((noinline)) static int do_##name(struct plk_lock *lock, struct plk_wait *w) \
    {                                                                     \
        int rc;                                                           \
                                                                          \
        TRAP();                                                           \
        rc = (what);                                                      \
        TRAP();                                                           \
        (void)lock;                                                       \
        (void)w;                                                          \
        return rc;                                                        \
    }                                                                     \
    static PyObject *step_##name(PyObject *self, PyObject *number)        \
    {                                                                     \
        Py_ssize_t n = PyLong_AsSsize_t(number);                          \
                                                                          \
        (void)self;                                                       \
        if (n < 0 || n >= used)                                           \
            return PyErr_Format(PyExc_IndexError, "no such handle");      \
        return PyLong_FromLong(do_##name(&locks[n], &waits[n]));          \
    }

/* The same without the GIL, so that other threads of Python run while it is stopped. */
#define STEP_ASIDE(name, step)                                            \
    static PyObject *step_##name(PyObject *self, PyObject *number)        \
    {                                                                     \
        Py_ssize_t n = PyLong_AsSsize_t(number);                          \
        int rc;                                                           \
                                                                          \
        (void)self;                                                       \
        if (n < 0 || n >= used)                                           \
            return PyErr_Format(PyExc_IndexError, "no such handle");      \
        Py_BEGIN_ALLOW_THREADS                                            \
        rc = do_##step(&locks[n], &waits[n]);                             \
        Py_END_ALLOW_THREADS                                              \
        return PyLong_FromLong(rc);                                       \
    }

static int watch(struct plk_wait *w)
{
    plk_module_self.api->watch(w);
    return 0;
}

/* A resume needs the wait that plk_take_until would prepare. */
static int resume(struct plk_lock *lock, struct plk_wait *w)
{
    *w = (struct plk_wait){.lock = lock, .seat = plk_seat_of(lock->domain), .ticket = PLK_NO_TICKET,
                           .deadline = PLK_FOREVER, .pause = PLK_FOREVER};
    return w->seat != NULL ? plk_module_self.api->resume(w) : -EPERM;
}

/* As a signal handler that takes the next handle's lock while its thread waits for this one's. */
static int nested(struct plk_lock *lock, struct plk_wait *w)
{
    const struct plk_api *api = plk_module_self.api;
    int rc = api->nest(w);

    if (rc == 0)
        rc = plk_acquire(lock + 1);
    if (rc == 0)
        rc = plk_unlock(lock + 1);
    if (rc == 0)
        rc = api->unnest(w);
    return rc == 0 ? plk_wait_turn(w) : rc;
}

/* As one does who found the lock busy and will not wait. */
static int look(struct plk_lock *lock, struct plk_wait *w)
{
    *w = (struct plk_wait){.lock = lock, .seat = plk_seat_of(lock->domain), .ticket = PLK_NO_TICKET,
                           .deadline = PLK_FOREVER, .pause = PLK_FOREVER};
    return w->seat != NULL ? watch(w) : -EPERM;
}

static inline int take_pair(struct plk_lock *lock, struct plk_wait *w)
{
    int rc = plk_take(lock, w);

    return rc != 0 ? rc : plk_unlock(lock);
}

static inline int try_pair(struct plk_lock *lock)
{
    int rc = plk_trylock(lock);

    return rc < 0 ? rc : plk_unlock(lock);
}

STEP(nothing, 0)
STEP(take, plk_take(lock, w))
STEP(turn, plk_wait_turn(w))
STEP(acquire, plk_acquire(lock))
STEP(give_up, plk_acquire_until(lock, 0))
STEP(try_take, plk_trylock(lock))
STEP(unlock, plk_unlock(lock))
STEP(leave, plk_module_self.api->leave(w))
STEP(watch, watch(w))
STEP(look, look(lock, w))
STEP(resume, resume(lock, w))
STEP(nest, plk_module_self.api->nest(w))
STEP(unnest, plk_module_self.api->unnest(w))
STEP(take_pair, take_pair(lock, w))
STEP(try_pair, try_pair(lock))
STEP(nested, nested(lock, w))
STEP_ASIDE(acquire_aside, acquire)
STEP_ASIDE(unlock_aside, unlock)

/* bind(domain.address, lock.index) -> handle */
static PyObject *bind(PyObject *self, PyObject *args)
{
    unsigned long long address;
    unsigned index;
    int rc;

    (void)self;
    if (!PyArg_ParseTuple(args, "KI", &address, &index))
        return NULL;
    if (used == HANDLES)
        return PyErr_Format(PyExc_RuntimeError, "no more than %d handles", HANDLES);
    rc = plk_lock_init(&locks[used], (struct plk_domain *)(uintptr_t)address, index);
    if (rc != 0)
        return PyErr_Format(PyExc_OSError, "plk_lock_init: %d", rc);
    return PyLong_FromSsize_t(used++);
}

static PyObject *traps(PyObject *self, PyObject *on)
{
    (void)self;
    trapping = PyObject_IsTrue(on);
    Py_RETURN_NONE;
}

/* trap(): a breakpoint by itself. */
static PyObject *trap(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    __asm__ volatile("int3");
    Py_RETURN_NONE;
}

/* ticket(handle): of the wait that take() began. */
static PyObject *ticket(PyObject *self, PyObject *number)
{
    Py_ssize_t n = PyLong_AsSsize_t(number);

    (void)self;
    if (n < 0 || n >= used)
        return PyErr_Format(PyExc_IndexError, "no such handle");
    return PyLong_FromUnsignedLongLong(waits[n].ticket);
}

/* layout() -> {field: offset in its struct, struct: size} */
static PyObject *layout(PyObject *self, PyObject *unused)
{
    static const struct {
        const char *name;
        size_t value;
    } facts[] = {
#define FIELD(type, field) {#type "." #field, offsetof(struct plk_##type, field)}
#define SIZE(type) {#type, sizeof(struct plk_##type)}
        FIELD(header, geometry), FIELD(header, tombs_live), FIELD(header, tombs_version),
        FIELD(header, looked_ns),
        FIELD(geometry, vcpus), FIELD(geometry, channels), FIELD(geometry, tombs),
        FIELD(geometry, entries), FIELD(geometry, cells), FIELD(geometry, stride),
        FIELD(geometry, off_channels), FIELD(geometry, off_tombs), FIELD(geometry, off_entries),
        FIELD(geometry, off_vcpus), FIELD(geometry, off_cells), FIELD(geometry, off_tallies),
        FIELD(geometry, off_syncs), FIELD(geometry, off_nodes),
        FIELD(geometry, off_rings), FIELD(geometry, size),
        FIELD(cell, tail), FIELD(cell, head), FIELD(cell, owner), FIELD(cell, slow),
        FIELD(cell, flags), FIELD(channel, seq), FIELD(channel, parked), FIELD(vcpu, pending),
        FIELD(vcpu, ticket), FIELD(vcpu, held), FIELD(vcpu, channel), FIELD(vcpu, depth),
        FIELD(vcpu, outer), FIELD(vcpu, burying), FIELD(vcpu, state), FIELD(vcpu, life),
        FIELD(vcpu, tid), SIZE(vcpu), SIZE(channel), SIZE(entry), SIZE(header),
        {"tomb_window", PLK_TOMB_WINDOW},
    };
    PyObject *found = PyDict_New();
    size_t i;

    (void)self;
    (void)unused;
    for (i = 0; found != NULL && i < sizeof(facts) / sizeof(facts[0]); i++) {
        PyObject *value = PyLong_FromSize_t(facts[i].value);

        if (value == NULL || PyDict_SetItemString(found, facts[i].name, value) != 0)
            Py_CLEAR(found);
        Py_XDECREF(value);
    }
    return found;
}

#define ROW(name) {#name, step_##name, METH_O, NULL}
static PyMethodDef methods[] = {ROW(nothing), ROW(take), ROW(turn), ROW(acquire), ROW(give_up), ROW(try_take),
                                ROW(unlock), ROW(leave), ROW(watch), ROW(look), ROW(resume), ROW(nest), ROW(unnest),
                                ROW(take_pair), ROW(try_pair), ROW(nested), ROW(acquire_aside),
                                ROW(unlock_aside),
                                {"bind", bind, METH_VARARGS, NULL},
                                {"traps", traps, METH_O, NULL},
                                {"trap", trap, METH_NOARGS, NULL},
                                {"ticket", ticket, METH_O, NULL},
                                {"layout", layout, METH_NOARGS, NULL},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "stepping", NULL, -1, methods,
                                        NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_stepping(void)
{
    return plk_register_python() != 0 ? NULL : PyModule_Create(&definition);
}
