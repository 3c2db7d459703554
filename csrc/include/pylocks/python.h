/* pylocks/python.h - registration for CPython extension modules; include it
 * after Python.h and pylocks.h. */
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

#endif
