/* hv/slot.h - a place in the vCPU table; with the domain mutex held. */
#ifndef PLK_HV_SLOT_H
#define PLK_HV_SLOT_H

#include "hv/identity.h"
#include "recover/segment.h"

/* The index of a slot that can be taken, its memory reserved.  0; -EUSERS: all are
 * taken by living threads; -ENOSPC.  pid_ns: the caller's. */
int plk_slot_find(struct plk_segment *s, uint64_t pid_ns, uint32_t *found);

/* Make the slot the calling thread's.  0 or a negative errno. */
int plk_slot_take(struct plk_vcpu *v, const struct plk_identity *who);

#endif
