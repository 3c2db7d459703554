/* sync/copy.h - what semaphores, events and their like say, read from copies of the segment: hv/copy.h for them.
 *
 * Nobody's guard is taken, so a copy may be of the midst of a change.  What cannot be right whoever reads it is
 * left out: a node counts if there is an object at its index, of its epoch; an index that leads nowhere is
 * nobody's.  Of the queue's links nothing is read: state and arrival of the nodes say who waits, and in
 * which order (sync/queue.c), so there is no list to walk, and none that could be endless. */
#ifndef PLK_SYNC_COPY_H
#define PLK_SYNC_COPY_H

#include <stdint.h>

#define PLK_SYNC_BYTES (sizeof(struct plk_sync))
#define PLK_NODE_BYTES (sizeof(struct plk_node))

enum plk_mode {
    PLK_MODE_USUAL,
    PLK_MODE_SET,     /* event */
    PLK_MODE_ACTING,  /* barrier: all are there, and the holder runs the action */
    PLK_MODE_BROKEN,  /* barrier */
    PLK_MODE_WRITTEN, /* RW lock */
};

/* What a record says; a kind's `tell` fills it from a copy, which nobody changes. */
struct plk_told {
    uint32_t mode;       /* enum plk_mode */
    uint32_t holder;     /* who holds it or acts, vCPU index + 1; 0: nobody, or the record does not say */
    uint32_t generation; /* of the holder's slot */
    uint32_t owner_died;
    uint32_t lock;  /* a condition's, cell index + 1; 0: not known yet */
    uint32_t spare;
    uint64_t value; /* permits left; how often it is held; parties there; readers inside */
    uint64_t of;    /* permits at first, or at most; parties */
};

struct plk_sync_row {
    uint32_t index, kind, epoch, changing; /* epoch: generation of the cell */
    struct plk_told told;
};

struct plk_node_row {
    uint32_t object; /* row of the object */
    uint32_t vcpu, generation; /* whose it is, if the slot is of that generation */
    uint32_t holds;  /* 0: it waits */
    uint32_t want;   /* what for, or what it holds: enum plk_want, or of an owned semaphore, how many */
    uint32_t aside, changing;
    uint64_t arrival; /* order of those who wait */
};

/* From two copies of `count` records from index `first` on, those of the `cells` guards with these indices, which
 * ascend, and flags.  How many rows, of which there must be as many as guards. */
uint32_t plk_copied_syncs(const void *copy, const void *again, uint32_t first, uint32_t count,
                          const uint32_t *indices, const uint32_t *flags, uint32_t cells, struct plk_sync_row *rows);

/* From two copies of `count` nodes from number `first` on, those of the objects in these rows, whose indices
 * ascend.  How many rows, of which there must be as many as nodes. */
uint32_t plk_copied_nodes(const void *copy, const void *again, uint64_t first, uint32_t count,
                          const struct plk_sync_row *objects, uint32_t known, struct plk_node_row *rows);

#endif
