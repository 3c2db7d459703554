/* A type whose methods do nothing: what `with` and two calls of C methods cost, whatever is in them. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static PyObject *nothing(PyObject *self, PyObject *unused)
{
    (void)self;
    (void)unused;
    Py_RETURN_NONE;
}

static PyObject *leave(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
    (void)self;
    (void)args;
    (void)count;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"acquire", nothing, METH_NOARGS, NULL},
    {"release", nothing, METH_NOARGS, NULL},
    {"__enter__", nothing, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))leave, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {{Py_tp_methods, methods}, {0, NULL}};

static PyType_Spec spec = {
    .name = "empty_type.Empty",
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

static int execute(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&spec);
    int rc = type == NULL ? -1 : PyModule_AddObjectRef(module, "Empty", type);

    Py_XDECREF(type);
    return rc;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, (void *)execute}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "empty_type",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit_empty_type(void) { return PyModuleDef_Init(&definition); }
