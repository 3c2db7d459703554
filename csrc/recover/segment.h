/* recover/segment.h - this process's mapping of a domain.
 *
 * The lowest layer: every part of the core below the fast path sees a domain
 * through it.  Geometry is this process's own copy, validated at attach; no
 * size or offset is read from the segment again, and every index that is goes
 * through one of the functions below.
 *
 * What is written over while it is used leads to errors and wrong answers, but
 * nobody reads or writes outside the segment, and no loop depends on it for its
 * end: tests/sanitize tries.  Beyond that, no check helps against somebody who can
 * write to the segment and means harm:
 *
 *   a waiter whose queue was overwritten may wait for ever, as long as its caller lets it;
 *   who shortens the file of a named domain makes others fault (anonymous ones are sealed);
 *   a slot that is said to hold something is left to recovery, and keeps the segment mapped for as
 *   long as its thread lives: nothing but the slot tells what a thread holds, and while the C
 *   library may follow the links of its life word, nobody may unmap them;
 *   the links inside a robust mutex that is held are followed by the C library (hv/robust.h).
 *
 * Hence mode 0600: a segment is for processes that could as well debug each other. */
#ifndef PLK_RECOVER_SEGMENT_H
#define PLK_RECOVER_SEGMENT_H

#include <pylocks.h>

struct plk_segment {
    struct plk_domain face; /* first: modules hold a pointer to it */
    unsigned char *base;
    struct plk_header *header;
    struct plk_geometry geometry;
    int fd;
    uint64_t device, inode; /* of the file behind fd: the number may become another's */
    uint32_t id;        /* face.id until it is closed */
    uint32_t barrier;   /* enum plk_barrier, of the domain */
    int32_t closed;     /* no new registrations */
    int32_t released;   /* no handle refers to this structure any more */
    int32_t references; /* of the mapping: seats, and the opener */
    uint8_t *reserved;  /* one byte a page of the cells and tallies: its memory is reserved */
    int32_t is_array;
    uint32_t slots_ready, entries_ready; /* so many have their memory reserved */
};

static inline struct plk_segment *plk_segment_of(struct plk_domain *domain)
{
    return (struct plk_segment *)domain;
}

static inline struct plk_vcpu *plk_vcpu_at(const struct plk_segment *s, uint64_t index)
{
    if (index >= s->geometry.vcpus)
        return NULL;
    return (struct plk_vcpu *)(s->base + s->geometry.off_vcpus) + index;
}

/* How many slots may be looked at: those that have been used once, as far as their
 * memory was there when plk_slots_ready (hv/reserve.h) was last called.  Whoever must
 * see them all calls that first, with the domain mutex held. */
static inline uint32_t plk_slots(const struct plk_segment *s)
{
    uint32_t used = PLK_LOAD_ACQUIRE(&s->header->vcpus_next), ready = PLK_LOAD(&s->slots_ready);

    return used < ready ? used : ready;
}

static inline struct plk_cell *plk_cell_at(const struct plk_segment *s, uint64_t index)
{
    if (index >= s->geometry.cells)
        return NULL;
    return (struct plk_cell *)(s->base + s->geometry.off_cells + index * s->geometry.stride);
}

/* Of vCPU `index`, or of a cell: s->geometry.vcpus + its index. */
static inline struct plk_tally *plk_tally_at(const struct plk_segment *s, uint64_t index)
{
    if (index >= (uint64_t)s->geometry.vcpus + s->geometry.tallied)
        return NULL;
    return (struct plk_tally *)(s->base + s->geometry.off_tallies) + index;
}

static inline uint64_t plk_ring_offset(const struct plk_segment *s, uint64_t vcpu)
{
    return s->geometry.off_rings + vcpu * PLK_RING_RECORDS * sizeof(struct plk_record);
}

static inline struct plk_record *plk_ring_at(const struct plk_segment *s, uint64_t vcpu)
{
    return vcpu < s->geometry.rings ? (struct plk_record *)(s->base + plk_ring_offset(s, vcpu)) : NULL;
}

static inline struct plk_channel *plk_channels(const struct plk_segment *s)
{
    return (struct plk_channel *)(s->base + s->geometry.off_channels);
}

static inline uint64_t *plk_tombs(const struct plk_segment *s)
{
    return (uint64_t *)(s->base + s->geometry.off_tombs);
}

static inline struct plk_entry *plk_entries(const struct plk_segment *s)
{
    return (struct plk_entry *)(s->base + s->geometry.off_entries);
}

static inline struct plk_sync *plk_sync_at(const struct plk_segment *s, uint64_t index)
{
    if (index >= s->geometry.syncs)
        return NULL;
    return (struct plk_sync *)(s->base + s->geometry.off_syncs) + index;
}

/* Node k of vCPU v has the number v * PLK_NODES + k. */
static inline struct plk_node *plk_node_at(const struct plk_segment *s, uint64_t number)
{
    if (number >= (uint64_t)s->geometry.noded * PLK_NODES)
        return NULL;
    return (struct plk_node *)(s->base + s->geometry.off_nodes) + number;
}

/* Mixes (cell, ticket) for channels and tombstones; the finaliser of
 * MurmurHash3, so that neighbours in a queue spread over the whole array. */
static inline uint64_t plk_mix(uint64_t id, uint64_t ticket)
{
    uint64_t x = id * 0x9e3779b97f4a7c15ull + ticket;

    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53ull;
    return x ^ (x >> 33);
}

#endif
