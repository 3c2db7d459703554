/* hv/vcpu.c - a thread becomes a vCPU, and ceases to be one.
 *
 * A slot is taken under the domain mutex: CLAIMED, identity, life word, ONLINE.
 * It is given back by the thread itself when it ends (a thread-specific
 * destructor), or, if the thread died in any other way, by the next that looks
 * for a free slot: the life word tells.  If the dead left anything in a cell, that
 * is recovered first (hv/recovery.c).
 *
 * The life word's list node lies in the segment and the C library follows it at
 * thread exit, so the mapping outlives every seat: each seat holds a reference.
 *
 * A thread that ends while it holds keeps its slot, and its reference until the
 * kernel has walked its list: such references are strays, which later calls drop.
 *
 * Lifetime of the table of seats: modules cache its address in thread-local
 * storage, and other thread-specific destructors may still take locks, so the
 * destructor only empties the table and asks to be called again; the table is
 * freed in the last round.
 *
 * fork: the child's threads are gone but for one, and that one is another
 * thread.  The child forgets every seat (no mutex is touched: the slots belong
 * to the parent) and registers anew when it first uses a lock. */
#include "hv/vcpu.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hv/barrier.h"
#include "hv/guard.h"
#include "hv/fibre.h"
#include "hv/identity.h"
#include "hv/mutexes.h"
#include "hv/reserve.h"
#include "hv/robust.h"
#include "hv/service.h"
#include "hv/slot.h"
#include "recover/life.h"

/* Protects the list of tables, what hangs on it, and the array of segments, in this process. */
pthread_mutex_t plk_local = PTHREAD_MUTEX_INITIALIZER;
static struct plk_table *plk_tables;
static struct plk_segment *plk_segments[PLK_MAX_DOMAINS];
static pthread_key_t plk_key;
static pthread_once_t plk_once = PTHREAD_ONCE_INIT;
static int plk_once_error;
static uint32_t plk_fork_count, plk_forks_begun;

/* A reference whose thread is ending. */
struct plk_stray {
    struct plk_stray *next;
    struct plk_segment *s;
    const struct plk_vcpu *v;
    uint32_t generation; /* of the slot: another one means that it has been recovered since */
};
static struct plk_stray *plk_strays;

/* Forgotten first, then freed: a child that is forked in between must not free it again. */
void plk_seat_clear(struct plk_seat *seat)
{
    struct plk_seat old = *seat;

    memset(seat, 0, sizeof(*seat));
    __asm__ volatile("" ::: "memory");
    free(old.left);
    free(old.cycle);
    free(old.timed);
}

static void plk_stray_add(struct plk_segment *s, const struct plk_vcpu *v)
{
    struct plk_stray *stray = malloc(sizeof(*stray));

    if (stray == NULL)
        return; /* the segment stays mapped, nothing else */
    *stray = (struct plk_stray){NULL, s, v, PLK_LOAD(&v->generation)};
    pthread_mutex_lock(&plk_local);
    stray->next = plk_strays;
    plk_strays = stray;
    pthread_mutex_unlock(&plk_local);
}

/* Drop the references of threads that are gone by now. */
static void plk_strays_drop(void)
{
    struct plk_stray **at, *stray;

    do {
        pthread_mutex_lock(&plk_local);
        for (at = &plk_strays; (stray = *at) != NULL; at = &stray->next) {
            if (plk_life_of(stray->v) != PLK_LIFE_ALIVE || PLK_LOAD(&stray->v->generation) != stray->generation)
                break;
        }
        if (stray != NULL)
            *at = stray->next;
        pthread_mutex_unlock(&plk_local);
        if (stray != NULL)
            plk_segment_put(stray->s);
        free(stray);
    } while (stray != NULL);
}

void plk_seat_leave(struct plk_seat *seat, struct plk_segment *s)
{
    struct plk_vcpu *v = seat->vcpu;

    plk_seat_clear(seat);
    /* Ending while holding: leave the slot to recovery, as for any death; the
     * kernel marks the life word when the thread is gone. */
    if (PLK_LOAD(&v->held) != 0 || PLK_LOAD(&v->pending) != 0 || PLK_LOAD(&v->depth) != 0) {
        plk_stray_add(s, v);
        return;
    }
    PLK_STORE_RELEASE(&v->state, PLK_VCPU_FREE);
    plk_robust_unlock(&v->life.mutex);
    plk_segment_put(s);
}

static void plk_thread_exit(void *arg)
{
    struct plk_table *table = arg;
    uint32_t i;

    for (i = 0; i < PLK_MAX_DOMAINS; i++) {
        if (table->seats[i].vcpu == NULL)
            continue;
        plk_seat_leave(&table->seats[i], plk_segment_by_id(i));
        table->late |= table->rounds != 0;
    }
    plk_fibres_leave(table, 1);
    if (++table->rounds < PTHREAD_DESTRUCTOR_ITERATIONS) {
        pthread_setspecific(plk_key, table);
        return;
    }
    pthread_mutex_lock(&plk_local);
    *table->prev = table->next;
    if (table->next != NULL)
        table->next->prev = table->prev;
    pthread_mutex_unlock(&plk_local);
    if (!table->late)
        free(table);
}

static void plk_fork_prepare(void)
{
    plk_fibre_begin();
    pthread_mutex_lock(&plk_local);
    plk_forks_begun++;
}

static void plk_fork_parent(void)
{
    pthread_mutex_unlock(&plk_local);
    plk_fibre_end();
}

static void plk_fork_child(void)
{
    struct plk_table *mine = pthread_getspecific(plk_key), *table = plk_tables, *next;
    uint32_t i;

    struct plk_stray *stray;

    for (; (stray = plk_strays) != NULL; free(stray)) {
        plk_strays = stray->next;
        stray->s->references--;
    }
    /* Seats of the parent's other threads, and this thread's own former ones. */
    for (; table != NULL; table = next) {
        next = table->next;
        for (i = 0; i < PLK_MAX_DOMAINS; i++) {
            if (table->seats[i].vcpu != NULL)
                plk_segments[i]->references--;
            plk_seat_clear(&table->seats[i]);
        }
        plk_fibres_forget(table);
        if (table != mine)
            free(table);
    }
    plk_fork_count++;
    plk_membarrier_forked();
    plk_tables = mine;
    if (mine != NULL) {
        mine->next = NULL;
        mine->prev = &plk_tables;
    }
    pthread_mutex_init(&plk_local, NULL);
    plk_fibres_forked();
}

uint32_t plk_forks(void) { return plk_fork_count; }

static void plk_once_init(void)
{
    plk_once_error = -pthread_key_create(&plk_key, plk_thread_exit);
    if (plk_once_error == 0)
        plk_once_error = -pthread_atfork(plk_fork_prepare, plk_fork_parent, plk_fork_child);
}

uint32_t plk_forks_seen(void)
{
    pthread_once(&plk_once, plk_once_init);
    return PLK_LOAD(&plk_forks_begun);
}

struct plk_seat *plk_thread_seats(void)
{
    struct plk_table *table;

    pthread_once(&plk_once, plk_once_init);
    if (plk_once_error != 0)
        return NULL;
    table = pthread_getspecific(plk_key);
    if (table != NULL)
        return table->seats;
    table = calloc(1, sizeof(*table));
    if (table == NULL)
        return NULL;
    if (pthread_setspecific(plk_key, table) != 0) {
        free(table);
        return NULL;
    }
    pthread_mutex_lock(&plk_local);
    table->next = plk_tables;
    table->prev = &plk_tables;
    if (plk_tables != NULL)
        plk_tables->prev = &table->next;
    plk_tables = table;
    pthread_mutex_unlock(&plk_local);
    return table->seats;
}

struct plk_segment *plk_segment_by_id(uint32_t id)
{
    return id < PLK_MAX_DOMAINS ? plk_segments[id] : NULL;
}

/* Let go of what this thread still holds of domains that were closed meanwhile,
 * so that their mappings and ids come free. */
static void plk_seats_sweep(struct plk_seat *seats)
{
    uint32_t i;

    for (i = 0; i < PLK_MAX_DOMAINS; i++) {
        /* One that still holds has acquired while the domain was being closed. */
        if (seats[i].vcpu != NULL && seats[i].nodes == 0 && PLK_LOAD(&plk_segments[i]->closed) &&
            !plk_vcpu_busy(seats[i].vcpu))
            plk_seat_leave(&seats[i], plk_segments[i]);
    }
    plk_fibres_leave(plk_table_here(), 0);
}

struct plk_table *plk_table_here(void)
{
    return plk_once_error == 0 ? pthread_getspecific(plk_key) : NULL;
}

int plk_segment_publish(struct plk_segment *s)
{
    struct plk_seat *seats = plk_thread_seats();
    uint32_t i;

    if (seats == NULL)
        return -ENOMEM;
    plk_strays_drop();
    plk_seats_sweep(seats);
    pthread_mutex_lock(&plk_local);
    for (i = 0; i < PLK_MAX_DOMAINS && plk_segments[i] != NULL; i++)
        ;
    if (i < PLK_MAX_DOMAINS) {
        s->face.id = s->id = i;
        plk_segments[i] = s;
    }
    pthread_mutex_unlock(&plk_local);
    return i < PLK_MAX_DOMAINS ? 0 : -EMFILE;
}

/* Called with plk_local held; drops it.
 *
 * When the last reference goes, the file does, but not the addresses: handles
 * may still be asked whether they are locked, by threads and signal handlers
 * that have looked at `closed` just before.  They read zeros from now on, until
 * no handle is left. */
static void plk_segment_settle(struct plk_segment *s)
{
    int gone = s->references == 0 && s->released;

    if (s->references == 0 && s->fd >= 0) {
        mmap(s->base, s->geometry.size, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        if (plk_fd_is_ours(s))
            close(s->fd);
        s->fd = -1;
    }
    if (gone)
        plk_segments[s->id] = NULL; /* not before: handles index seats by this id */
    pthread_mutex_unlock(&plk_local);
    if (gone) {
        munmap(s->base, s->geometry.size);
        free(s->reserved);
        free(s);
    }
}

void plk_segment_put(struct plk_segment *s)
{
    pthread_mutex_lock(&plk_local);
    s->references--;
    plk_segment_settle(s);
}

void plk_segment_discard(struct plk_segment **holder)
{
    struct plk_segment *s = *holder;

    *holder = NULL;
    if (s == NULL)
        return;
    if (!s->closed) {
        if (plk_retire_all(&s->face) != 0)
            return; /* a thread holds a lock whose handles are gone: it stays mapped */
        plk_segment_put(s);
    }
    pthread_mutex_lock(&plk_local);
    s->released = 1;
    plk_segment_settle(s);
}

int plk_enroll(struct plk_domain *domain, struct plk_seat **seat)
{
    struct plk_segment *s = plk_segment_of(domain);
    struct plk_seat *seats = plk_thread_seats();

    if (seats == NULL)
        return -ENOMEM;
    *seat = &seats[s->id];
    if ((*seat)->vcpu != NULL && !PLK_LOAD(&s->closed))
        return 0; /* through another module */
    return plk_seat_take(s, *seat);
}

int plk_seat_take(struct plk_segment *s, struct plk_seat *seat)
{
    struct plk_identity who;
    struct plk_vcpu *v = NULL;
    uint32_t index = 0;
    int rc;

    PLK_SITE_FRAME();
    plk_strays_drop();
    plk_seats_sweep(plk_thread_seats());
    /* A reference first, so that a concurrent close can't unmap under us. */
    pthread_mutex_lock(&plk_local);
    rc = s->closed ? -ESHUTDOWN : 0;
    if (rc == 0)
        s->references++;
    pthread_mutex_unlock(&plk_local);
    if (rc != 0)
        return rc;

    who = plk_identify(); /* reads files: not under the guard */
    rc = plk_guard_lock(s);
    if (rc == 0) {
        rc = plk_slot_find(s, who.pid_ns, &index);
        if (rc == 0 && (v = plk_vcpu_at(s, index)) != NULL)
            rc = plk_slot_take(v, &who);
        plk_guard_unlock(s);
    }
    if (rc != 0) {
        plk_segment_put(s);
        return rc;
    }
    pthread_mutex_lock(&plk_local);
    *seat = (struct plk_seat){.vcpu = v, .tag = (uint64_t)index + 1};
    rc = s->closed ? -ESHUTDOWN : 0; /* closed while we were at it */
    pthread_mutex_unlock(&plk_local);
    if (rc != 0)
        plk_seat_leave(seat, s);
    else {
        PLK_EVENT_AT(&s->face, v, joined, who.tid, who.pid);
        plk_service_greet(s, v, index);
    }
    return rc;
}

int plk_segment_shut(struct plk_segment *s)
{
    int closed;

    pthread_mutex_lock(&plk_local);
    closed = (int)s->closed;
    pthread_mutex_unlock(&plk_local);
    return closed;
}

struct plk_seat *plk_seat_even_closed(struct plk_domain *domain)
{
    struct plk_table *table = plk_table_here();
    struct plk_seat *seat = table != NULL ? &table->seats[plk_segment_of(domain)->id] : NULL;

    return seat != NULL && seat->vcpu != NULL ? seat : NULL;
}

/* Is it a thread of this process?  With plk_local held. */
static int plk_holds_here(const struct plk_segment *s, uint64_t holder)
{
    const struct plk_table *table;

    for (table = plk_tables; table != NULL; table = table->next) {
        const struct plk_seat *seat = &table->seats[s->id];

        if (seat->vcpu != NULL && holder == PLK_MUTEX_HOLDER(PLK_LOAD(&seat->vcpu->generation), seat->tag))
            break;
    }
    return table != NULL;
}

int plk_retire_all(struct plk_domain *domain)
{
    struct plk_segment *s = plk_segment_of(domain);
    struct plk_seat *mine = plk_thread_seats();
    struct plk_table *table;
    uint32_t id = s->id;
    int rc = 0;

    pthread_mutex_lock(&plk_local);
    for (table = plk_tables; table != NULL; table = table->next) {
        struct plk_vcpu *v = table->seats[id].vcpu;

        if ((v != NULL && (PLK_LOAD(&v->held) != 0 || PLK_LOAD(&v->pending) != 0 ||
                           table->seats[id].nodes != 0)) ||
            plk_fibres_busy(table, id))
            rc = -EBUSY;
    }
    if (rc == 0 && (rc = plk_mutex_held_by(s, plk_holds_here) ? -EBUSY : 0) == 0) {
        s->closed = 1;
        PLK_STORE_RELEASE(&s->face.id, PLK_CLOSED_DOMAIN); /* handles find no seat from now on */
    }
    pthread_mutex_unlock(&plk_local);
    /* Only a thread itself can let go of its life word: others do at their exit,
     * and hold their references until then. */
    if (rc == 0 && mine != NULL && mine[id].vcpu != NULL)
        plk_seat_leave(&mine[id], s);
    if (rc == 0)
        plk_fibres_leave(plk_table_here(), 0);
    plk_strays_drop();
    return rc;
}
