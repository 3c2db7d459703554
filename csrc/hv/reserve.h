/* hv/reserve.h - memory is reserved before it is touched, so that a full
 * filesystem is an error where something is allocated and never SIGBUS later. */
#ifndef PLK_HV_RESERVE_H
#define PLK_HV_RESERVE_H

#include "recover/segment.h"

/* Reserve the pages under [at, at + size) of the mapping.  0 or -ENOSPC. */
int plk_reserve(struct plk_segment *s, const void *at, size_t size);

/* Cell `index`, its memory reserved: 0, -EINVAL (no such cell) or -ENOSPC.  Even
 * a read of a cell comes this way: it would fault where the memory is not there. */
int plk_reserve_cell(struct plk_segment *s, uint32_t index, struct plk_cell **cell);

#endif
