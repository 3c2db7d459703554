/* hv/mutexes.h - who holds a mutex, which stands in the mutex's word alone. */
#ifndef PLK_HV_MUTEXES_H
#define PLK_HV_MUTEXES_H

#include "recover/segment.h"

/* Is any mutex of the segment held by one of `mine`: what PLK_MUTEX_HOLDER says of it. */
int plk_mutex_held_by(struct plk_segment *s, int (*mine)(const struct plk_segment *s, uint64_t holder));

#endif
