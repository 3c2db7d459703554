/* looks.c - those who only look: at slots, names, events, and without attaching. */
#include "targets.h"

#include <stdlib.h>
#include <unistd.h>

#include "hv/attach.h"
#include "hv/copy.h"
#include "hv/directory.h"
#include "hv/events.h"
#include "hv/view.h"
#include "sync/sync.h"

void look_at_names(void)
{
    char name[PLK_NAME_MAX];
    uint32_t length, i = one_in(2) ? an_index(world.geometry.entries) : 0, n;
    int64_t cell;

    for (n = 0; n < 6; n++, i++) {
        cell = result(T_name_at, plk_name_at(segment, i, name, &length));
        if (cell >= 0 && (length > PLK_NAME_MAX || cell >= segment->geometry.cells))
            fail("a name of %u bytes for cell %lld", length, (long long)cell);
        if (cell == -ERANGE)
            return;
    }
}

void look_at_slots(void)
{
    struct plk_vcpu_view view;
    uint32_t used = plk_vcpus_used(segment);

    if (used > segment->geometry.vcpus)
        fail("%u slots are used of %u", used, segment->geometry.vcpus);
    result(T_vcpu_view, plk_vcpu_view(segment, an_index(world.geometry.vcpus), &view));
    if (used != 0)
        result(T_vcpu_view, plk_vcpu_view(segment, used - 1, &view));
}

void look_at_events(void)
{
    static struct plk_record records[PLK_RING_RECORDS];
    struct plk_tally_view view;
    uint64_t at = an_index(world.geometry.cells), end, first;
    int64_t n;

    result(T_vcpu_tally_view, plk_vcpu_tally_view(segment, an_index(world.geometry.vcpus), &view));
    result(T_lock_tally_view, plk_lock_tally_view(segment, an_index(world.geometry.tallied), &view));
    if (result(T_lock_tallies_next, plk_lock_tallies_next(segment, &at, &end)) == 1 &&
        (at >= end || end > segment->geometry.tallied))
        fail("tallies from %llu to %llu", (unsigned long long)at, (unsigned long long)end);
    result(T_tickets_served, plk_tickets_served(segment));
    n = result(T_ring_read, plk_ring_read(segment, an_index(world.geometry.rings), one_in(2) ? 0 : take(8), records,
                                          &first));
    if (n > (int64_t)PLK_RING_RECORDS)
        fail("%lld records of a ring", (long long)n);
}

/* A copy of records of the file, as observers take it; the caller's to free. */
static void *copied(uint64_t offset, uint64_t size)
{
    void *copy = calloc(1, size);
    ssize_t rc = pread(world.fd, copy, size, (off_t)offset);

    (void)rc; /* what could not be read is empty */
    return copy;
}

#define OBSERVED 16u

/* Cells of any flags as if they were guards, ascending, with the records and nodes as they are. */
static void observe_objects(const struct plk_extent *e, const struct plk_cell_row *cells, uint32_t found)
{
    uint32_t indices[OBSERVED], flags[OBSERVED], guards = 0, count, i;
    uint32_t records = e->syncs < OBSERVED ? e->syncs : OBSERVED, vcpus = e->noded < OBSERVED ? e->noded : OBSERVED;
    struct plk_sync_row objects[OBSERVED];
    struct plk_node_row nodes[OBSERVED * PLK_NODES];
    void *copy;

    for (i = 0; i < found; i++) {
        indices[guards] = cells[i].index;
        flags[guards++] = one_in(3) ? cells[i].flags : cells[i].flags | PLK_KIND_FLAGS(below(PLK_KIND_COUNT + 2));
    }
    copy = copied(e->off_syncs, OBSERVED * PLK_SYNC_BYTES);
    guards = plk_copied_syncs(copy, copy, 0, records, indices, flags, guards, objects);
    free(copy);
    for (i = 0; i < guards; i++) {
        if (objects[i].index >= records || plk_kind_name(objects[i].kind) == NULL || objects[i].changing)
            fail("object %u of kind %u", objects[i].index, objects[i].kind);
    }
    copy = copied(e->off_nodes, (uint64_t)OBSERVED * PLK_NODES * PLK_NODE_BYTES);
    count = plk_copied_nodes(copy, copy, 0, vcpus * PLK_NODES, objects, guards, nodes);
    free(copy);
    for (i = 0; i < count; i++) {
        if (nodes[i].object >= guards || nodes[i].vcpu >= vcpus)
            fail("a node of vCPU %u for object %u of %u", nodes[i].vcpu, nodes[i].object, guards);
    }
}

void observe(int fd)
{
    struct plk_vcpu_row vcpus[OBSERVED];
    struct plk_cell_row cells[OBSERVED];
    struct plk_name_row names[OBSERVED];
    uint32_t tombs[OBSERVED], count, i;
    struct plk_extent e;
    struct plk_found found;
    void *copy;

    if (result(T_extent, plk_extent(fd, &e, &found)) != 0)
        return;
    copy = copied(e.off_vcpus, OBSERVED * PLK_VCPU_BYTES);
    count = plk_copied_vcpus(copy, copy, e.vcpus < OBSERVED ? e.vcpus : OBSERVED, vcpus);
    for (i = 0; i < count; i++) {
        if (vcpus[i].claims > PLK_CLAIMS_MOST || vcpus[i].index >= OBSERVED)
            fail("vCPU %u has %u claims", vcpus[i].index, vcpus[i].claims);
    }
    free(copy);
    copy = copied(e.off_cells, OBSERVED * (uint64_t)e.stride);
    count = plk_copied_cells(copy, copy, 0, e.cells < OBSERVED ? e.cells : OBSERVED, e.stride, below(3), cells);
    free(copy);
    observe_objects(&e, cells, count);
    copy = copied(e.off_entries, OBSERVED * PLK_ENTRY_BYTES);
    count = plk_copied_names(copy, e.entries < OBSERVED ? e.entries : OBSERVED, e.cells, names);
    for (i = 0; i < count; i++) {
        if (names[i].length > PLK_NAME_MAX || names[i].cell >= e.cells)
            fail("a name of %u bytes for cell %u", names[i].length, names[i].cell);
    }
    free(copy);
    copy = copied(e.off_tombs, OBSERVED * sizeof(uint64_t));
    plk_copied_tombs(copy, e.tombs < OBSERVED ? e.tombs : OBSERVED, tombs);
    free(copy);
}
