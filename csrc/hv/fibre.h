/* hv/fibre.h - further vCPUs of one thread, and what vcpu.c and fibre.c share for them. */
#ifndef PLK_HV_FIBRE_H
#define PLK_HV_FIBRE_H

#include "recover/segment.h"

struct plk_fibre;

/* What a thread has: a seat in each domain, and its fibres. */
struct plk_table {
    struct plk_table *next, **prev;
    unsigned rounds; /* destructor calls so far */
    int late;        /* another destructor takes locks: it may yet follow, so the table stays */
    struct plk_fibre *fibres;
    struct plk_seat seats[PLK_MAX_DOMAINS + 1]; /* the last stays empty */
};

/* One more registration of this thread.  As plk_enroll. */
int plk_fibre_enroll(struct plk_domain *domain, struct plk_seat **seat);

/* Nobody needs this seat any more; by any thread.  In its own it comes free at once, unless it
 * holds something: then recovery does the rest when the thread is gone. */
void plk_fibre_drop(struct plk_seat *seat);

/* Around whatever another thread does with such a seat: its own does not end in between. */
void plk_fibre_begin(void);
void plk_fibre_end(void);
void plk_fibres_forked(void); /* in the child: nobody is in between */

/* In their own thread: give up all of its fibres (it ends), or those in closed domains. */
void plk_fibres_leave(struct plk_table *table, int all);

/* In a forked child, with plk_local held: they are the parent's. */
void plk_fibres_forget(struct plk_table *table);

/* With plk_local held: one of them holds, or waits for, a lock of that domain. */
int plk_fibres_busy(const struct plk_table *table, uint32_t id);

/* vcpu.c's: */
extern pthread_mutex_t plk_local PLK_HIDDEN;
struct plk_table *plk_table_here(void); /* this thread's, or NULL */
int plk_seat_take(struct plk_segment *s, struct plk_seat *seat);
void plk_seat_leave(struct plk_seat *seat, struct plk_segment *s); /* in its own thread */
void plk_seat_clear(struct plk_seat *seat);

#endif
