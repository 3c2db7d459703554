/* hv/reserve.h - memory is reserved before it is touched, so that a full
 * filesystem is an error where something is allocated and never SIGBUS later. */
#ifndef PLK_HV_RESERVE_H
#define PLK_HV_RESERVE_H

#include "recover/segment.h"

/* 1: fd is still the segment's file.  A process may close all descriptors that it
 * does not know of, as daemons do, and open others under their numbers. */
int plk_fd_is_ours(const struct plk_segment *s);

/* Reserve the pages under [at, at + size) of the mapping.  0, -ENOSPC, or -EBADF:
 * this process has closed the segment's descriptor, and its kernel is too old to
 * do without. */
int plk_reserve(struct plk_segment *s, const void *at, size_t size);

/* Cell `index`, its memory reserved: 0, -EINVAL (no such cell) or -ENOSPC.  Even
 * a read of a cell comes this way: it would fault where the memory is not there. */
int plk_reserve_cell(struct plk_segment *s, uint32_t index, struct plk_cell **cell);

/* The same of a record (plk_sync_at) and of a node (plk_node_at). */
int plk_reserve_sync(struct plk_segment *s, uint32_t index, struct plk_sync **sync);
int plk_reserve_node(struct plk_segment *s, uint64_t number, struct plk_node **node);

/* The same of a tally (plk_tally_at). */
int plk_reserve_tally(struct plk_segment *s, uint64_t index, struct plk_tally **tally);

/* How many vCPU slots, or directory entries, have been used once: they may be looked
 * at, for their memory is reserved.  Whoever used them has reserved it; but the count
 * lies in the segment, and may have been written over.  Negative: as plk_reserve. */
int64_t plk_slots_ready(struct plk_segment *s);
int64_t plk_entries_ready(struct plk_segment *s);

/* The next run of cells whose memory has ever been written, at or after *index: 1
 * and [*index, *end); 0: no more; negative errno.  Reading a cell elsewhere would
 * allocate memory for it. */
int plk_cells_next(const struct plk_segment *s, uint64_t *index, uint64_t *end);

/* The same of any array in the segment, of `count` elements whose size divides pages. */
int plk_extent_next(const struct plk_segment *s, uint64_t offset, uint64_t each, uint64_t count, uint64_t *index,
                    uint64_t *end);

#endif
