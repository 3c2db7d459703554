/* hv/view.h - copies of shared state for those who look but take part in
 * nothing.  Each field is read once, atomically; together they are a snapshot
 * only as far as the world held still. */
#ifndef PLK_HV_VIEW_H
#define PLK_HV_VIEW_H

#include "recover/segment.h"

struct plk_vcpu_view {
    uint32_t index, state, life, generation, held, depth, shifts, cpu, parked;
    int32_t pid, tid;
    uint64_t start_time, pid_ns, pending, ticket, wait_since, wanted;
    struct plk_pend outer[PLK_PEND_DEPTH]; /* the first `depth` count */
    uint64_t events[16];
};

struct plk_cell_view {
    uint64_t head, tail, owner_ticket;
    uint32_t owner_vcpu, owned, slow, flags, generation;
};

/* What should be nothing once nobody uses the domain. */
struct plk_residue {
    uint32_t tombs;      /* tombstones standing */
    uint32_t tombs_live; /* what their count says */
    uint32_t parked;     /* sum over all event channels */
    int32_t guard_tid;   /* thread that has the domain mutex; 0: none */
};

uint32_t plk_event_count(void);
const char *plk_event_name(uint32_t event);    /* NULL past the end */
const char *plk_event_meaning(uint32_t event);

uint32_t plk_vcpus_used(struct plk_segment *s); /* slots below it have been used */
int plk_vcpu_view(struct plk_segment *s, uint32_t index, struct plk_vcpu_view *view);
int plk_cell_view(struct plk_segment *s, uint32_t index, struct plk_cell_view *view);

void plk_residue(uint64_t domain, struct plk_residue *residue); /* domain: as plk_segment_address */

uint64_t plk_segment_address(struct plk_segment *s); /* of its struct plk_domain */
int plk_segment_fd(struct plk_segment *s);

/* Spin for `turns` of cpu_relax behind at most `near` tickets. */
void plk_segment_spin(struct plk_segment *s, uint32_t turns, uint32_t near);

/* Up to `crowd` in a queue all stay awake; in a longer one the next `ahead`; `cpus` can run at
 * a time. */
void plk_segment_crowd(struct plk_segment *s, uint32_t crowd, uint32_t ahead, uint32_t cpus);

/* From now on adapt the spin budget, spin_ns at first, to what wakes take. */
void plk_segment_learn(struct plk_segment *s, uint32_t spin_ns, double ns_per_turn);

#endif
