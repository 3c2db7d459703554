/* fields.c - where every field of a segment lies, and which values mean something there. */
#include "fields.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hv/guard.h"
#include "recover/life.h"

#define FIELD(type, member, special) \
    {#member, offsetof(struct type, member), sizeof(((struct type *)0)->member), special}
#define MUTEX(type, mutex) \
    FIELD(type, mutex.__data.__kind, NULL), FIELD(type, mutex.__data.__owner, a_life), \
    FIELD(type, mutex.__data.__count, NULL)
#define TABLE(name) {in_##name, (uint32_t)(sizeof(in_##name) / sizeof(in_##name[0]))}

/* Larger than any that Linux gives (PID_MAX_LIMIT), smaller than FUTEX_TID_MASK. */
uint32_t nonexistent_tid(void) { return 0x3ffffff0u; }

uint64_t cell_word(uint64_t index, uint32_t offset)
{
    uint64_t word = 0;

    world_read(world.geometry.off_cells + index * world.geometry.stride + offset, &word, sizeof(word));
    return word;
}

/* The cell that matters now, or any. */
uint64_t some_cell(void)
{
    return world.cell != UINT64_MAX && !one_in(4) ? world.cell : below(world.geometry.cells);
}

uint64_t a_ticket(uint64_t index)
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

uint64_t an_id(uint64_t index)
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

static const struct field in_header[] = {
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
static const struct field in_living[] = {
    FIELD(plk_header, cells_next, NULL), FIELD(plk_header, cells_free, NULL),
    FIELD(plk_header, vcpus_next, NULL), FIELD(plk_header, entries_next, NULL),
    FIELD(plk_header, tombs_live, NULL), FIELD(plk_header, tombs_version, NULL),
    FIELD(plk_header, service_vcpu, a_small_number), FIELD(plk_header, doorbell, NULL),
    FIELD(plk_header, policy_until, a_time), FIELD(plk_header, policy_spin, NULL),
    FIELD(plk_header, policy_trust, a_small_number),
    {"guard word", offsetof(struct plk_header, guard) + PLK_LIFE_WORD, 4, a_life},
    MUTEX(plk_header, guard.mutex),
};
static const struct field in_cell[] = {
    FIELD(plk_cell, tail, a_ticket), FIELD(plk_cell, head, a_ticket), FIELD(plk_cell, owner, an_owner),
    FIELD(plk_cell, slow, a_small_number), FIELD(plk_cell, flags, a_flag),
};
/* Behind the queue of a gate; behind any other cell nobody reads there. */
#define GATE(member, special) \
    {#member, PLK_LINE + sizeof(struct plk_cell) + offsetof(struct plk_gate, member), \
     sizeof(((struct plk_gate *)0)->member), special}
static const struct field in_gate[] = {
    GATE(spinner, a_mark), GATE(promoted, a_promotion), GATE(promoted_ns, a_time), GATE(armed_ns, a_time),
    GATE(window, a_small_number), GATE(seen, NULL), GATE(due, a_small_number),
};
static const struct field in_vcpu[] = {
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
static const struct field in_sync[] = {
    FIELD(plk_sync, word, NULL), FIELD(plk_sync, initial, a_small_number), FIELD(plk_sync, limit, a_small_number),
    FIELD(plk_sync, data[0], NULL), FIELD(plk_sync, data[4], a_small_number), FIELD(plk_sync, arrivals, NULL),
    FIELD(plk_sync, first, a_node), FIELD(plk_sync, last, a_node), FIELD(plk_sync, queued, a_small_number),
    FIELD(plk_sync, called, a_node), FIELD(plk_sync, called_ns, a_time), FIELD(plk_sync, swept_ns, a_time),
    FIELD(plk_sync, until, a_small_number),
};
static const struct field in_node[] = {
    FIELD(plk_node, state, a_small_number), FIELD(plk_node, state, a_small_number), FIELD(plk_node, sync, an_id),
    FIELD(plk_node, generation, a_small_number), FIELD(plk_node, result, NULL), FIELD(plk_node, arrival, a_small_number),
    FIELD(plk_node, prev, a_node), FIELD(plk_node, next, a_node), FIELD(plk_node, called_ns, a_time),
    FIELD(plk_node, data[0], a_small_number), FIELD(plk_node, data[1], NULL), FIELD(plk_node, epoch, a_small_number),
    FIELD(plk_node, overdue, a_small_number),
};
static const struct field in_entry[] = {
    FIELD(plk_entry, state, a_small_number), FIELD(plk_entry, hash, NULL), FIELD(plk_entry, cell, NULL),
    FIELD(plk_entry, length, a_length), FIELD(plk_entry, name[0], NULL), FIELD(plk_entry, name[99], NULL),
};
static const struct field in_channel[] = {
    FIELD(plk_channel, seq, NULL), FIELD(plk_channel, parked, a_small_number),
    FIELD(plk_channel, kicked, a_kick), FIELD(plk_channel, cpu, a_small_number),
    FIELD(plk_channel, kicked_ns, a_time),
};

const struct fields header_fields = TABLE(header);
const struct fields living_fields = TABLE(living);
const struct fields cell_fields = TABLE(cell);
const struct fields gate_fields = TABLE(gate);
const struct fields vcpu_fields = TABLE(vcpu);
const struct fields sync_fields = TABLE(sync);
const struct fields node_fields = TABLE(node);
const struct fields entry_fields = TABLE(entry);
const struct fields channel_fields = TABLE(channel);
