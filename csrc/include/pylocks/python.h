/* pylocks/python.h - for CPython extension modules; include it after Python.h and
 * pylocks.h.  All of it is called with the GIL held. */
#ifndef PYLOCKS_PYTHON_H
#define PYLOCKS_PYTHON_H

/* Import pylocks and register this module.  0, or -1 with an exception set. */
__attribute__((unused)) static int plk_register_python(void)
{
    PyObject *core = PyImport_ImportModule("pylocks._core"), *lib = NULL, *number = NULL;
    const struct plk_api *api = NULL;
    int rc = -1;

    if (core != NULL && (lib = PyObject_GetAttrString(core, "lib")) != NULL &&
        (number = PyObject_CallMethod(lib, "plk_api_address", NULL)) != NULL)
        api = (const struct plk_api *)PyLong_AsVoidPtr(number);
    if (api != NULL && (rc = plk_register(api)) != 0)
        PyErr_Format(PyExc_ImportError,
                     "%s was compiled against pylocks ABI %u, but the installed pylocks has ABI %u: "
                     "rebuild it, or install the matching pylocks",
                     plk_module_self.name, PLK_ABI, api->abi);
    Py_XDECREF(number);
    Py_XDECREF(lib);
    Py_XDECREF(core);
    return rc == 0 ? 0 : -1;
}

/* The same for a module that learns its name, a str, when it is imported: one in Cython. */
__attribute__((unused)) static int plk_register_python_as(PyObject *name)
{
    const char *text = PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, NULL) : NULL;

    if (text == NULL) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "the name of a module is a str");
        return -1;
    }
    Py_INCREF(name); /* for ever: the table of modules points into it */
    plk_module_self.name = text;
    return plk_register_python();
}

/* object.address, if the object is one of the class; NULL: exception set. */
__attribute__((unused)) static void *plk_address_borrow(PyObject *object, const char *module, const char *kind)
{
    PyObject *found = PyImport_ImportModule(module), *type = NULL, *number = NULL;
    void *address = NULL;

    if (found != NULL && (type = PyObject_GetAttrString(found, kind)) != NULL) {
        int fits = PyObject_IsInstance(object, type);

        if (fits == 0)
            PyErr_Format(PyExc_TypeError, "a pylocks %s is needed, not %R", kind, object);
        if (fits == 1 && (number = PyObject_GetAttrString(object, "address")) != NULL)
            address = PyLong_AsVoidPtr(number);
    }
    Py_XDECREF(number);
    Py_XDECREF(type);
    Py_XDECREF(found);
    return address;
}

/* The lock within a pylocks.TicketLock; NULL: TypeError set.  Borrowed: keep a reference
 * to the object for as long as the lock is used. */
__attribute__((unused)) static struct plk_lock *plk_lock_borrow(PyObject *lock)
{
    return (struct plk_lock *)plk_address_borrow(lock, "pylocks._lock", "Lock");
}

/* The domain of a pylocks.LockArray, for plk_lock_init; NULL: TypeError set.  Borrowed
 * likewise. */
__attribute__((unused)) static struct plk_domain *plk_array_borrow(PyObject *array)
{
    return (struct plk_domain *)plk_address_borrow(array, "pylocks._lock", "Array");
}

/* Raise what pylocks raises for a negative result of plk_acquire, plk_trylock or plk_unlock on
 * this lock, a pylocks.TicketLock.  Always NULL.  (-ETIMEDOUT of plk_acquire_until and -EBUSY are
 * answers and not errors; look at them before.) */
__attribute__((unused)) static PyObject *plk_raise_python(int rc, PyObject *lock)
{
    PyObject *errors = PyImport_ImportModule("pylocks.errors"), *domain = NULL, *index = NULL, *made = NULL;

    if (errors != NULL && (domain = PyObject_GetAttrString(lock, "domain")) != NULL &&
        (index = PyObject_GetAttrString(lock, "index")) != NULL)
        made = PyObject_CallMethod(errors, "lock_error", "iOO", -rc, domain, index);
    if (made != NULL)
        PyErr_SetObject((PyObject *)Py_TYPE(made), made);
    Py_XDECREF(made);
    Py_XDECREF(index);
    Py_XDECREF(domain);
    Py_XDECREF(errors);
    return NULL;
}

#endif
