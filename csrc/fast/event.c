/* fast/event.c - the type pylocks._lock.Event. */
#include "fast/sync.h"

static PyObject *event_is_set(SyncObject *self, PyObject *unused)
{
    (void)unused;
    return plk_sync_open(self) ? PyBool_FromLong(plk_event_is_set(self->ref.sync)) : NULL;
}

static PyObject *event_set(SyncObject *self, PyObject *unused)
{
    int rc;

    (void)unused;
    if (!plk_sync_open(self))
        return NULL;
    rc = plk_event_set(self->ref.sync);
    if (PLK_UNLIKELY(rc == 1))
        rc = plk_sync_do(self, PLK_ACT_SET, 0);
    if (PLK_LIKELY(rc == 0))
        Py_RETURN_NONE;
    if (!PyErr_Occurred())
        plk_raise(rc, self->domain, &self->ref.guard);
    return NULL;
}

static PyObject *event_clear(SyncObject *self, PyObject *unused)
{
    (void)unused;
    if (!plk_sync_open(self))
        return NULL;
    plk_event_clear(self->ref.sync);
    Py_RETURN_NONE;
}

static PyObject *event_wait(SyncObject *self, PyObject *const *args, Py_ssize_t nargs, PyObject *names)
{
    double seconds;
    int32_t result;
    int rc;

    if (plk_parse_wait(args, nargs, names, &seconds) != 0)
        return NULL;
    if (!plk_sync_open(self))
        return NULL;
    if (plk_event_is_set(self->ref.sync))
        Py_RETURN_TRUE;
    rc = seconds == 0 ? 0 : plk_sync_wait_for(self, 0, seconds, &result);
    return rc < 0 ? NULL : PyBool_FromLong(rc);
}

static PyMethodDef event_methods[] = {
    {"is_set", METHOD(event_is_set), METH_NOARGS, "is_set($self, /)\n--\n\nTrue from set() until clear()."},
    {"set", METHOD(event_set), METH_NOARGS,
     "set($self, /)\n--\n\nTrue from now on; whoever waits goes on, in order of arrival, even if it is cleared at once."},
    {"clear", METHOD(event_clear), METH_NOARGS, "clear($self, /)\n--\n\nFalse from now on."},
    {"wait", METHOD(event_wait), METH_FASTCALL | METH_KEYWORDS,
     "wait($self, /, timeout=None)\n--\n\n"
     "Until it is set; True, or False if the timeout, in seconds, came first.  Raises ClosedError,\n"
     "DomainFullError, and whatever a signal handler raises."},
    {NULL, NULL, 0, NULL}};

static PyType_Slot event_slots[] = {{Py_tp_doc, "A flag to wait for; base of pylocks.Event."},
                                    {Py_tp_methods, event_methods},
                                    {0, NULL}};

PyType_Spec plk_event_spec = {"pylocks._lock.Event", sizeof(SyncObject), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, event_slots};
