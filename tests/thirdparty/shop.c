/* shop.c - a third-party extension: what <pylocks.h> offers, used by somebody
 * who has nothing but the public headers.  A counter in shared memory, sold from
 * by C here and by Python elsewhere, under one and the same lock.
 *
 * With -DSHOP_PARTS the counter is in another translation unit, shop_parts.c.
 * With -DSHOP_UNREGISTERED it forgets to register, which must not go unnoticed;
 * with -DSHOP_HANDMADE it moreover fills its handles by itself. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <pylocks.h>
#include <pylocks/python.h>

PLK_MODULE("shop");

#ifdef SHOP_PARTS
int shop_sell(struct plk_lock *lock, volatile unsigned long *stock, unsigned long n);
#else
#include "shop_parts.c"
#endif

#define SHOP_LOCKS 8
static struct plk_lock locks[SHOP_LOCKS];
static Py_ssize_t used;

/* bind(domain.address, lock.index) -> handle */
static PyObject *shop_bind(PyObject *self, PyObject *args)
{
    unsigned long long address;
    unsigned index;
    int rc;

    (void)self;
    if (!PyArg_ParseTuple(args, "KI", &address, &index))
        return NULL;
    if (used == SHOP_LOCKS)
        return PyErr_Format(PyExc_RuntimeError, "no more than %d handles", SHOP_LOCKS);
#ifdef SHOP_HANDMADE
    locks[used] = (struct plk_lock){.domain = (struct plk_domain *)(uintptr_t)address, .id = index + 1ull};
    rc = 0;
#else
    rc = plk_lock_init(&locks[used], (struct plk_domain *)(uintptr_t)address, index);
#endif
    if (rc != 0)
        return PyErr_Format(PyExc_OSError, "plk_lock_init: %d", rc);
    return PyLong_FromSsize_t(used++);
}

static struct plk_lock *handle(PyObject *number)
{
    Py_ssize_t n = PyLong_AsSsize_t(number);

    if (n < 0 || n >= used) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_IndexError, "no such handle");
        return NULL;
    }
    return &locks[n];
}

/* acquire(handle) -> 0 or a negative errno */
static PyObject *shop_acquire(PyObject *self, PyObject *number)
{
    struct plk_lock *lock = handle(number);
    int rc;

    (void)self;
    if (lock == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    rc = plk_acquire(lock);
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(rc);
}

/* acquire_for(handle, seconds) -> 0 or a negative errno */
static PyObject *shop_acquire_for(PyObject *self, PyObject *args)
{
    struct plk_lock *lock;
    PyObject *number;
    double seconds;
    int rc;

    (void)self;
    if (!PyArg_ParseTuple(args, "Od", &number, &seconds) || (lock = handle(number)) == NULL)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    rc = plk_acquire_until(lock, plk_module_self.api->now() + (uint64_t)(seconds * 1e9));
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(rc);
}

/* try_acquire(handle) -> 0, -EBUSY or another negative errno */
static PyObject *shop_try_acquire(PyObject *self, PyObject *number)
{
    struct plk_lock *lock = handle(number);

    (void)self;
    return lock == NULL ? NULL : PyLong_FromLong(plk_trylock(lock));
}

/* release(handle) -> 0 or -EPERM */
static PyObject *shop_release(PyObject *self, PyObject *number)
{
    struct plk_lock *lock = handle(number);

    (void)self;
    return lock == NULL ? NULL : PyLong_FromLong(plk_unlock(lock));
}

/* sell(handle, stock, n): n times, under the lock, take one from the number that
 * begins the writable buffer `stock`.  -> 0 or a negative errno */
static PyObject *shop_sell_many(PyObject *self, PyObject *args)
{
    struct plk_lock *lock;
    PyObject *number;
    Py_buffer stock;
    unsigned long n;
    int rc;

    (void)self;
    if (!PyArg_ParseTuple(args, "Ow*k", &number, &stock, &n))
        return NULL;
    lock = handle(number);
    if (lock == NULL || stock.len < (Py_ssize_t)sizeof(unsigned long)) {
        PyBuffer_Release(&stock);
        return lock == NULL ? NULL : PyErr_Format(PyExc_ValueError, "the buffer is too short");
    }
    Py_BEGIN_ALLOW_THREADS
    rc = shop_sell(lock, stock.buf, n);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&stock);
    return PyLong_FromLong(rc);
}

static PyMethodDef methods[] = {{"bind", shop_bind, METH_VARARGS, NULL},
                                {"acquire", shop_acquire, METH_O, NULL},
                                {"acquire_for", shop_acquire_for, METH_VARARGS, NULL},
                                {"try_acquire", shop_try_acquire, METH_O, NULL},
                                {"release", shop_release, METH_O, NULL},
                                {"sell", shop_sell_many, METH_VARARGS, NULL},
                                {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "shop", NULL, -1, methods,
                                        NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_shop(void)
{
#ifndef SHOP_UNREGISTERED
    if (plk_register_python() != 0)
        return NULL;
#endif
    return PyModule_Create(&definition);
}
