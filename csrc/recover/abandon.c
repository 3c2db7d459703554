/* recover/abandon.c - leaving the queue.
 *
 * A ticket can't be untaken.  Who will not wait for his (timeout, signal; and,
 * for the dead, whoever recovers them) puts up a tombstone (cell, ticket), and
 * whoever advances head to that ticket takes the tombstone down and advances
 * again.
 *
 * [K2] Nobody is stranded.  Between the leaver W of ticket t and the possessor
 * U of ticket t-1, neither of which knows of the other:
 *
 *       U (plk_unlock, or plk_pass_on)      W (plk_leave, hv/leave.c)
 *       head = t                            tombstone (L, t); slow = 1
 *       unlock_barrier                      fence
 *       look at slow -> claim (L, t)?       look at head -> if t: claim (L, t)?
 *
 * At least one of them sees the other's store and goes for the tombstone; the
 * claim is one compare-and-swap, so exactly one gets it, and that one possesses
 * ticket t: it is the only party that may store head = t+1.
 *
 * [S2] `slow` is cleared here under the rule of plk_granted (wait.h): only by
 * the possessor, with a second look at tail afterwards.
 *
 * The table is a hash set probed at a fixed number of places, so that a look-up needs
 * no stop marks and a removal leaves no hole to repair: an entry is one word,
 * put up and taken down by one compare-and-swap each.  tombs_live is raised
 * before an entry is put up and lowered after it is taken down; 0 therefore
 * proves that none stands, under the same pairing as slow. */
#include "recover/abandon.h"

static uint64_t *plk_tomb_slot(struct plk_segment *s, uint64_t id, uint64_t ticket, unsigned probe)
{
    uint64_t hash = plk_mix(id, (uint32_t)ticket);
    uint64_t at = hash + probe * ((hash >> 32) | 1); /* own stride: no runs that fill a window */

    return &plk_tombs(s)[at & (s->geometry.tombs - 1)];
}

int plk_tomb_put(struct plk_segment *s, uint64_t id, uint64_t ticket)
{
    struct plk_header *h = s->header;
    unsigned probe;

    __atomic_fetch_add(&h->tombs_live, 1, __ATOMIC_SEQ_CST);
    for (probe = 0; probe < PLK_TOMB_WINDOW; probe++) {
        uint64_t *slot = plk_tomb_slot(s, id, ticket, probe);
        uint64_t empty = 0;

        if (__atomic_compare_exchange_n(slot, &empty, PLK_TOMB(id, ticket), 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_RELAXED)) {
            __atomic_fetch_add(&h->tombs_version, 1, __ATOMIC_SEQ_CST);
            return 0;
        }
    }
    __atomic_fetch_sub(&h->tombs_live, 1, __ATOMIC_SEQ_CST);
    return -ENOSPC;
}

int plk_tomb_claim(struct plk_segment *s, uint64_t id, uint64_t ticket)
{
    struct plk_header *h = s->header;
    unsigned probe;

    if (PLK_LOAD(&h->tombs_live) == 0)
        return 0;
    for (probe = 0; probe < PLK_TOMB_WINDOW; probe++) {
        uint64_t *slot = plk_tomb_slot(s, id, ticket, probe);
        uint64_t key = PLK_TOMB(id, ticket);

        if (PLK_LOAD(slot) == key &&
            __atomic_compare_exchange_n(slot, &key, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
            __atomic_fetch_add(&h->tombs_version, 1, __ATOMIC_SEQ_CST);
            __atomic_fetch_sub(&h->tombs_live, 1, __ATOMIC_SEQ_CST);
            return 1;
        }
    }
    return 0;
}

uint64_t plk_pass_on(struct plk_segment *s, struct plk_cell *cell, uint64_t id, uint64_t head,
                     unsigned *passed)
{
    *passed = 0;
    do {
        if (PLK_LOAD(&cell->slow) != 0 && PLK_LOAD(&cell->tail) == head + 1) {
            PLK_STORE(&cell->slow, 0);
            PLK_FENCE(); /* [S2] pairs with the arrival's xadd */
            if (PLK_LOAD(&cell->tail) != head + 1)
                PLK_STORE(&cell->slow, 1);
        }
        PLK_STORE_RELEASE(&cell->head, ++head);
        PLK_FENCE(); /* [K2] pairs with the fence in plk_leave, [K1] with the one in plk_park */
    } while (plk_tomb_claim(s, id, head) && ++*passed);
    return head;
}
