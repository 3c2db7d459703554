/* hv/directory.c - allocation of cells, and names for them.
 *
 * Both under the domain mutex.  A look-up needs no mutex: an entry's fields are
 * written while it is FILLING and published by the one store of READY. */
#include "hv/directory.h"

#include <string.h>

#include "hv/attach.h"
#include "hv/guard.h"
#include "hv/reserve.h"

static uint32_t plk_name_hash(const char *name, uint32_t length)
{
    uint32_t hash = 2166136261u, i; /* FNV-1a */

    for (i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)name[i]) * 16777619u;
    return hash;
}

static int64_t plk_cell_reuse(struct plk_segment *s, uint32_t used)
{
    uint32_t i;

    for (i = 0; i < used; i++) {
        struct plk_cell *cell;
        int rc = plk_reserve_cell(s, i, &cell);
        uint32_t flags;

        if (rc != 0)
            return rc;
        flags = PLK_LOAD(&cell->flags);
        if ((flags & PLK_CELL_ALLOCATED) == 0) {
            PLK_STORE(&s->header->cells_free, PLK_LOAD(&s->header->cells_free) - 1);
            PLK_STORE_RELEASE(&cell->flags,
                              ((PLK_GENERATION_OF(flags) + 1) << 16) | PLK_CELL_ALLOCATED);
            return i;
        }
    }
    PLK_STORE(&s->header->cells_free, 0); /* the hint was wrong: a process died at it */
    return -EUSERS;
}

static int64_t plk_cell_take(struct plk_segment *s)
{
    struct plk_header *h = s->header;
    uint32_t used = PLK_LOAD(&h->cells_next);
    struct plk_cell *cell;
    int64_t index;
    int rc;

    if (h->array)
        return -EINVAL;
    if (used > s->geometry.cells)
        return -PLK_E_CORRUPT;
    if (PLK_LOAD(&h->cells_free) != 0 && (index = plk_cell_reuse(s, used)) != -EUSERS)
        return index;
    if (used == s->geometry.cells)
        return plk_cell_reuse(s, used);
    cell = plk_cell_at(s, used);
    rc = plk_reserve(s, cell, sizeof(*cell));
    if (rc != 0)
        return rc;
    if ((PLK_LOAD(&cell->flags) & PLK_CELL_ALLOCATED) != 0)
        return -PLK_E_CORRUPT; /* it is a lock already: cells_next went back */
    PLK_STORE(&h->cells_next, used + 1);
    PLK_STORE_RELEASE(&cell->flags, PLK_CELL_ALLOCATED);
    return used;
}

int64_t plk_cell_new(struct plk_segment *s)
{
    int64_t index = plk_guard_lock(s);

    if (index != 0)
        return index;
    index = plk_cell_take(s);
    plk_guard_unlock(s);
    return index;
}

int plk_cell_free(struct plk_segment *s, uint32_t index)
{
    struct plk_cell *cell;
    int rc = plk_guard_lock(s);

    if (rc != 0)
        return rc;
    rc = plk_reserve_cell(s, index, &cell);
    if (rc != 0 || index >= PLK_LOAD(&s->header->cells_next) ||
        (PLK_LOAD(&cell->flags) & PLK_CELL_ALLOCATED) == 0)
        rc = -EINVAL;
    else if (PLK_LOAD(&cell->head) != PLK_LOAD(&cell->tail))
        rc = -EBUSY;
    else {
        PLK_STORE_RELEASE(&cell->flags, PLK_LOAD(&cell->flags) & ~(uint32_t)PLK_CELL_ALLOCATED);
        PLK_STORE(&s->header->cells_free, PLK_LOAD(&s->header->cells_free) + 1);
    }
    plk_guard_unlock(s);
    return rc;
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

static int64_t plk_name_add(struct plk_segment *s, const char *name, uint32_t length)
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
    cell = plk_cell_take(s);
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

int64_t plk_name_find(struct plk_segment *s, const char *name, uint32_t length, int create)
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
        cell = plk_name_add(s, name, length);
    plk_guard_unlock(s);
    return cell;
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

int plk_cell_bind(struct plk_lock *lock, struct plk_domain *domain, uint32_t index)
{
    struct plk_segment *s = plk_segment_of(domain);
    struct plk_cell *cell;
    int rc;

    if (s->closed)
        return -ESHUTDOWN;
    rc = plk_reserve_cell(s, index, &cell);
    if (rc == 0)
        *lock = (struct plk_lock){cell, domain, (uint64_t)index + 1};
    return rc;
}
