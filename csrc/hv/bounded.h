/* hv/bounded.h - the queue of a bounded lock: promotions.  The policy is described in
 * pylocks/bounded.h. */
#ifndef PLK_HV_BOUNDED_H
#define PLK_HV_BOUNDED_H

#include "recover/segment.h"

/* For plk_api. */
void plk_queue_shown(struct plk_lock *gate);
int plk_queue_promoted(struct plk_wait *w);
void plk_queue_pass(struct plk_wait *w, int wake);

/* For one who has opened the gate and found nobody there: promote, if it is time. */
void plk_queue_call(struct plk_lock *gate, struct plk_seat *seat);

/* The gate of `id` stands open, if that is what it is: wake the holder of the queue, to look. */
void plk_queue_wake(struct plk_segment *s, struct plk_vcpu *me, struct plk_cell *cell, uint64_t id);

/* The holder of the queue has been promoted, or the gate stands open. */
int plk_queue_called(const struct plk_wait *w);

/* Look after the gate on behalf of one in the queue: its holder may be dead. */
void plk_gate_watch(const struct plk_wait *w);

/* About to sleep in the queue: until when this one is to sleep at most, so that somebody
 * looks at the gate; PLK_FOREVER: somebody else does. */
uint64_t plk_queue_arm(struct plk_wait *w);

/* Awake again; if the time has come, look at the gate. */
void plk_queue_disarm(struct plk_wait *w, uint64_t armed);

#endif
