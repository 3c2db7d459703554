/* crew.c - what the processes do that are not killed at a chosen instruction:
 * the crew, which survives, and the corpse, which is killed between two orders. */
#include "torture.h"

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "hv/futex.h"
#include "hv/guard.h"
#include "hv/park.h"
#include "hv/recovery.h"

#define NS_PER_S 1000000000ull

static int myself = -1; /* which party this process is */

static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void complain(const char *format, ...)
{
    va_list rest;

    va_start(rest, format);
    if (__atomic_fetch_add(&stage->faults, 1, __ATOMIC_SEQ_CST) == 0)
        vsnprintf(stage->fault, sizeof(stage->fault), format, rest);
    va_end(rest);
}

/* ------------------------------------------------------- inside the lock */

void noted(uint32_t lock, int rc)
{
    struct plk_cell *cell = locks[lock].cell;
    uint32_t mine = (uint32_t)myself + 1;
    uint32_t before = __atomic_exchange_n(&stage->inside[lock], mine, __ATOMIC_SEQ_CST);
    uint32_t at = __atomic_fetch_add(&stage->entries, 1, __ATOMIC_SEQ_CST);
    uint32_t died = PLK_LOAD(&cell->flags) & PLK_CELL_OWNER_DIED;

    if (at < LOG_ROOM)
        stage->log[at] = (struct entry){.ticket = PLK_LOAD(&cell->head), .at = plk_now(),
                                        .party = (uint32_t)myself, .before = before,
                                        .lock = lock, .rc = rc, .died = died != 0};
    if (died && plk_mark_consistent(&locks[lock]) != 0)
        complain("party %d is inside lock %u and can't mark it consistent", myself, lock);
    stage->parties[myself].entries++;
}

void leaving(uint32_t lock)
{
    uint32_t mine = (uint32_t)myself + 1;
    uint32_t was = __atomic_exchange_n(&stage->inside[lock], NOBODY, __ATOMIC_SEQ_CST);

    if (was != mine)
        complain("party %d was inside lock %u, and so was %d", myself, lock, (int)was - 1);
}

int enter(uint32_t lock)
{
    struct plk_seat *seat = plk_seat_of(&segment->face);
    int rc;

    if (seat != NULL)
        seat->retired = 0; /* in an earlier run it may have been told to make room */
    rc = plk_acquire(&locks[lock]);
    if (rc >= 0)
        noted(lock, rc);
    return rc;
}

static int pass_through(uint32_t lock)
{
    int rc = enter(lock);

    if (rc < 0)
        return rc;
    sched_yield(); /* long enough for somebody who should not be here to be seen */
    leaving(lock);
    return plk_unlock(&locks[lock]);
}

/* ------------------------------------------------- halves, for the corpse */

/* The place of the tombstone of the ticket after head. */
static uint64_t *tomb_of(uint32_t lock, uint64_t ticket)
{
    uint32_t i;

    for (i = 0; i < segment->geometry.tombs; i++) {
        if (PLK_LOAD(&plk_tombs(segment)[i]) == PLK_TOMB(locks[lock].id, ticket))
            return &plk_tombs(segment)[i];
    }
    return NULL;
}

static int half_release(uint32_t lock, enum command how)
{
    struct plk_cell *cell = locks[lock].cell;
    uint64_t next = PLK_LOAD(&cell->head) + 1, *tomb;

    leaving(lock);
    PLK_STORE_RELEASE(&cell->head, next);
    if (how == DO_HAND_OVER)
        return 0;
    tomb = tomb_of(lock, next);
    if (tomb == NULL)
        return -ENOENT;
    __atomic_fetch_or(tomb, PLK_TOMB_PASSING, __ATOMIC_SEQ_CST);
    if (how == DO_PASS_HEAD)
        PLK_STORE_RELEASE(&cell->head, next + 1);
    return 0;
}

static int half_acquire(uint32_t lock, enum command how)
{
    struct plk_seat *seat = plk_seat_of(&segment->face);

    plk_announce(seat->vcpu, locks[lock].id);
    if (how == DO_DRAW)
        __atomic_fetch_add(&locks[lock].cell->tail, 1, __ATOMIC_SEQ_CST);
    return 0;
}

static int half_enroll(void)
{
    uint32_t i, used = PLK_LOAD(&segment->header->vcpus_next);
    int rc = plk_guard_lock(segment);

    for (i = 0; rc == 0 && i < used; i++) {
        struct plk_vcpu *v = plk_vcpu_at(segment, i);

        if (PLK_LOAD(&v->state) != PLK_VCPU_FREE)
            continue;
        PLK_STORE_RELEASE(&v->state, PLK_VCPU_CLAIMED);
        break;
    }
    return rc;
}

static int nest(uint32_t lock, uint32_t other)
{
    struct plk_wait w;
    int rc = plk_take(&locks[lock], &w);

    if (rc != 1)
        return rc == 0 ? -EPROTO : rc;
    rc = plk_module_self.api->nest(&w);
    return rc == 0 ? enter(other) : rc;
}

/* As a timeout at once would; natively, too, where timed acquisitions only poll. */
int queue_and_leave(uint32_t lock)
{
    struct plk_wait w;
    int rc;

    if (locks[lock].policy == PLK_BOUNDED) {
        rc = plk_acquire_until(&locks[lock], 0);
        return rc == -ETIMEDOUT ? 0 : -EPROTO;
    }
    rc = plk_take(&locks[lock], &w);

    if (rc == 1)
        rc = plk_module_self.api->leave(&w);
    return rc > 0 ? -EPROTO : rc;
}

/* ---------------------------------------------------------------- orders */

static int carry_out(enum command command, uint32_t lock)
{
    uint32_t i;
    int rc = 0;

    switch (command) {
    case DO_ENTER:
        return pass_through(lock);
    case DO_HOLD:
        return enter(lock);
    case DO_RELEASE:
        leaving(lock);
        return plk_unlock(&locks[lock]);
    case DO_LEAVE:
        return queue_and_leave(lock);
    case DO_BOTH:
        for (i = 0; i < LOCKS && rc >= 0; i++)
            rc = pass_through(i);
        return rc;
    case DO_RECOVER:
        return plk_recover(segment);
    case DO_ANNOUNCE:
    case DO_DRAW:
        return half_acquire(lock, command);
    case DO_HAND_OVER:
    case DO_PASS_MARK:
    case DO_PASS_HEAD:
        return half_release(lock, command);
    case DO_NEST:
        return nest(lock, M);
    case DO_GUARD:
        return half_enroll();
    case DO_NOTHING:
        return 0;
    }
    return -EINVAL;
}

/* Sleep while *word is `value`, at most until the time. */
static void sleep_on(uint32_t *word, uint32_t value, uint64_t until)
{
    struct timespec ts = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};

    syscall(SYS_futex, word, FUTEX_WAIT_BITSET, value, until != PLK_FOREVER ? &ts : NULL, NULL,
            FUTEX_BITSET_MATCH_ANY);
}

static void wake(uint32_t *word) { syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0); }

static void enroll(struct party *me)
{
    struct plk_seat *seat;
    int rc = 0;

    seat = plk_seat_get(&segment->face, &rc);
    if (seat == NULL)
        complain("party %d could not become a vCPU: %d", myself, rc);
    else
        me->slot = (uint32_t)seat->tag - 1;
}

void serve_orders(int who)
{
    struct party *me = &stage->parties[who];
    uint32_t done = 0;

    myself = who;
    if (who != VICTIM)
        enroll(me);
    for (;;) {
        PLK_STORE_RELEASE(&me->answered, done);
        wake(&me->answered);
        while (PLK_LOAD_ACQUIRE(&me->order) == done)
            sleep_on(&me->order, done, PLK_FOREVER);
        plk_watchdog_set(me->watchdog_ns);
        me->rc = carry_out((enum command)me->command, me->lock);
        done++;
    }
}

void be_victim(void) { myself = VICTIM; }

/* --------------------------------------------------- the tracer's side of it */

uint64_t crew_watchdog_ns;

void give(int who, enum command command, uint32_t lock)
{
    struct party *p = &stage->parties[who];

    p->command = command;
    p->lock = lock;
    p->watchdog_ns = crew_watchdog_ns;
    p->rc = 0;
    PLK_STORE_RELEASE(&p->order, p->order + 1);
    wake(&p->order);
}

int answered(int who)
{
    return PLK_LOAD_ACQUIRE(&stage->parties[who].answered) == stage->parties[who].order;
}

struct plk_vcpu *vcpu_of(int who) { return plk_vcpu_at(segment, stage->parties[who].slot); }

/* First in the queue of L, and without a ticket of the gate. */
static int stands_by(int who, const struct plk_vcpu *v)
{
    const struct plk_cell *queue = plk_queue_cell(locks[L].cell);
    uint64_t head = PLK_LOAD_ACQUIRE(&queue->head);

    return config.policy == PLK_BOUNDED && v != NULL && PLK_LOAD(&v->pending) == 0 &&
           PLK_LOAD(&queue->owner) == PLK_OWNER(head, stage->parties[who].slot + 1) &&
           PLK_LOAD(&queue->tail) != head && PLK_LOAD(&v->channel) != 0;
}

static int waits_in_queue(const struct plk_vcpu *v)
{
    uint64_t ticket = PLK_LOAD_ACQUIRE(&v->ticket);

    return ticket != PLK_NO_TICKET && PLK_LOAD(&v->wait_since) != 0 &&
           ticket != PLK_LOAD_ACQUIRE(&plk_queue_cell(locks[L].cell)->head);
}

int waits(int who)
{
    const struct plk_vcpu *v = vcpu_of(who);
    uint64_t pending = v != NULL ? PLK_LOAD_ACQUIRE(&v->pending) : 0, ticket;
    uint32_t i;

    if (stands_by(who, v))
        return 1;
    if (config.policy == PLK_BOUNDED && pending == locks[L].id + 1)
        return waits_in_queue(v);
    for (i = 0; i < LOCKS; i++) {
        if (pending != locks[i].id)
            continue;
        ticket = PLK_LOAD_ACQUIRE(&v->ticket);
        return ticket != PLK_NO_TICKET && ticket != PLK_LOAD_ACQUIRE(&locks[i].cell->head) &&
               PLK_LOAD(&v->wait_since) != 0;
    }
    return 0;
}

static uint64_t patience_from_now(void)
{
    return plk_now() + (uint64_t)(config.patience * (double)NS_PER_S);
}

int await(int who)
{
    struct party *p = &stage->parties[who];
    uint64_t until = patience_from_now();
    uint32_t seen;

    while (!answered(who)) {
        if (plk_now() >= until)
            return -ETIMEDOUT;
        seen = PLK_LOAD_ACQUIRE(&p->answered);
        if (seen != p->order)
            sleep_on(&p->answered, seen, until);
    }
    return 0;
}

int await_waiting(int who)
{
    uint64_t until = patience_from_now();

    while (!waits(who)) {
        if (answered(who))
            return -EPROTO;
        if (plk_now() >= until)
            return -ETIMEDOUT;
        sched_yield();
    }
    return 0;
}
