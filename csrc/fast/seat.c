/* fast/seat.c - the type pylocks._lock.Seat: a fibre of this thread (hv/fibre.c), with
 * its place in one queue; what pylocks.aio gives to a task.
 *
 * Nothing here waits.  take() queues; step() looks whether the turn has come, and enters then;
 * between two steps arm() and disarm() enclose a sleep that somebody else sleeps.  So
 *
 *       arm: parked, slow, fence, look at head      (hv/park.c, [K1])
 *       sleep while the word is the same            futex_waitv, in a thread for many
 *       disarm; step
 *
 * is plk_wait_turn, taken apart.  Of a bounded lock the steps are those of plk_wait_gate, but
 * it never spins: it takes the gate if that is free, and else queues at once.
 *
 * All methods keep the GIL, which is what makes them one at a time: those of a seat that waits are
 * called by the thread that watches, too, which enters on behalf of the loop's.  Of that only the
 * end has to be kept away besides (work_begins). */
#include "fast/acquire.h"

typedef struct {
    PyObject_HEAD
    struct plk_seat *seat; /* NULL: closed */
    const struct plk_domain *target; /* no Python reference: a seat that nobody uses keeps no domain open */
    PyObject *task, *pool; /* pylocks.aio's: whose it is, and where it came from */
    PyTypeObject *lock_type;
    LockObject *waits; /* the lock for which `w` waits, or NULL */
    struct plk_wait w;
    struct plk_vigil vigil;
    char kept; /* pylocks.aio's: its task keeps it */
} SeatObject;

/* While it has its slot it keeps the segment. */
static int is_live(const SeatObject *self)
{
    return self->seat != NULL && self->seat->vcpu != NULL && PLK_LOAD(&self->target->id) != PLK_CLOSED_DOMAIN;
}

/* The lock that arg is, of the seat's domain, with both there to be used.  NULL: exception set. */
static LockObject *lock_of(SeatObject *self, PyObject *arg)
{
    LockObject *lock = (LockObject *)arg;

    if (!PyObject_TypeCheck(arg, self->lock_type) || lock->lock.domain != self->target) {
        PyErr_Format(PyExc_TypeError, "a lock of this seat's domain is needed, not %R", arg);
        return NULL;
    }
    if (is_live(self))
        return lock;
    plk_raise(-ESHUTDOWN, lock->domain, &lock->lock);
    return NULL;
}

/* Begin to work on a wait, by whatever thread.  1: until work_ends(); 0: it is gone with its
 * thread, or there was none. */
static int work_begins(SeatObject *self)
{
    if (self->waits == NULL || self->seat == NULL)
        return 0;
    plk_module_self.api->fibre_begin();
    if (self->seat->vcpu != NULL)
        return 1;
    plk_module_self.api->fibre_end();
    return 0;
}

static void work_ends(void) { plk_module_self.api->fibre_end(); }

static int holds(const SeatObject *self, const struct plk_lock *lock)
{
    return PLK_LOAD(&lock->cell->owner) == PLK_OWNER(PLK_LOAD(&lock->cell->head), self->seat->tag);
}

static void wait_is_over(SeatObject *self) { Py_CLEAR(self->waits); }

static PyObject *entered(const LockObject *lock)
{
    return PyLong_FromLong(plk_entered(&lock->lock) == PLK_OWNER_DIED ? -2 : -1);
}

/* It may neither be of a domain that is gone, nor wait for another lock. */
static int is_usable(const SeatObject *self) { return self->waits == NULL && is_live(self); }

static PyObject *seat_take(SeatObject *self, PyObject *arg)
{
    LockObject *lock;

    PLK_SITE_FRAME();
    if (!is_usable(self))
        return PyLong_FromLong(-3);
    if ((lock = lock_of(self, arg)) == NULL)
        return NULL;
    if (plk_take_seated(&lock->lock, self->seat, &self->w) == 0)
        return entered(lock);
    self->waits = (LockObject *)Py_NewRef(arg);
    self->vigil.word = NULL;
    plk_wait_begins(&self->w);
    if (self->w.gate != NULL)
        plk_join_queue(&self->w);
    return PyLong_FromUnsignedLongLong(self->w.ticket);
}

static PyObject *seat_take_free(SeatObject *self, PyObject *arg)
{
    LockObject *lock = lock_of(self, arg);

    if (lock == NULL)
        return NULL;
    return plk_trylock_seated(&lock->lock, self->seat) == 0 ? entered(lock) : PyLong_FromLong(0);
}

/* Of a bounded lock.  1: entered. */
static int step_to_gate(struct plk_wait *w)
{
    const struct plk_api *api = plk_module_self.api;

    for (;;) {
        if (w->stage == PLK_STAGE_STANDBY) {
            if (plk_take_free(w->gate, w->seat) == 0)
                break;
            if (!api->queue_promoted(w))
                return 0;
            w->stage = PLK_STAGE_GATE;
            if (plk_come_to_gate(w))
                break;
        }
        if (PLK_LOAD_ACQUIRE(&w->lock->cell->head) != w->ticket)
            return 0;
        plk_granted(w);
        if (w->stage == PLK_STAGE_GATE)
            break;
        w->stage = PLK_STAGE_STANDBY;
    }
    plk_wait_ends(w);
    api->queue_pass(w, 0);
    return 1;
}

/* 1: entered. */
static int step(struct plk_wait *w)
{
    if (w->gate != NULL)
        return step_to_gate(w);
    return PLK_LOAD_ACQUIRE(&w->lock->cell->head) == w->ticket && plk_granted(w) == 0;
}

static PyObject *seat_step(SeatObject *self, PyObject *unused)
{
    int inside;

    (void)unused;
    if (!work_begins(self))
        Py_RETURN_FALSE;
    inside = step(&self->w);
    if (inside)
        plk_module_self.api->vigil_end(&self->w, &self->vigil);
    work_ends();
    if (inside)
        wait_is_over(self);
    return PyBool_FromLong(inside);
}

static PyObject *seat_arm(SeatObject *self, PyObject *unused)
{
    int sleeps;

    (void)unused;
    if (!work_begins(self))
        Py_RETURN_NONE;
    plk_module_self.api->vigil_end(&self->w, &self->vigil);
    sleeps = plk_module_self.api->vigil_begin(&self->w, &self->vigil);
    work_ends();
    if (!sleeps)
        Py_RETURN_NONE;
    return Py_BuildValue("KIK", (unsigned long long)(uintptr_t)self->vigil.word,
                         (unsigned int)self->vigil.seq, (unsigned long long)self->vigil.until);
}

static PyObject *seat_disarm(SeatObject *self, PyObject *Py_UNUSED(unused))
{
    if (work_begins(self)) {
        plk_module_self.api->vigil_end(&self->w, &self->vigil);
        work_ends();
    }
    Py_RETURN_NONE;
}

static PyObject *seat_look(SeatObject *self, PyObject *Py_UNUSED(unused))
{
    if (!work_begins(self))
        return PyLong_FromLong(0);
    plk_module_self.api->vigil_look(&self->w);
    work_ends();
    return PyLong_FromUnsignedLongLong(self->w.watch);
}

static PyObject *seat_search(SeatObject *self, PyObject *unused)
{
    int found;

    (void)unused;
    if (!work_begins(self))
        Py_RETURN_FALSE;
    found = self->w.lock->domain->detects != 0 && plk_module_self.api->search(&self->w);
    work_ends();
    return PyBool_FromLong(found);
}

/* 1: left; 0: no tombstone is free. */
static int leave(SeatObject *self)
{
    const struct plk_api *api = plk_module_self.api;
    struct plk_wait *w = &self->w;

    PLK_SITE_FRAME();
    api->vigil_end(w, &self->vigil);
    if ((w->gate == NULL || w->stage != PLK_STAGE_STANDBY) && api->leave(w) < 0)
        return 0;
    if (w->gate != NULL) {
        PLK_EVENT_AT(w->gate->domain, w->seat->vcpu, gave_up, w->gate->id, 0);
        if (w->stage != PLK_STAGE_QUEUE)
            api->queue_pass(w, 1);
        PLK_STORE(&w->seat->vcpu->wait_since, 0);
    }
    return 1;
}

static PyObject *seat_leave(SeatObject *self, PyObject *unused)
{
    int left = 1;

    (void)unused;
    if (work_begins(self)) {
        left = leave(self);
        work_ends();
    }
    if (left)
        wait_is_over(self);
    return PyBool_FromLong(left);
}

static PyObject *seat_release(SeatObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    LockObject *lock = nargs >= 1 ? lock_of(self, args[0]) : NULL;
    int rc;

    if (lock == NULL)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_TypeError, "release() needs a lock");
    /* Its task has ended inside: the next is told, as if a thread had died.  [D2] flag before head */
    if (nargs == 2 && args[1] == Py_True && holds(self, &lock->lock))
        __atomic_fetch_or(&lock->lock.cell->flags, PLK_CELL_OWNER_DIED, __ATOMIC_SEQ_CST);
    rc = plk_unlock_seated(&lock->lock, lock->lock.cell, self->seat);
    if (rc == 0)
        Py_RETURN_NONE;
    plk_raise(rc, lock->domain, &lock->lock);
    return NULL;
}

static PyObject *seat_mark_consistent(SeatObject *self, PyObject *arg)
{
    LockObject *lock = lock_of(self, arg);
    int rc;

    if (lock == NULL)
        return NULL;
    rc = plk_mark_seated(&lock->lock, self->seat);
    if (rc == 0)
        Py_RETURN_NONE;
    plk_raise(rc, lock->domain, &lock->lock);
    return NULL;
}

/* The cycle is read from the thread's own seat: by it, and now. */
static PyObject *seat_deadlock(SeatObject *self, PyObject *arg)
{
    LockObject *lock = lock_of(self, arg);
    struct plk_seat *own;
    struct plk_cycle *cycle;

    if (lock == NULL || (own = plk_seat_for(&lock->lock, lock->domain)) == NULL)
        return NULL;
    cycle = own->cycle;
    own->cycle = self->seat->cycle;
    self->seat->cycle = cycle;
    plk_raise(-ELOOP, lock->domain, &lock->lock);
    return NULL;
}

static PyObject *seat_forget(SeatObject *self, PyObject *Py_UNUSED(unused))
{
    if (self->seat != NULL)
        self->seat->left_count = 0;
    Py_RETURN_NONE;
}

static PyObject *seat_close(SeatObject *self, PyObject *Py_UNUSED(unused))
{
    struct plk_seat *seat = self->seat;

    if (work_begins(self)) {
        leave(self); /* or it is left to recovery */
        work_ends();
    }
    wait_is_over(self);
    self->seat = NULL;
    if (seat != NULL)
        plk_module_self.api->fibre_drop(seat);
    Py_RETURN_NONE;
}

static PyObject *seat_get_held(SeatObject *self, void *Py_UNUSED(unused))
{
    const struct plk_vcpu *v;
    unsigned long held;

    plk_module_self.api->fibre_begin();
    v = self->seat != NULL ? self->seat->vcpu : NULL;
    held = v != NULL ? PLK_LOAD(&v->held) : 0;
    plk_module_self.api->fibre_end();
    return PyLong_FromUnsignedLong(held);
}

enum seat_flag { SEAT_WAITS, SEAT_BOUNDED, SEAT_LIVE, SEAT_USABLE };

static PyObject *seat_get_flag(SeatObject *self, void *which)
{
    switch ((enum seat_flag)(uintptr_t)which) {
    case SEAT_WAITS: return PyBool_FromLong(self->waits != NULL);
    case SEAT_BOUNDED: return PyBool_FromLong(self->w.gate != NULL);
    case SEAT_LIVE: return PyBool_FromLong(is_live(self));
    default: return PyBool_FromLong(is_usable(self));
    }
}

/* Seat(lock): one of this thread, in the lock's domain */
static PyObject *seat_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *module = PyType_GetModule(type), *arg;
    struct plk_types *types = module != NULL ? PyModule_GetState(module) : NULL;
    SeatObject *self;
    LockObject *lock;
    int rc;

    (void)kwargs;
    if (types == NULL || !PyArg_ParseTuple(args, "O!:Seat", types->lock, &arg))
        return NULL;
    lock = (LockObject *)arg;
    if (plk_seat_for(&lock->lock, lock->domain) == NULL) /* and what belongs to a thread's first use */
        return NULL;
    self = (SeatObject *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->target = lock->lock.domain;
    self->lock_type = (PyTypeObject *)Py_NewRef(types->lock);
    Py_BEGIN_ALLOW_THREADS
    rc = plk_module_self.api->fibre_enroll(lock->lock.domain, &self->seat);
    Py_END_ALLOW_THREADS
    if (rc == 0)
        return (PyObject *)self;
    self->seat = NULL;
    plk_raise(rc, lock->domain, &lock->lock);
    Py_DECREF(self);
    return NULL;
}

static int seat_traverse(SeatObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->task);
    Py_VISIT(self->pool);
    Py_VISIT(self->lock_type);
    Py_VISIT((PyObject *)self->waits);
    return 0;
}

static int seat_clear(SeatObject *self)
{
    Py_CLEAR(self->task);
    Py_CLEAR(self->pool);
    return 0;
}

static void seat_dealloc(SeatObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    Py_XDECREF(seat_close(self, NULL));
    seat_clear(self);
    Py_CLEAR(self->lock_type);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef seat_methods[] = {
    {"take", METHOD(seat_take), METH_O,
     "take($self, lock, /)\n--\n\n"
     "-1: the lock is entered; -2: and a holder died inside; -3: the seat is not usable; else the\n"
     "ticket that now waits."},
    {"take_free", METHOD(seat_take_free), METH_O,
     "take_free($self, lock, /)\n--\n\nThe same if the lock is free; else 0, and nothing waits."},
    {"step", METHOD(seat_step), METH_NOARGS, "step($self, /)\n--\n\nTrue if the turn has come: the lock is entered."},
    {"arm", METHOD(seat_arm), METH_NOARGS,
     "arm($self, /)\n--\n\n"
     "(address, value, until): sleep while that futex word has that value, at most until then\n"
     "(CLOCK_MONOTONIC, ns).  None: step() instead."},
    {"disarm", METHOD(seat_disarm), METH_NOARGS, "disarm($self, /)\n--\n\nNobody sleeps for it any more."},
    {"look", METHOD(seat_look), METH_NOARGS,
     "look($self, /)\n--\n\nLook after the queue and the dead, if it is time; when it is next (ns)."},
    {"search", METHOD(seat_search), METH_NOARGS,
     "search($self, /)\n--\n\nTrue if it waits for itself through others, and is the one to leave."},
    {"leave", METHOD(seat_leave), METH_NOARGS,
     "leave($self, /)\n--\n\nGive up the place.  False: no room to note that; try again later."},
    {"release", METHOD(seat_release), METH_FASTCALL,
     "release($self, lock, died=False, /)\n--\n\n"
     "Give the lock to the next; died: and have it hear that its holder died.  NotOwnerError."},
    {"mark_consistent", METHOD(seat_mark_consistent), METH_O,
     "mark_consistent($self, lock, /)\n--\n\nAs Lock.mark_consistent."},
    {"deadlock", METHOD(seat_deadlock), METH_O,
     "deadlock($self, lock, /)\n--\n\nRaise the DeadlockError for what search() found."},
    {"forget", METHOD(seat_forget), METH_NOARGS,
     "forget($self, /)\n--\n\nGive up all claims to places that were left."},
    {"close", METHOD(seat_close), METH_NOARGS, "close($self, /)\n--\n\nGive up the seat."},
    {NULL, NULL, 0, NULL}};

static PyGetSetDef seat_getset[] = {
    {"held", (getter)seat_get_held, NULL, "Locks held or waited for.", NULL},
    {"waits", (getter)seat_get_flag, NULL, "Whether it waits for one.", (void *)SEAT_WAITS},
    {"bounded", (getter)seat_get_flag, NULL, "The lock that it waits for has that policy.", (void *)SEAT_BOUNDED},
    {"usable", (getter)seat_get_flag, NULL, "It is live, and waits for nothing.", (void *)SEAT_USABLE},
    {"live", (getter)seat_get_flag, NULL, "False if its thread or its domain is gone, or in a forked child.",
     (void *)SEAT_LIVE},
    {NULL, NULL, NULL, NULL, NULL}};

static PyMemberDef seat_members[] = {
    {"task", T_OBJECT, offsetof(SeatObject, task), 0, "Whose it is; None: nobody's."},
    {"pool", T_OBJECT, offsetof(SeatObject, pool), 0, "Where it belongs then."},
    {"kept", T_BOOL, offsetof(SeatObject, kept), 0, "Its task keeps it when it holds nothing, too."},
    {NULL, 0, 0, 0, NULL}};

static PyType_Slot seat_slots[] = {{Py_tp_doc, "A further vCPU of this thread, and its place in a queue."},
                                   {Py_tp_new, seat_new},
                                   {Py_tp_dealloc, seat_dealloc},
                                   {Py_tp_traverse, seat_traverse},
                                   {Py_tp_methods, seat_methods},
                                   {Py_tp_getset, seat_getset},
                                   {Py_tp_members, seat_members},
                                   {Py_tp_clear, seat_clear},
                                   {0, NULL}};

PyType_Spec plk_seat_spec = {"pylocks._lock.Seat", sizeof(SeatObject), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, seat_slots};
