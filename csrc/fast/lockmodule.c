/* fast/lockmodule.c - pylocks._lock: locks as small CPython types.
 *
 * cffi drops and retakes the GIL around every call, which costs more than the
 * lock.  These types keep the GIL while the lock is free and release it before
 * any wait, spin or sleep: a sibling thread may be the holder.
 *
 * It includes only the public headers and is to the core what any third-party
 * extension is. */
#include "fast/sync.h"

#include <pylocks/python.h>

PLK_MODULE("pylocks._lock");

/* Each interpreter would have Domain objects of its own for the segments of one process, and a thread
 * that changes interpreters would wait for itself without being told.  The slot below refuses
 * interpreters that ask for it; those with the main one's GIL need this. */
static int refuse_subinterpreter(void)
{
    if (PyInterpreterState_Get() == PyInterpreterState_Main())
        return 0;
    PyErr_SetString(PyExc_ImportError,
                    "pylocks does not support loading in subinterpreters: a thread's place in a queue "
                    "belongs to its process; import it in the main interpreter");
    return -1;
}

/* Make the type and keep it.  NULL: exception set. */
static PyObject *add_type(PyObject *module, PyType_Spec *spec, PyObject *base)
{
    PyObject *bases = base != NULL ? PyTuple_Pack(1, base) : NULL, *type = NULL;

    if (base == NULL || bases != NULL)
        type = PyType_FromModuleAndSpec(module, spec, bases);
    Py_XDECREF(bases);
    if (type != NULL && PyModule_AddType(module, (PyTypeObject *)type) != 0)
        Py_CLEAR(type);
    return type;
}

static int module_exec(PyObject *module)
{
    PyType_Spec *others[] = {&plk_array_spec, &plk_within_spec, &plk_sync_within_spec, &plk_side_spec,
                             &plk_seat_spec};
    PyType_Spec *synced[] = {&plk_semaphore_spec, &plk_mutex_spec,     &plk_event_spec,
                             &plk_condition_spec, &plk_barrier_spec, &plk_rwlock_spec};
    struct plk_types *types = PyModule_GetState(module);
    static int at_fork;
    size_t i;

    if (refuse_subinterpreter() != 0 || plk_register_python() != 0)
        return -1;
    if (!at_fork && pthread_atfork(NULL, NULL, plk_forget_main_thread) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    at_fork = 1;
    types->lock = add_type(module, &plk_lock_spec, NULL);
    if (types->lock == NULL || (types->ordered = add_type(module, &plk_ordered_spec, types->lock)) == NULL ||
        (types->recursive = add_type(module, &plk_recursive_spec, types->lock)) == NULL)
        return -1;
    types->sync = add_type(module, &plk_sync_spec, NULL);
    if (types->sync == NULL)
        return -1;
    for (i = 0; i < sizeof(synced) / sizeof(synced[0]); i++) {
        PyObject *type = add_type(module, synced[i], types->sync);

        if (synced[i] == &plk_mutex_spec && type != NULL)
            Py_XSETREF(type, add_type(module, &plk_rmutex_spec, type));
        Py_XDECREF(type);
        if (type == NULL)
            return -1;
    }
    for (i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        PyObject *type = add_type(module, others[i], NULL);

        Py_XDECREF(type);
        if (type == NULL)
            return -1;
    }
    return 0;
}

/* Through here and not through cffi, which would let other threads acquire
 * between the look whether anybody holds a lock and the closing.  Without a GIL one may: it
 * has the lock, in a segment that stays mapped until it has released it (hv/vcpu.c). */
static PyObject *module_retire(PyObject *module, PyObject *address)
{
    struct plk_domain *target = PyLong_AsVoidPtr(address);

    (void)module;
    if (target == NULL)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "no domain at address 0");
    return PyLong_FromLong(plk_module_self.api->retire(target));
}

static void let_go(PyObject *capsule) { Py_XDECREF((PyObject *)PyCapsule_GetPointer(capsule, "pylocks.kept")); }

/* The cycle collector looks into no capsule.  What it does see, it finalizes before it runs the __del__ methods
 * of other objects in the same cycle: a segment would be gone whose locks these may still use. */
static PyObject *module_keep(PyObject *module, PyObject *object)
{
    PyObject *capsule = PyCapsule_New(object, "pylocks.kept", let_go);

    (void)module;
    if (capsule != NULL)
        Py_INCREF(object);
    return capsule;
}

static PyMethodDef module_methods[] = {
    {"keep", module_keep, METH_O, "keep(object, /)\n--\n\nWhat lets go of the object when nothing refers to it any more."},
    {"callables", plk_callables, METH_NOARGS,
     "callables()\n--\n\nName -> address of each C function that pylocks.callables describes."},
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
#ifdef Py_mod_gil
                                          /* Handles never change; what does is the thread's own, or
                                           * lies in the segment, where processes share it anyway. */
                                          {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
                                          {0, NULL}};

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    struct plk_types *types = PyModule_GetState(module);

    if (types != NULL) {
        Py_VISIT(types->lock);
        Py_VISIT(types->ordered);
        Py_VISIT(types->recursive);
        Py_VISIT(types->sync);
    }
    return 0;
}

static int module_clear(PyObject *module)
{
    struct plk_types *types = PyModule_GetState(module);

    if (types != NULL) {
        Py_CLEAR(types->lock);
        Py_CLEAR(types->ordered);
        Py_CLEAR(types->recursive);
        Py_CLEAR(types->sync);
    }
    return 0;
}

static struct PyModuleDef module_def = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "pylocks._lock",
    .m_doc = "The ticket lock and the lock array as CPython types.",
    .m_size = sizeof(struct plk_types),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__lock(void) { return PyModuleDef_Init(&module_def); }
