/* recover/counts.h - shared counts that the dead take along. */
#ifndef PLK_RECOVER_COUNTS_H
#define PLK_RECOVER_COUNTS_H

#include "recover/segment.h"

/* Make the channel's count of parked waiters agree with the living.  1: it does; 0:
 * too busy, try again. */
int plk_parked_mend(struct plk_segment *s, uint32_t channel);

/* The same for all channels that somebody seems to be parked on. */
void plk_parked_mend_all(struct plk_segment *s);

/* Make tombs_live agree with the table.  1: it does; 0: too busy, try again. */
int plk_tombs_mend(struct plk_segment *s);

#endif
