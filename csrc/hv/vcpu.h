/* hv/vcpu.h - registration of threads as vCPUs. */
#ifndef PLK_HV_VCPU_H
#define PLK_HV_VCPU_H

#include "recover/segment.h"

/* This thread's seats; NULL without memory. */
struct plk_seat *plk_thread_seats(void);

/* 0; -EUSERS: every slot is taken by a living thread; -ENOSPC: no memory left
 * for the slot; -ENOMEM; -ETIMEDOUT, -ENOTRECOVERABLE: of plk_guard_lock;
 * -ESHUTDOWN: the domain was closed in this process. */
int plk_enroll(struct plk_domain *domain, struct plk_seat **seat);

/* This thread's seat, closed domain or not; NULL: it has none. */
struct plk_seat *plk_seat_even_closed(struct plk_domain *domain);

/* How many forks lie between this process and the one that loaded the library. */
uint32_t plk_forks(void);

/* How many times this process, or one it was forked from, began to fork. */
uint32_t plk_forks_seen(void);

/* Forget the domain in every thread of this process.  0; -EBUSY: a thread holds
 * or waits for a lock of it. */
/* Closed; if not, whoever closes it from now on sees what this thread has noted in its seat. */
int plk_segment_shut(struct plk_segment *s);
int plk_retire_all(struct plk_domain *domain);

/* Give up a reference of the mapping; the last unmaps it. */
void plk_segment_put(struct plk_segment *s);

/* No handle refers to *holder any more: close it if it is open, and free it as
 * soon as it is unmapped.  Does nothing if *holder is NULL. */
void plk_segment_discard(struct plk_segment **holder);

/* Segments by domain id, for modules' handles and thread exit. */
struct plk_segment *plk_segment_by_id(uint32_t id);
int plk_segment_publish(struct plk_segment *s); /* gives s->id; -EMFILE: too many */

#endif
