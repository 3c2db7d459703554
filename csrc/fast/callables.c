/* fast/callables.c - locks as plain C functions, for whatever can call an address:
 * numba, ctypes, cffi.  pylocks/callables.py says what they do and what they return.
 *
 * They are meant for threads that do not have the GIL.  One that has it all the same
 * must not keep it while it waits: the holder may be a sibling that needs it to get on. */
#include "fast/acquire.h"

#define NS_PER_S 1e9
#define LONGEST_S 3e9 /* about 95 years; no sum overflows */

#if PY_VERSION_HEX >= 0x030d0000
#define CURRENT_STATE() PyThreadState_GetUnchecked()
#else
#define CURRENT_STATE() _PyThreadState_UncheckedGet()
#endif

/* Gives the GIL back if this thread has it: what to take it back with, or NULL.  Not by
 * PyGILState_Check, which says yes to everybody once there are subinterpreters. */
static PyThreadState *gil_given_back(void)
{
    PyThreadState *mine = PyGILState_GetThisThreadState();

    return mine != NULL && mine == CURRENT_STATE() ? PyEval_SaveThread() : NULL;
}

static void gil_taken_back(PyThreadState *mine)
{
    if (mine != NULL)
        PyEval_RestoreThread(mine);
}

static struct plk_lock *handle(uintptr_t address) { return (struct plk_lock *)address; }

static int call_acquire(uintptr_t lock)
{
    struct plk_wait w;
    int rc = plk_take(handle(lock), &w);
    PyThreadState *mine;

    if (PLK_UNLIKELY(rc == 1)) {
        mine = gil_given_back();
        do
            rc = plk_wait_turn(&w);
        while (rc == -EINTR);
        gil_taken_back(mine);
    }
    return rc == 0 ? plk_entered(handle(lock)) : rc;
}

static int call_acquire_for(uintptr_t lock, double seconds)
{
    uint64_t deadline = plk_module_self.api->now();
    PyThreadState *mine;
    int rc;

    if (seconds > LONGEST_S)
        deadline = PLK_FOREVER;
    else if (seconds > 0)
        deadline += (uint64_t)(seconds * NS_PER_S);
    mine = gil_given_back();
    rc = plk_acquire_until(handle(lock), deadline);
    gil_taken_back(mine);
    return rc;
}

static int call_try_acquire(uintptr_t lock) { return plk_trylock(handle(lock)); }

static int call_release(uintptr_t lock) { return plk_unlock(handle(lock)); }

static int call_mark_consistent(uintptr_t lock) { return plk_mark_consistent(handle(lock)); }

/* Of an array, by its address and an index: a handle is made for the call. */
static int element(struct plk_lock *lock, uintptr_t array, int64_t index)
{
    if (index < 0 || index >= (int64_t)PLK_MAX_CELLS)
        return -EINVAL;
    return plk_module_self.api->lock_init(lock, (struct plk_domain *)array, (uint32_t)index);
}

#define OF_ELEMENT(name)                                           \
    static int call_##name##_at(uintptr_t array, int64_t index)    \
    {                                                              \
        struct plk_lock lock;                                      \
        int rc = element(&lock, array, index);                     \
                                                                   \
        return rc == 0 ? call_##name((uintptr_t)&lock) : rc;       \
    }

OF_ELEMENT(acquire)
OF_ELEMENT(try_acquire)
OF_ELEMENT(release)
OF_ELEMENT(mark_consistent)

static int call_acquire_for_at(uintptr_t array, int64_t index, double seconds)
{
    struct plk_lock lock;
    int rc = element(&lock, array, index);

    return rc == 0 ? call_acquire_for((uintptr_t)&lock, seconds) : rc;
}

#define CALLABLES(X)                                                               \
    X(acquire) X(acquire_for) X(try_acquire) X(release) X(mark_consistent)         \
    X(acquire_at) X(acquire_for_at) X(try_acquire_at) X(release_at) X(mark_consistent_at)

/* A dict: name -> address. */
PyObject *plk_callables(PyObject *module, PyObject *unused)
{
    static const struct {
        const char *name;
        void (*function)(void);
    } all[] = {
#define X(name) {#name, (void (*)(void))call_##name},
        CALLABLES(X)
#undef X
    };
    PyObject *found = PyDict_New();
    size_t i;

    (void)module;
    (void)unused;
    for (i = 0; found != NULL && i < sizeof(all) / sizeof(all[0]); i++) {
        PyObject *address = PyLong_FromUnsignedLongLong((uintptr_t)all[i].function);

        if (address == NULL || PyDict_SetItemString(found, all[i].name, address) != 0)
            Py_CLEAR(found);
        Py_XDECREF(address);
    }
    return found;
}
