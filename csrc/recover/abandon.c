/* recover/abandon.c - leaving the queue.
 *
 * A ticket can't be untaken.  Who will not wait for his (timeout, signal; and,
 * for the dead, whoever recovers them) puts up a tombstone (cell, ticket), and
 * whoever brings head to that ticket moves it on.
 *
 * [K2] Nobody is stranded.  Between the leaver W of ticket t and a party U that
 * makes t the ticket served, neither of which knows of the other:
 *
 *       U (plk_unlock, or plk_pass_on)      W (plk_leave, hv/leave.c)
 *       head = t                            tombstone (L, t); slow = 1
 *       unlock_barrier                      fence
 *       look at slow -> tombstone (L, t)?   look at head -> if t: pass on
 *
 * At least one of them sees the other's store and goes to plk_pass_on.
 *
 * Passing takes three compare-and-swaps:
 *
 *   1  tombstone -> tombstone | PASSING    the leaver can't take it back now
 *   2  head: t -> t + 1
 *   3  tombstone | PASSING -> 0
 *
 * and each can be done by anybody who meets what the one before it left: a
 * passer that dies between two of them is helped by the next unlocker, waiter or
 * watcher, and two passers at once do no harm, for head never comes back to t
 * and only one of them wins each step.  Dying between 2 and 3 leaves a mark for
 * a ticket below head, which nobody looks up any more; it takes up one place
 * until recovery finishes it (plk_pass_finish).
 *
 * The table is a hash set probed at a fixed number of places, so that a look-up
 * needs no stop marks and a removal leaves no hole to repair.  tombs_live is
 * raised before an entry is put up and lowered after it is taken down; 0 therefore
 * proves that none stands, under the same pairing as slow.  Whoever dies between
 * the two leaves it too high; recovery mends that [D4]: see recover/counts.c. */
#include "recover/abandon.h"

static uint64_t *plk_tomb_slot(struct plk_segment *s, uint64_t id, uint64_t ticket, unsigned probe)
{
    uint64_t hash = plk_mix(id, PLK_TOMB(0, ticket));
    uint64_t at = hash + probe * ((hash >> 32) | 1); /* own stride: no runs that fill a window */

    return &plk_tombs(s)[at & (s->geometry.tombs - 1)];
}

/* Where the tombstone stands, PASSING or not; NULL: nowhere. */
static uint64_t *plk_tomb_find(struct plk_segment *s, uint64_t id, uint64_t ticket)
{
    unsigned probe;

    if (PLK_LOAD_ACQUIRE(&s->header->tombs_live) == 0) /* [D1] what is read later comes later */
        return NULL;
    for (probe = 0; probe < PLK_TOMB_WINDOW; probe++) {
        uint64_t *slot = plk_tomb_slot(s, id, ticket, probe);

        if ((PLK_LOAD_ACQUIRE(slot) & ~PLK_TOMB_PASSING) == PLK_TOMB(id, ticket))
            return slot;
    }
    return NULL;
}

static int plk_tomb_swap(uint64_t *slot, uint64_t from, uint64_t to)
{
    return __atomic_compare_exchange_n(slot, &from, to, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

/* Empty the slot if it holds `mark`.  1: done. */
static int plk_tomb_drop(struct plk_segment *s, struct plk_vcpu *me, uint64_t *slot, uint64_t mark)
{
    uint32_t before = PLK_LOAD(&me->burying); /* 1 only of a dead vCPU that died at this */
    int dropped;

    PLK_STORE_RELEASE(&me->burying, 1); /* [D4] before the swap */
    dropped = plk_tomb_swap(slot, mark, 0);
    if (dropped) {
        __atomic_fetch_add(&s->header->tombs_version, 1, __ATOMIC_SEQ_CST); /* [D1] */
        __atomic_fetch_sub(&s->header->tombs_live, 1, __ATOMIC_SEQ_CST);
    }
    PLK_STORE_RELEASE(&me->burying, before);
    return dropped;
}

int plk_tomb_put(struct plk_segment *s, struct plk_vcpu *me, uint64_t id, uint64_t ticket)
{
    struct plk_header *h = s->header;
    uint32_t before = PLK_LOAD(&me->burying);
    unsigned probe;

    if (plk_tomb_find(s, id, ticket) != NULL)
        return 0;
    PLK_STORE_RELEASE(&me->burying, 1); /* [D4] before the count rises */
    __atomic_fetch_add(&h->tombs_live, 1, __ATOMIC_SEQ_CST);
    for (probe = 0; probe < PLK_TOMB_WINDOW; probe++) {
        if (plk_tomb_swap(plk_tomb_slot(s, id, ticket, probe), 0, PLK_TOMB(id, ticket)))
            break;
    }
    __atomic_fetch_add(&h->tombs_version, 1, __ATOMIC_SEQ_CST); /* [D4] in vain or not */
    if (probe == PLK_TOMB_WINDOW)
        __atomic_fetch_sub(&h->tombs_live, 1, __ATOMIC_SEQ_CST);
    PLK_STORE_RELEASE(&me->burying, before);
    return probe < PLK_TOMB_WINDOW ? 0 : -ENOSPC;
}

int plk_tomb_stands(struct plk_segment *s, uint64_t id, uint64_t ticket)
{
    return plk_tomb_find(s, id, ticket) != NULL;
}

int plk_tomb_retract(struct plk_segment *s, struct plk_vcpu *me, uint64_t id, uint64_t ticket)
{
    uint64_t *slot = plk_tomb_find(s, id, ticket);

    return slot != NULL && plk_tomb_drop(s, me, slot, PLK_TOMB(id, ticket));
}

uint64_t plk_pass_on(struct plk_segment *s, struct plk_vcpu *me, struct plk_cell *cell, uint64_t id,
                     uint64_t head, unsigned *passed)
{
    uint32_t before = PLK_LOAD(&me->burying);
    uint64_t *slot;

    for (*passed = 0; (slot = plk_tomb_find(s, id, head)) != NULL; head++) {
        uint64_t mark = PLK_TOMB(id, head), at = head;

        PLK_STORE_RELEASE(&me->burying, 1); /* a mark left behind is worth a recovery */

        if (!plk_tomb_swap(slot, mark, mark | PLK_TOMB_PASSING) &&
            PLK_LOAD(slot) != (mark | PLK_TOMB_PASSING))
            break; /* taken back, or passed by somebody else, who goes on from there */
        if (__atomic_compare_exchange_n(&cell->head, &at, head + 1, 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_RELAXED))
            ++*passed;
        /* [K2] a full fence between the new head and the look for its tombstone;
         * pairs with the fence in plk_leave, [K1] with the one in plk_park */
        PLK_FENCE();
        plk_tomb_drop(s, me, slot, mark | PLK_TOMB_PASSING);
    }
    PLK_STORE_RELEASE(&me->burying, before);
    return head;
}

void plk_pass_finish(struct plk_segment *s, struct plk_vcpu *me, struct plk_cell *cell, uint64_t *slot,
                     uint64_t mark)
{
    /* Read after the mark: head has come to its ticket, or gone beyond. */
    uint64_t head = PLK_LOAD_ACQUIRE(&cell->head);

    if (PLK_TOMB(0, head) == PLK_TOMB(0, mark))
        __atomic_compare_exchange_n(&cell->head, &head, head + 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    PLK_FENCE(); /* [K2] as in plk_pass_on; the caller looks for the next one */
    plk_tomb_drop(s, me, slot, mark);
}
