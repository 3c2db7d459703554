/* hv/fibre.c - a thread that does several things in turns, each a vCPU of its own.
 *
 * The tasks of an event loop exclude each other, and several of them may wait for one
 * lock at once, each in its place.  So each needs what a vCPU has: a tag for the owner record, a
 * pending ticket, a count of what it holds.  A fibre is a seat like that of the thread itself,
 * in a slot of its own, of which nobody but this process can tell that it is one: tickets,
 * tombstones and recovery know of vCPUs alone.
 *
 * Life.  A fibre's life word is held by its thread, like the thread's own, and so the fibre dies
 * with it.  The kernel marks no more than 2048 words of one thread (ROBUST_LIST_LIMIT), the
 * youngest first; one beyond that is found out when its turn comes, by asking for the
 * thread (plk_head_lapsed), a watchdog's time later.  pylocks.aio keeps below that.
 *
 * Who may touch it.  Only its thread can take it and let it go, because only that can lock and
 * unlock the life word.  What lies between, tickets and holds, may be done by any thread of the
 * process, one at a time: the caller sees to that.  But its thread may end meanwhile, and the
 * slot then be recovered and another's.  So another thread works on it between plk_fibre_begin and
 * plk_fibre_end alone, and looks first whether seat.vcpu is there: a thread that ends takes
 * it away under the same mutex, before it is dead to anybody.
 *
 * Memory.  The structure belongs to whoever enrolled it, and outlives the registration: once the
 * thread or the domain is gone, or in a forked child, seat.vcpu is NULL and nothing but
 * plk_fibre_drop is left to be done.  Dropped by another thread it stays in its thread's list,
 * until that enrolls again or ends. */
#include "hv/fibre.h"

#include <stdlib.h>

#include "hv/vcpu.h"
#include "recover/life.h"

struct plk_fibre {
    struct plk_seat seat;    /* first: it is what callers know */
    struct plk_table *table; /* its thread's; NULL: that has ended, or this is a child of its process */
    struct plk_fibre *next, **prev; /* links are changed by its thread alone, with plk_local held */
    uint32_t id;             /* of the domain, while seat.vcpu is not NULL */
    int dropped;             /* by another thread: to be freed by its own; under plk_local */
};

/* Before plk_local, if both are taken. */
static pthread_mutex_t plk_fibre_mutex = PTHREAD_MUTEX_INITIALIZER;

void plk_fibre_begin(void) { pthread_mutex_lock(&plk_fibre_mutex); }

void plk_fibre_end(void) { pthread_mutex_unlock(&plk_fibre_mutex); }

static void plk_fibre_unlink(struct plk_fibre *f)
{
    *f->prev = f->next;
    if (f->next != NULL)
        f->next->prev = f->prev;
    f->table = NULL;
}

int plk_fibre_enroll(struct plk_domain *domain, struct plk_seat **seat)
{
    struct plk_table *table = plk_thread_seats() != NULL ? plk_table_here() : NULL;
    struct plk_fibre *f = table != NULL ? calloc(1, sizeof(*f)) : NULL;
    int rc;

    if (f == NULL)
        return -ENOMEM;
    pthread_mutex_lock(&plk_local);
    f->id = plk_segment_of(domain)->id;
    f->table = table;
    f->next = table->fibres;
    f->prev = &table->fibres;
    if (f->next != NULL)
        f->next->prev = &f->next;
    table->fibres = f;
    pthread_mutex_unlock(&plk_local);
    *seat = &f->seat;
    rc = plk_seat_take(plk_segment_of(domain), *seat);
    if (rc != 0)
        plk_fibre_drop(*seat);
    return rc;
}

void plk_fibre_drop(struct plk_seat *seat)
{
    struct plk_fibre *f = (struct plk_fibre *)(void *)seat;
    int mine, gone;

    pthread_mutex_lock(&plk_local);
    gone = f->table == NULL;
    mine = !gone && f->table == plk_table_here();
    f->dropped = 1;
    pthread_mutex_unlock(&plk_local);
    if (mine) {
        if (f->seat.vcpu != NULL)
            plk_seat_leave(&f->seat, plk_segment_by_id(f->id));
        pthread_mutex_lock(&plk_local);
        plk_fibre_unlink(f);
        pthread_mutex_unlock(&plk_local);
    }
    if (mine || gone)
        free(f);
}

void plk_fibres_leave(struct plk_table *table, int all)
{
    struct plk_fibre *f = table != NULL ? table->fibres : NULL, *next;

    for (; f != NULL; f = next) {
        struct plk_segment *s = f->seat.vcpu != NULL ? plk_segment_by_id(f->id) : NULL;
        int dropped;

        next = f->next;
        pthread_mutex_lock(&plk_local);
        dropped = f->dropped;
        pthread_mutex_unlock(&plk_local);
        if (s != NULL && (all || dropped || (PLK_LOAD(&s->closed) && !plk_vcpu_busy(f->seat.vcpu)))) {
            plk_fibre_begin();
            plk_seat_leave(&f->seat, s);
            plk_fibre_end();
        }
        if (!all && !dropped)
            continue;
        pthread_mutex_lock(&plk_local);
        dropped = f->dropped; /* perhaps meanwhile */
        plk_fibre_unlink(f);
        pthread_mutex_unlock(&plk_local);
        if (dropped)
            free(f);
    }
}

void plk_fibres_forget(struct plk_table *table)
{
    struct plk_fibre *f = table->fibres, *next;

    for (; f != NULL; f = next) {
        next = f->next;
        if (f->seat.vcpu != NULL)
            plk_segment_by_id(f->id)->references--;
        plk_seat_clear(&f->seat);
        f->table = NULL;
        if (f->dropped)
            free(f);
    }
    table->fibres = NULL;
}

void plk_fibres_forked(void) { pthread_mutex_init(&plk_fibre_mutex, NULL); }

int plk_fibres_busy(const struct plk_table *table, uint32_t id)
{
    const struct plk_fibre *f;

    for (f = table->fibres; f != NULL; f = f->next) {
        const struct plk_vcpu *v = f->id == id ? f->seat.vcpu : NULL;

        if (v != NULL && (PLK_LOAD(&v->held) != 0 || PLK_LOAD(&v->pending) != 0))
            return 1;
    }
    return 0;
}
