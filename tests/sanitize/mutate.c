/* mutate.c - what a broken or hostile participant does to a segment.  It knows where
 * every field lies (fields.c), and prefers the values that are wrong by the least. */
#include "fields.h"

#include <string.h>

static int meets(uint64_t offset, uint64_t size, uint64_t from, uint64_t length)
{
    return offset < from + length && offset + size > from;
}

/* The links of a mutex that this thread holds, and the kind of one that it is just
 * locking: see fuzz.h. */
static int out_of_scope(uint64_t offset, uint64_t size)
{
    const uint64_t kind = offsetof(struct plk_header, guard) + offsetof(pthread_mutex_t, __data.__kind);

    note_the_seat();
    return world_holds(offset, size) || (world.locking && meets(offset, size, kind, sizeof(int)));
}

static int overwrite(uint64_t offset, const void *value, size_t size)
{
    return !out_of_scope(offset, size) && world_write(offset, value, size);
}

/* A count or an offset that the header names, or one next to it. */
static uint64_t next_to_a_limit(void)
{
    const struct plk_geometry *g = &world.geometry;
    const uint64_t limits[] = {g->vcpus, g->channels, g->tombs, g->entries, g->cells, g->stride,
                               g->off_channels, g->off_tombs, g->off_entries, g->off_vcpus,
                               g->off_cells, g->size, PLK_MAX_VCPUS, PLK_MAX_CELLS, 1u << 20, 1u << 24};

    return limits[below(16)] + below(3) - 1;
}

static void mutate_field(uint64_t base, const struct field *f, uint64_t index)
{
    uint64_t old = 0, value;
    uint64_t sign = 1ull << (8 * f->size - 1);

    if (!world_read(base + f->offset, &old, f->size))
        return;
    switch (below(f->special != NULL ? 14 : 10)) {
    case 0: value = 0; break;
    case 1: value = 1; break;
    case 2: value = UINT64_MAX; break;
    case 3: value = sign; break;
    case 4: value = sign - 1; break;
    case 5: value = old + 1; break;
    case 6: value = old - 1; break;
    case 7: value = next_to_a_limit(); break;
    case 8: value = old ^ 1ull << below(8 * f->size); break;
    case 9: value = take(f->size); break;
    default: value = f->special(index); break;
    }
    if (overwrite(base + f->offset, &value, f->size))
        SAY("  %s[%llu] at %llu: %llx -> %llx\n", f->name, (unsigned long long)index,
            (unsigned long long)(base + f->offset), (unsigned long long)old,
            (unsigned long long)(f->size == 8 ? value : value & (2 * sign - 1)));
}

static void mutate_one_of(uint64_t base, const struct fields *table, uint64_t index)
{
    mutate_field(base, &table->all[below(table->count)], index);
}

static void mutate_cell(void)
{
    uint64_t index = some_cell(), at = world.geometry.off_cells + index * world.geometry.stride;

    if (world.geometry.stride == PLK_LINE && index + 1 < world.geometry.cells && one_in(3))
        mutate_one_of(at, &gate_fields, index);
    else
        mutate_one_of(at, &cell_fields, index);
}

static void mutate_vcpu(void)
{
    uint64_t index = world.enrolled && one_in(2) ? world.slot : below(world.geometry.vcpus);

    mutate_one_of(world.geometry.off_vcpus + index * sizeof(struct plk_vcpu), &vcpu_fields, index);
}

/* Of the first few vCPUs: others have no nodes. */
static void mutate_sync(void)
{
    uint64_t index = some_cell(), node = (world.enrolled ? world.slot : below(world.geometry.vcpus)) * PLK_NODES + below(4);

    if (world.geometry.syncs == 0)
        return;
    if (one_in(2))
        mutate_one_of(world.geometry.off_syncs + index % world.geometry.syncs * sizeof(struct plk_sync), &sync_fields, index);
    else
        mutate_one_of(world.geometry.off_nodes + node * sizeof(struct plk_node), &node_fields, node);
}

static void mutate_entry(void)
{
    uint64_t index;

    if (world.geometry.entries == 0)
        return;
    index = below(world.geometry.entries);
    mutate_one_of(world.geometry.off_entries + index * sizeof(struct plk_entry), &entry_fields, index);
}

static void mutate_channel(void)
{
    uint64_t index = below(world.geometry.channels);

    mutate_one_of(world.geometry.off_channels + index * sizeof(struct plk_channel), &channel_fields, index);
}

/* One where it will be looked for, or anything anywhere. */
static void mutate_tomb(void)
{
    uint64_t id = an_id(0), ticket = a_ticket(id - 1), probe = below(PLK_TOMB_WINDOW);
    uint64_t hash = plk_mix(id, PLK_TOMB(0, ticket)), word = PLK_TOMB(id, ticket);
    uint64_t at = (hash + probe * ((hash >> 32) | 1)) & (world.geometry.tombs - 1);
    uint32_t live = 1 + below(3);

    if (one_in(3))
        at = below(world.geometry.tombs);
    if (one_in(3))
        word = one_in(2) ? 0 : take(8);
    if (one_in(4))
        word |= PLK_TOMB_PASSING;
    overwrite(world.geometry.off_tombs + 8 * at, &word, 8);
    if (!one_in(3))
        overwrite(offsetof(struct plk_header, tombs_live), &live, 4);
}

/* A move that a healthy participant could make just now. */
static void somebody_moves(void)
{
    uint64_t index = some_cell(), base = world.geometry.off_cells + index * world.geometry.stride;
    uint64_t head = cell_word(index, offsetof(struct plk_cell, head)) + 1;
    uint64_t tail = cell_word(index, offsetof(struct plk_cell, tail)) + 1;

    if (one_in(3))
        overwrite(base + offsetof(struct plk_cell, tail), &tail, 8);
    else if (head < tail)
        overwrite(base + offsetof(struct plk_cell, head), &head, 8);
}

static void flip_bits(uint64_t base, uint64_t size)
{
    uint32_t n = 1 + below(16);

    while (n-- != 0) {
        uint64_t at = base + take(3) % size;
        unsigned char byte;

        if (world_read(at, &byte, 1)) {
            byte ^= (unsigned char)(1u << below(8));
            overwrite(at, &byte, 1);
        }
    }
}

/* Bytes of one place in another. */
static void copy_block(void)
{
    unsigned char block[512];
    uint32_t size = 8u << below(7);
    uint64_t from = take(3) % world.geometry.size & ~7ull, to = take(3) % world.geometry.size & ~7ull;

    if (world_read(from, block, size))
        overwrite(to, block, size);
}

void mutate_living(void)
{
    switch (below(16)) {
    case 0: case 1: case 2: mutate_cell(); break;
    case 3: case 4: case 5: mutate_vcpu(); break;
    case 6: one_in(2) ? mutate_entry() : mutate_sync(); break;
    case 7: one_in(2) ? mutate_channel() : mutate_sync(); break;
    case 8: case 9: mutate_tomb(); break;
    case 10: case 11: mutate_one_of(0, &living_fields, 0); break;
    case 12: mutate_one_of(0, &header_fields, 0); break;
    case 13: flip_bits(one_in(2) ? 0 : world.geometry.off_vcpus, PLK_PAGE); break;
    case 14: one_in(2) ? copy_block() : mutate_sync(); break;
    default: somebody_moves(); break;
    }
}

/* Another length, or counts so large that the file is nearly all holes: in agreement
 * with each other, or almost. */
static void relayout(void)
{
    struct plk_header h;
    struct plk_geometry *g = &h.geometry;
    uint64_t at = PLK_PAGE, size;

    if (!world_read(0, &h, sizeof(h)))
        return;
    switch (below(6)) {
    case 0: g->vcpus = one_in(2) ? PLK_MAX_VCPUS : below(200); break;
    case 1: g->channels = 1u << below(21); break;
    case 2: g->tombs = 1u << below(25); break;
    case 3: g->entries = one_in(2) ? 1u << 24 : below(200); break;
    case 4: g->cells = one_in(2) ? PLK_MAX_CELLS : below(1000); break;
    default: g->stride = 96 - g->stride; break;
    }
#define PLACE(offset, count, each) \
    (offset) = at, at += ((uint64_t)(count) * (each) + PLK_PAGE - 1) / PLK_PAGE * PLK_PAGE
    PLACE(g->off_channels, g->channels, sizeof(struct plk_channel));
    PLACE(g->off_tombs, g->tombs, 8);
    PLACE(g->off_entries, g->entries, sizeof(struct plk_entry));
    PLACE(g->off_vcpus, g->vcpus, sizeof(struct plk_vcpu));
    PLACE(g->off_cells, g->cells, g->stride);
    g->syncs = g->entries != 0 ? g->cells : 0;
    g->noded = g->entries != 0 ? g->vcpus : 0;
    PLACE(g->off_syncs, g->syncs, sizeof(struct plk_sync));
    PLACE(g->off_nodes, g->noded, PLK_NODES * sizeof(struct plk_node));
    g->size = at;
    size = one_in(8) ? at + PLK_PAGE * below(3) - PLK_PAGE : at;
    if (size > FUZZ_HUGE)
        return;
    SAY("  vcpus %u channels %u tombs %u entries %u cells %u stride %u, %llu bytes\n", g->vcpus, g->channels,
        g->tombs, g->entries, g->cells, g->stride, (unsigned long long)size);
    world_resize(size);
    if (world_write(0, &h, sizeof(h)))
        world.geometry = *g;
}

static void resize(void)
{
    static const uint64_t lengths[] = {0, 1, 4, 8, 11, 12, 100, PLK_PAGE - 1, PLK_PAGE, PLK_PAGE + 1};
    uint64_t size = world.size;

    switch (below(5)) {
    case 0: size = lengths[below(10)]; break;
    case 1: size = next_to_a_limit(); break;
    case 2: size = size + below(3) - 1; break;
    case 3: size = size + PLK_PAGE * below(3) - PLK_PAGE; break;
    default: size = below((uint32_t)size * 2 + 1); break;
    }
    if (size <= FUZZ_HUGE) {
        SAY("  %llu bytes long\n", (unsigned long long)size);
        world_resize(size);
    }
}

/* The first bytes of a header are written, those behind them are not yet. */
static void tear(void)
{
    static const unsigned char zeros[sizeof(struct plk_header)];
    uint64_t magic = one_in(2) ? PLK_FORMATTING : PLK_MAGIC;
    uint32_t from = below((uint32_t)sizeof(struct plk_header));

    world_write(from, zeros, sizeof(zeros) - from);
    world_write(0, &magic, sizeof(magic));
}

void mutate_file(void)
{
    switch (below(8)) {
    case 0: mutate_one_of(0, &header_fields, 0); break;
    case 1: resize(); break;
    case 2: case 3: relayout(); break;
    case 4: one_in(2) ? tear() : flip_bits(0, sizeof(struct plk_header)); break;
    default: mutate_living(); break;
    }
}
