/* recover/counts.c - two counts are raised and lowered by those who wait, and a
 * thread that dies in between leaves them too high: `parked` of an event channel
 * and `tombs_live`.  Too high costs time, never a kick or a ticket; too low would
 * lose both.  So a count is only ever corrected to a value that was right at one
 * instant, by a compare-and-swap that fails if the count has moved since.
 *
 * [D4] Each slot tells what its thread is about: `channel` is set before parked
 * rises and cleared after it falls; `burying` encloses every pair of steps that
 * change the table and its count.  With the domain mutex held no slot is taken
 * and nobody else mends.
 *
 * parked.  Read the word; count the living slots that name the channel; swap the
 * word for that.  Who enters meanwhile moves the upper half, who leaves moves the
 * count, and entries never undo departures, so the swap succeeds only if nobody
 * did either.  A slot that names the channel but has not raised the count yet
 * makes it too high by one, until the next death on that channel or Domain.recover.
 *
 * tombs_live.  1 version  2 no living slot is burying  3 read the count  4 count
 * the table  5 again no living slot is burying  6 version as in 1  7 swap.  Any
 * change completed between 2 and 5 moved the version, any begun and not completed
 * shows in 5; so at 4 nobody was in between, and count - table is what the dead
 * left.  What begins after 5 changes the count and the table alike, and if 7 finds
 * the count of 3, the difference is still right. */
#include "recover/counts.h"

#include "recover/life.h"

#define PLK_MEND_TRIES 100

int plk_parked_mend(struct plk_segment *s, uint32_t channel)
{
    uint32_t *word = &plk_channels(s)[channel].parked, used = plk_slots(s), i;
    int tries;

    for (tries = 0; tries < PLK_MEND_TRIES; tries++) {
        uint32_t parked = __atomic_load_n(word, __ATOMIC_SEQ_CST), living = 0;

        for (i = 0; i < used; i++) {
            const struct plk_vcpu *v = plk_vcpu_at(s, i);

            living += PLK_LOAD_ACQUIRE(&v->channel) == channel + 1 && plk_life_of(v) == PLK_LIFE_ALIVE;
        }
        if (PLK_PARKED(parked) <= living ||
            __atomic_compare_exchange_n(word, &parked, (parked & ~0xffffu) | living, 0,
                                        __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
            return 1;
    }
    return 0;
}

void plk_parked_mend_all(struct plk_segment *s)
{
    uint32_t i;

    for (i = 0; i < s->geometry.channels; i++) {
        if (PLK_PARKED(PLK_LOAD(&plk_channels(s)[i].parked)) != 0)
            plk_parked_mend(s, i);
    }
}

static int plk_anybody_buries(const struct plk_segment *s)
{
    uint32_t used = plk_slots(s), i;

    for (i = 0; i < used; i++) {
        const struct plk_vcpu *v = plk_vcpu_at(s, i);

        if (PLK_LOAD_ACQUIRE(&v->burying) != 0 && plk_life_of(v) == PLK_LIFE_ALIVE)
            return 1;
    }
    return 0;
}

int plk_tombs_mend(struct plk_segment *s)
{
    struct plk_header *h = s->header;
    uint32_t version = __atomic_load_n(&h->tombs_version, __ATOMIC_SEQ_CST), live, standing = 0, i; /* 1 */

    if (plk_anybody_buries(s))                                                /* 2 */
        return 0;
    live = __atomic_load_n(&h->tombs_live, __ATOMIC_SEQ_CST);                 /* 3 */
    for (i = 0; i < s->geometry.tombs; i++)                                   /* 4 */
        standing += PLK_LOAD_ACQUIRE(&plk_tombs(s)[i]) != 0;
    if (plk_anybody_buries(s) ||                                              /* 5 */
        __atomic_load_n(&h->tombs_version, __ATOMIC_SEQ_CST) != version)      /* 6 */
        return 0;
    return live == standing || __atomic_compare_exchange_n(&h->tombs_live, &live, standing, 0, /* 7 */
                                                           __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}
