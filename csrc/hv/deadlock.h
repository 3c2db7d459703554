/* hv/deadlock.h - waiting for oneself through others: noticed, and ended by one of them. */
#ifndef PLK_HV_DEADLOCK_H
#define PLK_HV_DEADLOCK_H

#include "recover/segment.h"

/* Longer cycles are not looked for here. */
#define PLK_CYCLE_MOST 1024u

/* One of a cycle: it waits for a lock that the next one holds, or waited for when a signal came. */
struct plk_member {
    uint32_t vcpu; /* index */
    uint32_t generation, shifts; /* of its slot */
    uint32_t wanted; /* index of the cell; of a bounded lock, the gate */
    int32_t pid, tid;
    uint64_t since; /* CLOCK_MONOTONIC, ns */
    uint64_t owner; /* the owner record of what it waits for; 0: it is behind an interrupted wait */
};

struct plk_cycle {
    uint32_t count;
    struct plk_member members[]; /* the one who looked comes first */
};

/* For plk_api. */
int plk_search(struct plk_wait *w);

/* Member `index` of the cycle for which this thread was last refused; how many it had.  0: none. */
uint32_t plk_cycle_found(uint64_t domain, uint32_t index, struct plk_member *member);

#endif
