/* ledger.c - a CPython extension of somebody else's: accounts in shared memory, and transfers
 * between them that threads and processes make under a pylocks.TicketLock.
 *
 * The lock's fast path is compiled into this file. Free, it costs no call; its patch sites are
 * this module's own, and pylocks.ops() lists them as "ledger". */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

#include <pylocks.h>
#include <pylocks/python.h>

PLK_MODULE("ledger");

typedef struct {
    PyObject_HEAD
    PyObject *object;      /* the TicketLock: what lock points to lives as long as it does */
    struct plk_lock *lock;
    Py_buffer accounts;    /* 64-bit numbers */
    Py_ssize_t count;
} LedgerObject;

/* [1] Between the two stores there is more money than before, or less. */
static void move(int64_t *accounts, Py_ssize_t source, Py_ssize_t target, int64_t amount)
{
    volatile int64_t *from = &accounts[source], *to = &accounts[target];

    *from = *from - amount;
    *to = *to + amount;
}

/* [2] n transfers, each under the lock.  0, or the negative errno of what went wrong. */
static int transfer(LedgerObject *ledger, Py_ssize_t source, Py_ssize_t target, int64_t amount, long n)
{
    int rc = 0;

    while (n-- > 0 && rc >= 0) {
        rc = plk_acquire(ledger->lock);
        if (rc == 0) {
            move(ledger->accounts.buf, source, target, amount);
            rc = plk_unlock(ledger->lock);
        } else if (rc == PLK_OWNER_DIED) { /* entered, amid somebody else's transfer */
            plk_unlock(ledger->lock);
            return -EOWNERDEAD;
        }
    }
    return rc;
}

static PyObject *ledger_transfer(LedgerObject *self, PyObject *args)
{
    Py_ssize_t source, target;
    long long amount;
    long n = 1;
    int rc;

    if (!PyArg_ParseTuple(args, "nnL|l:transfer", &source, &target, &amount, &n))
        return NULL;
    if (source < 0 || source >= self->count || target < 0 || target >= self->count)
        return PyErr_Format(PyExc_IndexError, "there are %zd accounts", self->count);
    Py_BEGIN_ALLOW_THREADS /* while it waits, other threads run; one of them may be the holder */
    rc = transfer(self, source, target, amount, n);
    Py_END_ALLOW_THREADS
    if (rc == -EOWNERDEAD)
        return PyErr_Format(PyExc_RuntimeError, "somebody died amid a transfer: call settle()");
    if (rc < 0)
        return plk_raise_python(rc, self->object); /* what lock.acquire() would raise */
    Py_RETURN_NONE;
}

/* [3] settle(sum) -> what was missing: makes the accounts add up again after a death. */
static PyObject *ledger_settle(LedgerObject *self, PyObject *args)
{
    int64_t *accounts = self->accounts.buf;
    long long missing;
    Py_ssize_t i;
    int rc;

    if (!PyArg_ParseTuple(args, "L:settle", &missing))
        return NULL;
    do { /* Ctrl-C is heard at least every second */
        if (PyErr_CheckSignals() != 0)
            return NULL;
        Py_BEGIN_ALLOW_THREADS
        rc = plk_acquire_until(self->lock, plk_in(1000000000));
        Py_END_ALLOW_THREADS
    } while (rc == -ETIMEDOUT);
    if (rc < 0)
        return plk_raise_python(rc, self->object);
    for (i = 0; i < self->count; i++)
        missing -= accounts[i];
    accounts[0] += missing;
    plk_mark_consistent(self->lock);
    rc = plk_unlock(self->lock);
    return rc < 0 ? plk_raise_python(rc, self->object) : PyLong_FromLongLong(missing);
}

/* Ledger(lock, buffer) */
static PyObject *ledger_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    LedgerObject *self = (LedgerObject *)type->tp_alloc(type, 0);

    (void)kwargs;
    if (self == NULL)
        return NULL;
    if (!PyArg_ParseTuple(args, "Ow*:Ledger", &self->object, &self->accounts)) {
        self->object = NULL;
        Py_DECREF(self);
        return NULL;
    }
    Py_INCREF(self->object);
    self->count = self->accounts.len / (Py_ssize_t)sizeof(int64_t);
    self->lock = plk_lock_borrow(self->object); /* TypeError, if it is no lock */
    if (self->lock == NULL)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static void ledger_dealloc(LedgerObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    Py_XDECREF(self->object);
    if (self->accounts.obj != NULL)
        PyBuffer_Release(&self->accounts);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef ledger_methods[] = {
    {"transfer", (PyCFunction)(void (*)(void))ledger_transfer, METH_VARARGS,
     "transfer(source, target, amount, n=1): n times; without the GIL."},
    {"settle", (PyCFunction)(void (*)(void))ledger_settle, METH_VARARGS,
     "settle(sum): after a death, make the accounts add up; what was missing."},
    {NULL, NULL, 0, NULL}};

static PyType_Slot ledger_slots[] = {{Py_tp_doc, "Ledger(lock, buffer): accounts under a lock."},
                                     {Py_tp_new, ledger_new},
                                     {Py_tp_dealloc, ledger_dealloc},
                                     {Py_tp_methods, ledger_methods},
                                     {0, NULL}};
static PyType_Spec ledger_spec = {"ledger.Ledger", sizeof(LedgerObject), 0, Py_TPFLAGS_DEFAULT,
                                  ledger_slots};

/* [4] */
static int ledger_exec(PyObject *module)
{
    PyObject *type;

    if (plk_register_python() != 0) /* ImportError, if the pylocks here has another ABI */
        return -1;
    type = PyType_FromSpec(&ledger_spec);
    if (type == NULL || PyModule_AddType(module, (PyTypeObject *)type) != 0) {
        Py_XDECREF(type);
        return -1;
    }
    Py_DECREF(type);
    return 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, ledger_exec}, {0, NULL}};
static struct PyModuleDef definition = {.m_base = PyModuleDef_HEAD_INIT,
                                        .m_name = "ledger",
                                        .m_slots = module_slots};

PyMODINIT_FUNC PyInit_ledger(void) { return PyModuleDef_Init(&definition); }
