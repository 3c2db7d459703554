/* hv/copy.h - what a domain's words say, read from copies of them.
 *
 * For those who look at a domain and take no part in it: they have no mapping, no
 * vCPU and no lock of it.  They read() the segment, which needs the right to read
 * only, reserves no memory where the file has holes, and comes back short where
 * another would be faulted by a file that was cut.
 *
 * Everything is read twice, the table of vCPUs and the cells in turn: vCPUs, cells,
 * vCPUs, cells.  What is the same both times held still between the first look at
 * the cells and the second at the vCPUs, all of it at once, because tickets only
 * grow; the rest is marked as changing, and each row of it is only true for itself.  That of a
 * cell is: an owner record names the ticket that it is for, so head and owner fit together
 * or say that they do not. */
#ifndef PLK_HV_COPY_H
#define PLK_HV_COPY_H

#include "hv/attach.h"
#include "recover/claims.h"

#define PLK_VCPU_BYTES (sizeof(struct plk_vcpu))
#define PLK_ENTRY_BYTES (sizeof(struct plk_entry))

/* Where the parts lie, and how much of each has been used; checked. */
struct plk_extent {
    uint64_t off_tombs, off_entries, off_vcpus, off_cells, off_syncs, off_nodes;
    uint32_t tombs, entries, vcpus, cells, stride;
    uint32_t syncs, noded; /* cells below it may be guards, vCPUs below it have nodes */
    uint32_t tombs_live, service; /* service: vCPU index + 1 of the hypervisor service; 0: none */
    uint64_t policy_until;        /* it has decided for all, until then: hv/policy.h */
    uint32_t policy_spin, policy_trust;
};

struct plk_vcpu_row {
    uint32_t index, generation, alive, held, parked, changing, claims;
    int32_t pid, tid;
    uint64_t start_time, pid_ns, wait_since; /* 0: none */
    uint64_t wanted;                         /* since then, cell index + 1 */
    struct plk_pend claim[PLK_CLAIMS_MOST];  /* what it is acquiring, the innermost last */
};

struct plk_cell_row {
    uint32_t index, flags, changing;
    uint32_t owned, owner_vcpu; /* the holder, if owned */
    uint64_t head, tail;
};

struct plk_name_row {
    uint32_t cell, length;
    char name[PLK_NAME_MAX];
};

enum plk_pick {
    PLK_PICK_USED, /* allocated, or in an array, used at some time */
    PLK_PICK_BUSY, /* of those, held or waited for, or with a holder that died; and all guards */
    PLK_PICK_GUARDS, /* of semaphores and their like that are allocated */
};

/* Of the header behind fd.  0, or as plk_inspect. */
int plk_extent(int fd, struct plk_extent *extent, struct plk_found *found);

/* Each reads `count` records of a part from two copies, or one if they do not change, and fills
 * rows, of which there must be as many.  How many rows there are. */
uint32_t plk_copied_vcpus(const void *copy, const void *again, uint32_t count, struct plk_vcpu_row *rows);
uint32_t plk_copied_cells(const void *copy, const void *again, uint32_t first, uint32_t count,
                          uint32_t stride, uint32_t pick, struct plk_cell_row *rows);
uint32_t plk_copied_names(const void *copy, uint32_t count, uint32_t cells, struct plk_name_row *rows);

/* The cells that abandoned tickets are of, one for each ticket. */
uint32_t plk_copied_tombs(const void *copy, uint32_t count, uint32_t *cells);

#endif
