/* shapes.c - the segments that executions begin with: made by the core itself, then
 * brought into states that take several processes, some of them dead, to reach. */
#include "fuzz.h"

#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hv/attach.h"
#include "hv/directory.h"
#include "hv/guard.h"
#include "hv/identity.h"
#include "recover/life.h"
#include "hv/reserve.h"
#include "hv/robust.h"
#include "hv/vcpu.h"

static const char *const names[] = {"a", "orders", "bills", "n\xc3\xa4me", "x"};

const char *shape_name(uint32_t n, uint32_t *length)
{
    static char longest[PLK_NAME_MAX + 1];

    if (n < sizeof(names) / sizeof(names[0])) {
        *length = (uint32_t)strlen(names[n]);
        return names[n];
    }
    memset(longest, 'L', sizeof(longest));
    *length = PLK_NAME_MAX + (n & 1);
    return longest;
}

/* What a thread that is somewhere else looks like. */
static struct plk_vcpu *other(struct plk_segment *s, uint32_t index, uint32_t life)
{
    struct plk_vcpu *v = plk_vcpu_at(s, index);

    if (plk_reserve(s, v, sizeof(*v)) != 0)
        exit(2);
    if (s->header->vcpus_next <= index)
        s->header->vcpus_next = index + 1;
    memset(v, 0, sizeof(*v));
    v->state = PLK_VCPU_ONLINE;
    v->generation = 1;
    v->pid = v->tid = (int32_t)(life & FUTEX_TID_MASK);
    v->ticket = PLK_NO_TICKET;
    v->pid_ns = plk_identify().pid_ns; /* where the kernel can be asked for such a thread */
    plk_robust_init(&v->life.mutex);
    memcpy(v->life.bytes + PLK_LIFE_WORD, &life, sizeof(life));
    return v;
}

#define ALIVE nonexistent_tid()
#define DEAD (nonexistent_tid() | FUTEX_OWNER_DIED)

static struct plk_cell *cell(struct plk_segment *s, uint32_t index)
{
    struct plk_cell *found;

    if (plk_reserve_cell(s, index, &found) != 0)
        exit(2);
    found->flags |= PLK_CELL_ALLOCATED;
    if (s->header->cells_next <= index)
        s->header->cells_next = index + 1;
    return found;
}

static void bury(struct plk_segment *s, uint64_t id, uint64_t ticket, uint64_t mark)
{
    uint64_t hash = plk_mix(id, PLK_TOMB(0, ticket)), probe = 0, *slot;

    do
        slot = &plk_tombs(s)[(hash + probe * ((hash >> 32) | 1)) & (s->geometry.tombs - 1)];
    while (*slot != 0 && ++probe < PLK_TOMB_WINDOW);
    *slot = PLK_TOMB(id, ticket) | mark;
    s->header->tombs_live++;
    s->header->tombs_version++;
}

static void fill_names(struct plk_segment *s)
{
    plk_name_find(s, "a", 1, 1, PLK_FIFO);
    plk_name_find(s, "orders", 6, 1, PLK_FIFO);
    plk_cell_new(s, PLK_FIFO);
    plk_cell_free(s, 2);
    plk_name_find(s, "bills", 5, 1, PLK_FIFO);
    other(s, 0, ALIVE);
}

/* Cell 0: held by a dead thread, behind it one that waits, one that died waiting, a
 * third that died around its xadd. */
static void fill_deaths(struct plk_segment *s)
{
    struct plk_cell *c = cell(s, 0);
    struct plk_vcpu *v;

    plk_name_find(s, "a", 1, 1, PLK_FIFO);
    *c = (struct plk_cell){8, 4, PLK_OWNER(4, 1), 1, PLK_CELL_ALLOCATED};
    v = other(s, 0, DEAD);
    v->held = 1;
    v = other(s, 1, ALIVE);
    v->pending = 1, v->ticket = 5, v->held = 1, v->channel = 1;
    v = other(s, 2, DEAD);
    v->pending = 1, v->ticket = 6, v->held = 1, v->channel = 2;
    v = other(s, 3, DEAD);
    v->pending = 1, v->held = 2;
    v->outer[0] = (struct plk_pend){2, 3};
    v->depth = 1;
    *cell(s, 1) = (struct plk_cell){5, 3, PLK_OWNER(2, 1), 2, PLK_CELL_ALLOCATED};
    plk_channels(s)[0].parked = plk_channels(s)[1].parked = 2;
}

/* Nobody is there, but tickets that were abandoned. */
static void fill_tombs(struct plk_segment *s)
{
    struct plk_cell *c = cell(s, 0);
    uint32_t t;

    *c = (struct plk_cell){20, 10, PLK_OWNER(9, 2), 1, PLK_CELL_ALLOCATED};
    for (t = 10; t < 16; t++)
        bury(s, 1, t, t == 12 ? PLK_TOMB_PASSING : 0);
    bury(s, 1, 7, PLK_TOMB_PASSING);
    bury(s, 2, 0, 0);
    *cell(s, 1) = (struct plk_cell){1, 0, 0, 1, PLK_CELL_ALLOCATED};
    other(s, 0, ALIVE);
}

static void fill_full(struct plk_segment *s)
{
    uint32_t i;
    char name[2] = "A";

    for (i = 0; i < s->geometry.entries; i++, name[0]++)
        plk_name_find(s, name, 1, 1, PLK_FIFO);
    for (i = 0; i < s->geometry.cells; i++)
        cell(s, i);
    for (i = 0; i < s->geometry.vcpus; i++)
        other(s, i, ALIVE);
    for (i = 0; i < s->geometry.tombs; i++)
        plk_tombs(s)[i] = PLK_TOMB(3, 1000 + i);
    s->header->tombs_live = s->geometry.tombs;
}

/* Somebody died with the domain's mutex in his hand. */
static void fill_half(struct plk_segment *s)
{
    uint32_t word = DEAD;

    plk_name_find(s, "a", 1, 1, PLK_FIFO);
    plk_name_find(s, "orders", 6, 1, PLK_FIFO);
    plk_entries(s)[1].state = PLK_ENTRY_FILLING;
    other(s, 0, DEAD);
    other(s, 1, ALIVE)->state = PLK_VCPU_CLAIMED;
    memcpy(s->header->guard.bytes + PLK_LIFE_WORD, &word, sizeof(word));
}

static void fill_array(struct plk_segment *s)
{
    struct plk_cell *c = cell(s, 199);

    *c = (struct plk_cell){3, 2, PLK_OWNER(2, 2), 0, 0};
    other(s, 0, ALIVE);
    other(s, 1, ALIVE)->held = 1;
}

static void fill_native(struct plk_segment *s)
{
    *cell(s, 0) = (struct plk_cell){9, 7, PLK_OWNER(6, 1), 0, PLK_CELL_ALLOCATED};
    bury(s, 1, 7, 0);
    bury(s, 1, 8, 0);
    other(s, 0, ALIVE);
}

/* Cell 0 is the gate of a bounded lock: held by a dead thread, with a ticket behind it that
 * nobody has; of its queue the holder is dead, one waits and one has left.  Cell 2 is another
 * gate, whose queue is said to be promoted to and armed at times that can't be. */
static void fill_bounded(struct plk_segment *s)
{
    struct plk_cell *gate, *queue;
    struct plk_vcpu *v;

    plk_name_find(s, "a", 1, 1, PLK_BOUNDED);
    plk_cell_new(s, PLK_BOUNDED);
    plk_name_find(s, "orders", 6, 1, PLK_FIFO);
    gate = plk_cell_at(s, 0), queue = plk_cell_at(s, 1);
    gate->tail = 6, gate->head = 4, gate->owner = PLK_OWNER(4, 1), gate->slow = 1;
    *plk_gate_of(gate) = (struct plk_gate){PLK_SPINNER(0), 8, 1, 2, 3, 4, 1};
    queue->tail = 10, queue->head = 7, queue->owner = PLK_OWNER(7, 2);
    v = other(s, 0, DEAD);
    v->held = 1;
    v = other(s, 1, DEAD);
    v->held = 2, v->pending = 1, v->ticket = 5;
    v = other(s, 2, ALIVE);
    v->pending = 2, v->ticket = 8, v->held = 1, v->channel = 1;
    plk_channels(s)[0].parked = 1;
    bury(s, 2, 9, 0);
    gate = plk_cell_at(s, 2), queue = plk_cell_at(s, 3);
    gate->tail = 1, gate->owner = PLK_OWNER(0, 3), gate->slow = 1;
    *plk_gate_of(gate) = (struct plk_gate){UINT32_MAX, 2, UINT64_MAX, UINT64_MAX, UINT32_MAX, 1, 0};
    queue->tail = 2, queue->head = 1;
}

/* Of the last cell, of one among locks of 32 bytes or of a native domain: the flag of a gate. */
static void fill_odd(struct plk_segment *s)
{
    uint32_t i;

    for (i = 0; i < s->geometry.cells; i++)
        *cell(s, i) = (struct plk_cell){i, i, 0, i & 1, PLK_CELL_ALLOCATED | PLK_CELL_BOUNDED};
    if (s->geometry.entries != 0)
        plk_name_find(s, "a", 1, 1, PLK_FIFO);
    other(s, 0, ALIVE);
}

static void fill_nothing(struct plk_segment *s) { (void)s; }

#define ENLIGHTENED PLK_ENLIGHTENED, PLK_BARRIER_FENCE
struct shape shapes[] = {
    {"fresh", 4, 8, 64, 4, 32, 4, ENLIGHTENED, 0, fill_nothing, 0, 0, 0},
    {"names", 4, 8, 64, 1, 64, 6, PLK_ENLIGHTENED, PLK_BARRIER_MEMBARRIER, 0, fill_names, 0, 0, 0},
    {"deaths", 8, 4, 64, 4, 32, 2, ENLIGHTENED, 0, fill_deaths, 0, 0, 0},
    {"tombs", 4, 4, 64, 2, 64, 2, PLK_ENLIGHTENED, PLK_BARRIER_MEMBARRIER, 0, fill_tombs, 0, 0, 0},
    {"full", 3, 6, 64, 4, 32, 5, ENLIGHTENED, 0, fill_full, 0, 0, 0},
    {"half", 4, 8, 64, 4, 32, 4, ENLIGHTENED, 0, fill_half, 0, 0, 0},
    {"array", 4, 200, 32, 4, 32, 0, ENLIGHTENED, 1, fill_array, 0, 0, 0},
    {"native", 4, 4, 64, 1, 32, 2, PLK_NATIVE, PLK_BARRIER_FENCE, 0, fill_native, 0, 0, 0},
    {"bounded", 6, 6, 64, 4, 32, 3, ENLIGHTENED, 0, fill_bounded, 0, 0, 0},
    {"odd", 2, 3, 64, 4, 32, 2, ENLIGHTENED, 0, fill_odd, 0, 0, 0},
    {"odd-packed", 2, 5, 32, 4, 32, 2, ENLIGHTENED, 0, fill_odd, 0, 0, 0},
    {"odd-native", 2, 4, 64, 1, 32, 2, PLK_NATIVE, PLK_BARRIER_FENCE, 0, fill_odd, 0, 0, 0},
    /* of each part several pages, of which most have no memory yet */
    {"sparse", 30, 300, 64, 2048, 1024, 80, PLK_ENLIGHTENED, PLK_BARRIER_FENCE, 0, fill_names, 0, 0, 0},
    {"least", 1, 1, 32, 1, 32, 0, ENLIGHTENED, 0, fill_nothing, 0, 0, 0},
};
const unsigned shape_count = sizeof(shapes) / sizeof(shapes[0]);

static void make(struct shape *shape)
{
    struct plk_format format = {.vcpus = shape->vcpus, .cells = shape->cells, .stride = shape->stride,
                                .channels = shape->channels, .tombs = shape->tombs,
                                .entries = shape->entries, .protocol = shape->protocol,
                                .barrier = shape->barrier, .array = shape->array, .detects = 1,
                                .slow_path = "futex"};
    struct plk_segment *s;
    struct plk_found found;
    off_t at = 0;
    int rc;

    world_resize(0);
    rc = plk_format(world.fd, &format);
    world.size = (uint64_t)lseek(world.fd, 0, SEEK_END);
    if (rc == 0)
        rc = plk_attach(dup(world.fd), &s, &found);
    if (rc != 0)
        fail("shape %s can't be made: %d", shape->name, rc);
    shape->fill(s);
    shape->size = s->geometry.size;
    shape->image = calloc(1, shape->size);
    if (shape->image == NULL || shape->size > 64 * PLK_PAGE ||
        pread(world.fd, shape->image, shape->size, 0) != (ssize_t)shape->size)
        fail("shape %s can't be read", shape->name);
    while ((at = lseek(world.fd, at, SEEK_DATA)) >= 0) {
        off_t hole = lseek(world.fd, at, SEEK_HOLE);

        for (; at < hole; at += PLK_PAGE)
            shape->pages |= 1ull << ((uint64_t)at / PLK_PAGE);
    }
    plk_segment_discard(&s);
}

void shapes_make(void)
{
    unsigned i;

    for (i = 0; i < shape_count; i++)
        make(&shapes[i]);
    world_check_over();
}
