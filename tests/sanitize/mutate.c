/* mutate.c - what a broken or hostile participant does to a segment.  It knows where
 * every field lies, and prefers the values that are wrong by the least. */
#include "fuzz.h"

#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hv/guard.h"
#include "recover/life.h"

struct field {
    const char *name;
    uint32_t offset, size;
    uint64_t (*special)(uint64_t index); /* values that mean something here, or NULL */
};

#define FIELD(type, member, special) \
    {#member, offsetof(struct type, member), sizeof(((struct type *)0)->member), special}
#define MUTEX(type, mutex) \
    FIELD(type, mutex.__data.__kind, NULL), FIELD(type, mutex.__data.__owner, a_life), \
    FIELD(type, mutex.__data.__count, NULL)
#define FIELDS(table) (uint32_t)(sizeof(table) / sizeof(table[0]))

/* Larger than any that Linux gives (PID_MAX_LIMIT), smaller than FUTEX_TID_MASK. */
uint32_t nonexistent_tid(void) { return 0x3ffffff0u; }

static uint64_t cell_word(uint64_t index, uint32_t offset)
{
    uint64_t word = 0;

    world_read(world.geometry.off_cells + index * world.geometry.stride + offset, &word, sizeof(word));
    return word;
}

/* The cell that matters now, or any. */
static uint64_t some_cell(void)
{
    return world.cell != UINT64_MAX && !one_in(4) ? world.cell : below(world.geometry.cells);
}

static uint64_t a_ticket(uint64_t index)
{
    switch (below(5)) {
    case 0: return cell_word(index, offsetof(struct plk_cell, head));
    case 1: return cell_word(index, offsetof(struct plk_cell, tail));
    case 2: return cell_word(index, offsetof(struct plk_cell, head)) + below(4);
    case 3: return cell_word(index, offsetof(struct plk_cell, tail)) - 1 - below(3);
    default: return PLK_NO_TICKET;
    }
}

static uint64_t a_tag(void)
{
    const uint32_t tags[] = {world.slot + 1, 0, 1, world.geometry.vcpus, world.geometry.vcpus + 1, 0xffff};

    return tags[below(6)];
}

static uint64_t an_owner(uint64_t index) { return PLK_OWNER(a_ticket(index), a_tag()); }

static uint64_t an_id(uint64_t index)
{
    const uint64_t ids[] = {some_cell() + 1, world.geometry.cells, world.geometry.cells + 1, 1ull << 27, 1};

    (void)index;
    return ids[below(5)];
}

static uint64_t a_pending_ticket(uint64_t index)
{
    (void)index;
    return a_ticket(some_cell());
}

static uint64_t a_life(uint64_t index)
{
    const uint32_t words[] = {0, FUTEX_OWNER_DIED, FUTEX_OWNER_DIED | nonexistent_tid(),
                              nonexistent_tid(), FUTEX_WAITERS, FUTEX_WAITERS | 1, 0x7fffffff,
                              (uint32_t)syscall(SYS_gettid)};

    (void)index;
    return words[below(8)];
}

static uint64_t a_pid(uint64_t index)
{
    const uint32_t pids[] = {(uint32_t)getpid(), 1, nonexistent_tid(), 0x7fffffff};

    (void)index;
    return pids[below(4)];
}

/* Of the clock: now, about when something is due, or never. */
static uint64_t a_time(uint64_t index)
{
    const uint64_t times[] = {world.now, world.now - PLK_BOUND_NS, world.now + PLK_ARMED_NS,
                              world.now + 3600000000000ull, PLK_FOREVER, 0};

    (void)index;
    return times[below(6)];
}

static uint64_t a_mark(uint64_t index)
{
    return PLK_SPINNER(a_time(index)) | below(2);
}

static uint64_t a_promotion(uint64_t index)
{
    return cell_word(index + 1, offsetof(struct plk_cell, head)) + below(3);
}

static uint64_t a_kick(uint64_t index)
{
    (void)index;
    index = some_cell();
    return PLK_KICKED(index + 1, a_ticket(index));
}

static uint64_t a_flag(uint64_t index)
{
    (void)index;
    return below(16);
}

/* The number of a node, + 1. */
static uint64_t a_node(uint64_t index)
{
    (void)index;
    return one_in(4) ? (uint64_t)world.geometry.noded * PLK_NODES + below(3) : below(4 * PLK_NODES);
}

static uint64_t a_small_number(uint64_t index)
{
    (void)index;
    return below(9);
}

static uint64_t a_length(uint64_t index)
{
    (void)index;
    return PLK_NAME_MAX - 1 + below(3);
}

static const struct field header_fields[] = {
    FIELD(plk_header, magic, NULL), FIELD(plk_header, abi, NULL),
    FIELD(plk_header, header_size, NULL), FIELD(plk_header, cell_size, NULL),
    FIELD(plk_header, vcpu_size, NULL), FIELD(plk_header, entry_size, NULL),
    FIELD(plk_header, mutex_size, NULL), FIELD(plk_header, life_offset, NULL),
    FIELD(plk_header, protocol, a_small_number), FIELD(plk_header, array, a_small_number),
    FIELD(plk_header, barrier, a_small_number), FIELD(plk_header, geometry.vcpus, NULL),
    FIELD(plk_header, geometry.channels, NULL), FIELD(plk_header, geometry.tombs, NULL),
    FIELD(plk_header, geometry.entries, NULL), FIELD(plk_header, geometry.cells, NULL),
    FIELD(plk_header, geometry.stride, NULL), FIELD(plk_header, geometry.off_channels, NULL),
    FIELD(plk_header, geometry.off_tombs, NULL), FIELD(plk_header, geometry.off_entries, NULL),
    FIELD(plk_header, geometry.off_vcpus, NULL), FIELD(plk_header, geometry.off_cells, NULL),
    FIELD(plk_header, geometry.size, NULL), FIELD(plk_header, boot[7], NULL),
    FIELD(plk_header, slow_path[15], NULL),
};
/* What changes in a healthy segment, too. */
static const struct field living_fields[] = {
    FIELD(plk_header, cells_next, NULL), FIELD(plk_header, cells_free, NULL),
    FIELD(plk_header, vcpus_next, NULL), FIELD(plk_header, entries_next, NULL),
    FIELD(plk_header, tombs_live, NULL), FIELD(plk_header, tombs_version, NULL),
    FIELD(plk_header, service_vcpu, a_small_number), FIELD(plk_header, doorbell, NULL),
    FIELD(plk_header, policy_until, a_time), FIELD(plk_header, policy_spin, NULL),
    FIELD(plk_header, policy_trust, a_small_number),
    {"guard word", offsetof(struct plk_header, guard) + PLK_LIFE_WORD, 4, a_life},
    MUTEX(plk_header, guard.mutex),
};
static const struct field cell_fields[] = {
    FIELD(plk_cell, tail, a_ticket), FIELD(plk_cell, head, a_ticket), FIELD(plk_cell, owner, an_owner),
    FIELD(plk_cell, slow, a_small_number), FIELD(plk_cell, flags, a_flag),
};
/* Behind the queue of a gate; behind any other cell nobody reads there. */
#define GATE(member, special) \
    {#member, PLK_LINE + sizeof(struct plk_cell) + offsetof(struct plk_gate, member), \
     sizeof(((struct plk_gate *)0)->member), special}
static const struct field gate_fields[] = {
    GATE(spinner, a_mark), GATE(promoted, a_promotion), GATE(promoted_ns, a_time), GATE(armed_ns, a_time),
    GATE(window, a_small_number), GATE(seen, NULL), GATE(due, a_small_number),
};
static const struct field vcpu_fields[] = {
    FIELD(plk_vcpu, pending, an_id), FIELD(plk_vcpu, ticket, a_pending_ticket),
    FIELD(plk_vcpu, held, a_small_number), FIELD(plk_vcpu, cpu, a_small_number),
    FIELD(plk_vcpu, channel, NULL), FIELD(plk_vcpu, wait_since, NULL),
    FIELD(plk_vcpu, wanted, NULL),
    FIELD(plk_vcpu, nodes, NULL), FIELD(plk_vcpu, nodes_left, NULL), FIELD(plk_vcpu, spare1[0], a_small_number),
    FIELD(plk_vcpu, state, a_small_number), FIELD(plk_vcpu, generation, NULL),
    FIELD(plk_vcpu, depth, a_small_number), FIELD(plk_vcpu, outer[0].cell, an_id),
    FIELD(plk_vcpu, outer[0].ticket, a_pending_ticket), FIELD(plk_vcpu, outer[6].cell, an_id),
    FIELD(plk_vcpu, events[3], NULL),
    {"life word", offsetof(struct plk_vcpu, life) + PLK_LIFE_WORD, 4, a_life},
    FIELD(plk_vcpu, pid, a_pid), FIELD(plk_vcpu, tid, a_pid), FIELD(plk_vcpu, pid_ns, NULL),
    FIELD(plk_vcpu, hypercall[PLK_CALL_KICK], an_id), FIELD(plk_vcpu, hypercall[PLK_CALL_WAIT], an_id),
    FIELD(plk_vcpu, hypercall[PLK_CALL_HELLO], a_small_number),
    FIELD(plk_vcpu, hypercall[PLK_CALL_LATE], a_pending_ticket),
    FIELD(plk_vcpu, burying, NULL), FIELD(plk_vcpu, shifts, NULL), MUTEX(plk_vcpu, life.mutex),
};
static const struct field sync_fields[] = {
    FIELD(plk_sync, word, NULL), FIELD(plk_sync, initial, a_small_number), FIELD(plk_sync, limit, a_small_number),
    FIELD(plk_sync, data[0], NULL), FIELD(plk_sync, data[4], a_small_number), FIELD(plk_sync, arrivals, NULL),
    FIELD(plk_sync, first, a_node), FIELD(plk_sync, last, a_node), FIELD(plk_sync, queued, a_small_number),
    FIELD(plk_sync, called, a_node), FIELD(plk_sync, called_ns, a_time), FIELD(plk_sync, swept_ns, a_time),
    FIELD(plk_sync, until, a_small_number),
};
static const struct field node_fields[] = {
    FIELD(plk_node, state, a_small_number), FIELD(plk_node, state, a_small_number), FIELD(plk_node, sync, an_id),
    FIELD(plk_node, generation, a_small_number), FIELD(plk_node, result, NULL), FIELD(plk_node, arrival, a_small_number),
    FIELD(plk_node, prev, a_node), FIELD(plk_node, next, a_node), FIELD(plk_node, called_ns, a_time),
    FIELD(plk_node, data[0], a_small_number), FIELD(plk_node, data[1], NULL), FIELD(plk_node, epoch, a_small_number),
    FIELD(plk_node, overdue, a_small_number),
};
static const struct field entry_fields[] = {
    FIELD(plk_entry, state, a_small_number), FIELD(plk_entry, hash, NULL), FIELD(plk_entry, cell, NULL),
    FIELD(plk_entry, length, a_length), FIELD(plk_entry, name[0], NULL), FIELD(plk_entry, name[99], NULL),
};
static const struct field channel_fields[] = {
    FIELD(plk_channel, seq, NULL), FIELD(plk_channel, parked, a_small_number),
    FIELD(plk_channel, kicked, a_kick), FIELD(plk_channel, cpu, a_small_number),
    FIELD(plk_channel, kicked_ns, a_time),
};

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

static void mutate_one_of(uint64_t base, const struct field *table, uint32_t count, uint64_t index)
{
    mutate_field(base, &table[below(count)], index);
}

static void mutate_cell(void)
{
    uint64_t index = some_cell(), at = world.geometry.off_cells + index * world.geometry.stride;

    if (world.geometry.stride == PLK_LINE && index + 1 < world.geometry.cells && one_in(3))
        mutate_one_of(at, gate_fields, FIELDS(gate_fields), index);
    else
        mutate_one_of(at, cell_fields, FIELDS(cell_fields), index);
}

static void mutate_vcpu(void)
{
    uint64_t index = world.enrolled && one_in(2) ? world.slot : below(world.geometry.vcpus);

    mutate_one_of(world.geometry.off_vcpus + index * sizeof(struct plk_vcpu), vcpu_fields,
                  FIELDS(vcpu_fields), index);
}

/* Of the first few vCPUs: others have no nodes. */
static void mutate_sync(void)
{
    uint64_t index = some_cell(), node = (world.enrolled ? world.slot : below(world.geometry.vcpus)) * PLK_NODES + below(4);

    if (world.geometry.syncs == 0)
        return;
    if (one_in(2))
        mutate_one_of(world.geometry.off_syncs + index % world.geometry.syncs * sizeof(struct plk_sync), sync_fields,
                      FIELDS(sync_fields), index);
    else
        mutate_one_of(world.geometry.off_nodes + node * sizeof(struct plk_node), node_fields, FIELDS(node_fields), node);
}

static void mutate_entry(void)
{
    uint64_t index;

    if (world.geometry.entries == 0)
        return;
    index = below(world.geometry.entries);
    mutate_one_of(world.geometry.off_entries + index * sizeof(struct plk_entry), entry_fields,
                  FIELDS(entry_fields), index);
}

static void mutate_channel(void)
{
    uint64_t index = below(world.geometry.channels);

    mutate_one_of(world.geometry.off_channels + index * sizeof(struct plk_channel), channel_fields,
                  FIELDS(channel_fields), index);
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
    case 10: case 11: mutate_one_of(0, living_fields, FIELDS(living_fields), 0); break;
    case 12: mutate_one_of(0, header_fields, FIELDS(header_fields), 0); break;
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
    case 0: mutate_one_of(0, header_fields, FIELDS(header_fields), 0); break;
    case 1: resize(); break;
    case 2: case 3: relayout(); break;
    case 4: one_in(2) ? tear() : flip_bits(0, sizeof(struct plk_header)); break;
    default: mutate_living(); break;
    }
}
