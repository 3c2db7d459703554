#include "hv/copy.h"

#include <string.h>

#include "recover/life.h"

uint32_t plk_copied_vcpus(const void *copy, const void *again, uint32_t count, struct plk_vcpu_row *rows)
{
    const struct plk_vcpu *before = copy, *now = again;
    uint32_t i, k, found = 0;

    for (i = 0; i < count; i++) {
        const struct plk_vcpu *v = &now[i], *w = &before[i];
        struct plk_vcpu_row *row = &rows[found];

        if (v->state != PLK_VCPU_ONLINE)
            continue;
        *row = (struct plk_vcpu_row){
            .index = i, .generation = v->generation, .alive = plk_life_of(v) == PLK_LIFE_ALIVE,
            .held = v->held, .parked = v->channel != 0, .pid = v->pid, .tid = v->tid,
            .start_time = v->start_time, .pid_ns = v->pid_ns, .wait_since = v->wait_since,
            .wanted = v->wanted,
        };
        row->claims = plk_claims_of_dead(v, row->claim);
        for (k = 0; k < row->claims; k++)
            row->claim[k].cell--; /* an index from here on */
        row->changing = w->state != v->state || w->generation != v->generation ||
                        w->pending_held != v->pending_held || w->ticket != v->ticket ||
                        w->wait_since != v->wait_since || w->depth != v->depth || w->shifts != v->shifts;
        found++;
    }
    return found;
}

static int plk_picked(const struct plk_cell *cell, uint32_t pick)
{
    uint32_t guard = PLK_CELL_SYNC | PLK_CELL_ALLOCATED;

    if (pick == PLK_PICK_GUARDS)
        return (cell->flags & guard) == guard;
    if ((cell->flags & (PLK_CELL_QUEUE | PLK_CELL_SYNC)) != 0)
        return 1; /* its waiters are the gate's; or whether it is busy stands elsewhere (sync/copy.h) */
    if (pick == PLK_PICK_BUSY)
        return cell->head != cell->tail || (cell->flags & PLK_CELL_OWNER_DIED) != 0;
    return (cell->flags & PLK_CELL_ALLOCATED) != 0 || cell->tail != 0;
}

uint32_t plk_copied_cells(const void *copy, const void *again, uint32_t first, uint32_t count,
                          uint32_t stride, uint32_t pick, struct plk_cell_row *rows)
{
    uint32_t i, found = 0;

    for (i = 0; i < count; i++) {
        const struct plk_cell *before = (const void *)((const char *)copy + (size_t)i * stride);
        const struct plk_cell *cell = (const void *)((const char *)again + (size_t)i * stride);

        if (!plk_picked(cell, pick))
            continue;
        rows[found++] = (struct plk_cell_row){
            .index = first + i, .flags = cell->flags,
            .changing = memcmp(before, cell, sizeof(*cell)) != 0,
            .owned = cell->head != cell->tail && PLK_OWNER_VALID(cell->owner, cell->head),
            .owner_vcpu = PLK_OWNER_VCPU(cell->owner), .head = cell->head,
            /* the words are copied one after the other, so head may be the newer one */
            .tail = cell->tail > cell->head ? cell->tail : cell->head,
        };
    }
    return found;
}

uint32_t plk_copied_names(const void *copy, uint32_t count, uint32_t cells, struct plk_name_row *rows)
{
    const struct plk_entry *entries = copy;
    uint32_t i, found = 0;

    for (i = 0; i < count; i++) {
        const struct plk_entry *e = &entries[i];

        if (e->state != PLK_ENTRY_READY || e->cell >= cells || e->length == 0 || e->length > PLK_NAME_MAX)
            continue;
        rows[found].cell = e->cell;
        rows[found].length = e->length;
        memcpy(rows[found++].name, e->name, e->length);
    }
    return found;
}

uint32_t plk_copied_tombs(const void *copy, uint32_t count, uint32_t *cells)
{
    const uint64_t *words = copy;
    uint32_t i, found = 0;

    for (i = 0; i < count; i++) {
        if (words[i] != 0 && PLK_TOMB_ID(words[i]) != 0)
            cells[found++] = (uint32_t)PLK_TOMB_ID(words[i]) - 1;
    }
    return found;
}
