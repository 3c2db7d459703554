/* hv/directory.c - allocation of cells, and names for them.
 *
 * Both under the domain mutex.  A look-up needs no mutex: an entry's fields are
 * written while it is FILLING and published by the one store of READY. */
#include "hv/directory.h"

#include <string.h>

#include "hv/attach.h"
#include "hv/events.h"
#include "hv/guard.h"
#include "hv/reserve.h"
#include "hv/vcpu.h"

static uint32_t plk_name_hash(const char *name, uint32_t length)
{
    uint32_t hash = 2166136261u, i; /* FNV-1a */

    for (i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)name[i]) * 16777619u;
    return hash;
}

/* A bounded lock is two cells, and stays so: a freed pair is only ever reused as one.  A guard is only
 * reused as a guard, but may be that of another kind. */
#define PLK_CELL_KIND (PLK_CELL_BOUNDED | PLK_CELL_QUEUE | PLK_CELL_SYNC)

void plk_sync_seed(struct plk_sync *sync, uint64_t initial, uint64_t limit)
{
    memset(sync, 0, sizeof(*sync));
    sync->word = sync->initial = initial;
    sync->limit = limit;
}

/* Before the cell's flags say that it is there. */
static int plk_sync_sow(struct plk_segment *s, uint32_t index, const struct plk_seed *seed)
{
    struct plk_sync *sync;
    int rc = seed != NULL ? plk_reserve_sync(s, index, &sync) : 0;

    if (rc == 0 && seed != NULL)
        plk_sync_seed(sync, seed->initial, seed->limit);
    return rc;
}

static int64_t plk_cell_reuse(struct plk_segment *s, uint32_t used, uint32_t kind, const struct plk_seed *seed)
{
    uint32_t i;

    for (i = 0; i < used; i++) {
        struct plk_cell *cell;
        int rc = plk_reserve_cell(s, i, &cell);
        uint32_t flags;

        if (rc != 0)
            return rc;
        flags = PLK_LOAD(&cell->flags);
        if ((flags & (PLK_CELL_ALLOCATED | PLK_CELL_KIND)) == (kind & PLK_CELL_KIND)) {
            rc = plk_sync_sow(s, i, seed);
            if (rc != 0)
                return rc;
            PLK_STORE(&s->header->cells_free, PLK_LOAD(&s->header->cells_free) - 1);
            PLK_STORE_RELEASE(&cell->flags,
                              ((PLK_GENERATION_OF(flags) + 1) << 16) | kind | PLK_CELL_ALLOCATED);
            return i;
        }
    }
    if (kind == 0)
        PLK_STORE(&s->header->cells_free, 0); /* the hint was wrong: a process died at it */
    return -EUSERS;
}

/* Cells that were never used, `count` in a row. */
static int64_t plk_cell_fresh(struct plk_segment *s, uint32_t used, uint32_t count)
{
    uint32_t i;

    for (i = used; i < used + count; i++) {
        struct plk_cell *cell;
        int rc = plk_reserve_cell(s, i, &cell);

        if (rc != 0)
            return rc == -EINVAL ? -EUSERS : rc;
        if ((PLK_LOAD(&cell->flags) & PLK_CELL_ALLOCATED) != 0)
            return -PLK_E_CORRUPT; /* it is a lock already: cells_next went back */
    }
    return used;
}

/* seed: of a guard, else NULL. */
static int64_t plk_cell_take(struct plk_segment *s, uint32_t policy, const struct plk_seed *seed)
{
    struct plk_header *h = s->header;
    uint32_t used = PLK_LOAD(&h->cells_next), bounded = policy & PLK_BOUNDED;
    uint32_t kind = bounded ? PLK_CELL_BOUNDED : 0;
    uint32_t count = bounded ? 2 : 1;
    int64_t index;
    int rc;

    if (seed != NULL && (seed->kind == PLK_KIND_LOCK || seed->kind >= PLK_KIND_COUNT))
        return -EINVAL;
    if ((policy & PLK_RECURSIVE) != 0)
        kind |= PLK_CELL_RECURSIVE;
    if (seed != NULL)
        kind = PLK_KIND_FLAGS(seed->kind);
    if (h->array || (policy != PLK_FIFO && s->geometry.stride != PLK_LINE))
        return -EINVAL;
    if (bounded && s->face.protocol == PLK_NATIVE)
        return -EPROTONOSUPPORT;
    if (used > s->geometry.cells)
        return -PLK_E_CORRUPT;
    if (PLK_LOAD(&h->cells_free) != 0 && (index = plk_cell_reuse(s, used, kind, seed)) != -EUSERS)
        return index;
    index = plk_cell_fresh(s, used, count);
    if (index < 0)
        return index != -EUSERS ? index : plk_cell_reuse(s, used, kind, seed);
    rc = plk_sync_sow(s, used, seed);
    if (rc != 0)
        return rc;
    PLK_STORE(&h->cells_next, used + count);
    if (bounded)
        PLK_STORE_RELEASE(&plk_cell_at(s, used + 1)->flags, PLK_CELL_QUEUE | PLK_CELL_ALLOCATED);
    PLK_STORE_RELEASE(&plk_cell_at(s, used)->flags, kind | PLK_CELL_ALLOCATED);
    return used;
}

static int64_t plk_any_new(struct plk_segment *s, uint32_t policy, const struct plk_seed *seed)
{
    int64_t index = plk_guard_lock(s);

    if (index != 0)
        return index;
    index = plk_cell_take(s, policy, seed);
    plk_guard_unlock(s);
    return index;
}

int64_t plk_cell_new(struct plk_segment *s, uint32_t policy) { return plk_any_new(s, policy, NULL); }

int64_t plk_sync_new(struct plk_segment *s, const struct plk_seed *seed) { return plk_any_new(s, PLK_FIFO, seed); }

static int plk_queue_used(struct plk_segment *s, uint32_t index, const struct plk_cell *gate)
{
    struct plk_cell *queue;

    return (PLK_LOAD(&gate->flags) & PLK_CELL_BOUNDED) != 0 && plk_reserve_cell(s, index + 1, &queue) == 0 &&
           PLK_LOAD(&queue->head) != PLK_LOAD(&queue->tail);
}

/* Somebody waits for the object, or has a node that says he holds it: that must not become another one's. */
static int plk_sync_used(struct plk_segment *s, uint32_t index, const struct plk_cell *cell)
{
    uint32_t flags = PLK_LOAD(&cell->flags), kind = PLK_KIND_OF(flags);
    struct plk_sync *sync;
    uint64_t state;

    if ((flags & PLK_CELL_SYNC) == 0 || plk_reserve_sync(s, index, &sync) != 0)
        return 0;
    state = PLK_LOAD(&sync->word) & PLK_SYNC_STATE;
    return PLK_LOAD(&sync->queued) != 0 || (kind == PLK_KIND_rwlock && state != 0) ||
           (kind == PLK_KIND_owned && state != PLK_LOAD(&sync->limit));
}

int plk_cell_free(struct plk_segment *s, uint32_t index)
{
    struct plk_cell *cell;
    int rc = plk_guard_lock(s);

    if (rc != 0)
        return rc;
    rc = plk_reserve_cell(s, index, &cell);
    if (rc != 0 || index >= PLK_LOAD(&s->header->cells_next) ||
        (PLK_LOAD(&cell->flags) & (PLK_CELL_ALLOCATED | PLK_CELL_QUEUE)) != PLK_CELL_ALLOCATED)
        rc = -EINVAL;
    else if (PLK_LOAD(&cell->head) != PLK_LOAD(&cell->tail) || plk_queue_used(s, index, cell) ||
             plk_sync_used(s, index, cell))
        rc = -EBUSY;
    else {
        PLK_STORE_RELEASE(&cell->flags, PLK_LOAD(&cell->flags) & ~(uint32_t)PLK_CELL_ALLOCATED);
        PLK_STORE(&s->header->cells_free, PLK_LOAD(&s->header->cells_free) + 1);
    }
    plk_guard_unlock(s);
    return rc;
}

int plk_cell_give_back(struct plk_segment *s, uint32_t index, uint32_t forks)
{
    /* Here and not in Python, where a signal handler may fork after the look: then there would be two
     * threads about to free it, and what the one has freed may be another's when the other comes. */
    return forks == plk_forks_seen() ? plk_cell_free(s, index) : -ECHILD;
}

static int64_t plk_name_look(struct plk_segment *s, const char *name, uint32_t length)
{
    uint32_t hash = plk_name_hash(name, length), i;
    int64_t used = plk_entries_ready(s);

    if (used < 0)
        return used;
    for (i = 0; i < used; i++) {
        const struct plk_entry *e = &plk_entries(s)[i];

        if (PLK_LOAD_ACQUIRE(&e->state) == PLK_ENTRY_READY && e->hash == hash &&
            e->length == length && memcmp(e->name, name, length) == 0) {
            uint32_t cell = e->cell;

            return cell < s->geometry.cells ? (int64_t)cell : -PLK_E_CORRUPT;
        }
    }
    return -ENOENT;
}

static int64_t plk_name_add(struct plk_segment *s, const char *name, uint32_t length, uint32_t policy,
                            const struct plk_seed *seed)
{
    int64_t used = plk_entries_ready(s), cell;
    struct plk_entry *e;
    uint32_t i;
    int rc;

    if (used < 0)
        return used;
    for (i = 0; i < used && PLK_LOAD(&plk_entries(s)[i].state) == PLK_ENTRY_READY; i++)
        ;
    if (i == s->geometry.entries)
        return -EUSERS;
    e = &plk_entries(s)[i];
    if (i == used) {
        rc = plk_reserve(s, e, sizeof(*e));
        if (rc != 0)
            return rc;
        PLK_STORE_RELEASE(&s->header->entries_next, i + 1);
    }
    cell = plk_cell_take(s, policy, seed);
    if (cell < 0)
        return cell;
    PLK_STORE_RELEASE(&e->state, PLK_ENTRY_FILLING);
    e->hash = plk_name_hash(name, length);
    e->cell = (uint32_t)cell;
    e->length = length;
    memcpy(e->name, name, length);
    PLK_STORE_RELEASE(&e->state, PLK_ENTRY_READY);
    return cell;
}

static int64_t plk_any_find(struct plk_segment *s, const char *name, uint32_t length, int create, uint32_t policy,
                            const struct plk_seed *seed)
{
    int64_t cell;

    if (length == 0 || length > PLK_NAME_MAX)
        return -ENAMETOOLONG;
    cell = plk_name_look(s, name, length);
    if (cell != -ENOENT || !create)
        return cell;
    cell = plk_guard_lock(s);
    if (cell != 0)
        return cell;
    cell = plk_name_look(s, name, length); /* somebody may have been quicker */
    if (cell == -ENOENT)
        cell = plk_name_add(s, name, length, policy, seed);
    plk_guard_unlock(s);
    return cell;
}

int64_t plk_name_find(struct plk_segment *s, const char *name, uint32_t length, int create, uint32_t policy)
{
    return plk_any_find(s, name, length, create, policy, NULL);
}

int64_t plk_sync_find(struct plk_segment *s, const char *name, uint32_t length, int create,
                      const struct plk_seed *seed)
{
    return plk_any_find(s, name, length, create, PLK_FIFO, seed);
}

int64_t plk_name_at(struct plk_segment *s, uint32_t i, char name[PLK_NAME_MAX], uint32_t *length)
{
    const struct plk_entry *e;
    int64_t used = plk_entries_ready(s);

    if (used < 0)
        return used;
    if (i >= used)
        return -ERANGE;
    e = &plk_entries(s)[i];
    if (PLK_LOAD_ACQUIRE(&e->state) != PLK_ENTRY_READY)
        return -ENOENT;
    *length = e->length;
    if (*length > PLK_NAME_MAX || e->cell >= s->geometry.cells)
        return -PLK_E_CORRUPT;
    memcpy(name, e->name, *length);
    return e->cell;
}

/* kind: of what is expected to be there, PLK_KIND_LOCK or what it guards. */
static int plk_any_bind(struct plk_lock *lock, struct plk_domain *domain, uint32_t index, uint32_t kind)
{
    struct plk_segment *s = plk_segment_of(domain);
    struct plk_cell *cell, *queue;
    uint32_t flags;
    int rc;

    if (s->closed)
        return -ESHUTDOWN;
    rc = plk_reserve_cell(s, index, &cell);
    flags = rc == 0 ? PLK_LOAD(&cell->flags) : 0;
    if (rc == 0 && ((flags & PLK_CELL_SYNC) != 0 ? PLK_KIND_OF(flags) : PLK_KIND_LOCK) != kind)
        return -EMEDIUMTYPE;
    if ((flags & PLK_CELL_QUEUE) != 0)
        return -ENOENT;
    if ((flags & PLK_CELL_RECURSIVE) != 0 && s->geometry.stride != PLK_LINE)
        return -PLK_E_CORRUPT; /* no such lock can have been made here */
    if ((flags & PLK_CELL_BOUNDED) != 0) {
        if (s->face.protocol == PLK_NATIVE)
            return -EPROTONOSUPPORT; /* the domain was another's before */
        rc = plk_reserve_cell(s, index + 1, &queue);
        if (rc == -EINVAL || s->geometry.stride != PLK_LINE ||
            (rc == 0 && (PLK_LOAD(&queue->flags) & PLK_CELL_QUEUE) == 0))
            return -PLK_E_CORRUPT; /* no such lock can have been made here */
    }
    if (rc == 0)
        plk_events_bind(s, (uint64_t)index + 1);
    if (rc == 0)
        *lock = (struct plk_lock){cell, domain, (uint64_t)index + 1,
                                  (flags & PLK_CELL_BOUNDED) != 0 ? PLK_BOUNDED : PLK_FIFO};
    return rc;
}

int plk_cell_bind(struct plk_lock *lock, struct plk_domain *domain, uint32_t index)
{
    return plk_any_bind(lock, domain, index, PLK_KIND_LOCK);
}

int plk_guard_bind(struct plk_ref *ref, struct plk_domain *domain, uint32_t index, uint32_t kind)
{
    int rc = kind != PLK_KIND_LOCK && kind < PLK_KIND_COUNT ? plk_any_bind(&ref->guard, domain, index, kind) : -EINVAL;

    if (rc == 0)
        rc = plk_reserve_sync(plk_segment_of(domain), index, &ref->sync);
    ref->kind = kind;
    return rc;
}
