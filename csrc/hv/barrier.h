/* hv/barrier.h - the waiter's half of the barrier between head and slow. */
#ifndef PLK_HV_BARRIER_H
#define PLK_HV_BARRIER_H

#include "recover/segment.h"

/* 1: this kernel has membarrier's GLOBAL_EXPEDITED command. */
int plk_membarrier_works(void);

/* Let other processes' waiters reach this process: before its unlock sites
 * become nops.  0 or a negative errno.  A forked child calls the second. */
int plk_membarrier_register(void);
void plk_membarrier_forked(void);

/* A full fence here and, where the domain's unlockers have none, on every CPU
 * that runs one of its threads. */
void plk_barrier_heavy(struct plk_segment *s);

/* Raise slow for a waiter that holds its ticket, with that fence behind it. */
void plk_slow_raise(struct plk_segment *s, struct plk_cell *cell);

#endif
