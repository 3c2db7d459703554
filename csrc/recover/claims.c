/* recover/claims.c - tickets that nobody alive can be holding.
 *
 * A thread that died around its xadd (pending == L, no ticket noted) may or may
 * not have drawn one.  Which one nobody has written down; it is found by
 * elimination: a ticket that was handed out, is not yet served to its end, and is
 * claimed by nobody, was the dead's.
 *
 * [D1] Every living holder X of a ticket t of cell L is, from its xadd to its
 * release, always in at least one of these states, and enters each before it
 * leaves the one before:
 *
 *   window     pending == L, ticket == NONE        announced before the xadd; if it
 *                                                  is served at once, until owner
 *   claim      pending == L, ticket == t, or the same in outer[]
 *   owner      owner == (t, X)                     before pending falls
 *   tombstone  (L, t) stands, PASSING or not       before pending falls
 *
 * The way back from a tombstone (plk_resume) is window, claim, and only then does
 * the tombstone fall.  plk_orphan looks in this order:
 *
 *   1 version of the tombstones   2 tail   3 all slots   4 owner   5 tombstones
 *   6 all slots again             7 version: as in 1?    8 head
 *
 * and takes t for an orphan if 2 <= t is false, 8 <= t is true, and none of 3 to
 * 6 shows it.  Suppose X is alive and has t.  It drew t before 2 and has not
 * released it by 8, so its announcement was visible to 3.  If 3 missed it, it was
 * then owner (and stayed so: 4 sees it) or its tombstone stood.  If 5 does not see
 * that, X had retracted it and was back at a claim: 6 sees it, unless X became
 * owner or left again before 6; but then it had moved the version, after 1: 7
 * sees it.  A window of a living vCPU seen in 3 or 6 may be X's: asked again.
 *
 * A claim moves from pending to outer[] and back while X looks at signals.  Who
 * reads pending, then outer[], could find it in neither only if it came back in
 * between; on the way back `shifts` moves after pending is set and before outer[]
 * falls, and a reader that finds shifts moved reads the slot again.
 *
 * A slot may also be read torn and show a claim that never was.  Then an orphan
 * is overlooked; its queue stands still at it, and the waiters' watch asks again. */
#include "recover/claims.h"

#include <string.h>

#include "recover/abandon.h"
#include "recover/life.h"

#define PLK_SLOT_TRIES 100

struct plk_sighting {
    unsigned char claimed[PLK_ORPHAN_SPAN / 8];
    uint64_t from;
    int window;
};

static void plk_sighted(struct plk_sighting *seen, uint64_t ticket)
{
    uint64_t at = ticket - seen->from;

    if (at < PLK_ORPHAN_SPAN)
        seen->claimed[at / 8] |= (unsigned char)(1u << (at % 8));
}

/* One slot's claims on the cell.  Nonzero: it moved all the while. */
static int plk_look_at_slot(const struct plk_vcpu *v, uint64_t id, struct plk_sighting *seen)
{
    int tries;

    for (tries = 0; tries < PLK_SLOT_TRIES; tries++) {
        uint32_t shifts = PLK_LOAD_ACQUIRE(&v->shifts), depth, i;

        if (PLK_LOAD_ACQUIRE(&v->pending) == id) {
            uint64_t ticket = PLK_LOAD_ACQUIRE(&v->ticket);

            if (ticket != PLK_NO_TICKET)
                plk_sighted(seen, ticket);
            else if (plk_life_of(v) == PLK_LIFE_ALIVE)
                seen->window = 1;
        }
        depth = PLK_LOAD_ACQUIRE(&v->depth);
        for (i = 0; i < depth && i < PLK_PEND_DEPTH; i++) {
            if (PLK_LOAD_ACQUIRE(&v->outer[i].cell) == id)
                plk_sighted(seen, PLK_LOAD_ACQUIRE(&v->outer[i].ticket));
        }
        if (PLK_LOAD_ACQUIRE(&v->shifts) == shifts) /* [D1] pairs with plk_unnest */
            return 0;
    }
    return 1;
}

static void plk_look_at_slots(struct plk_segment *s, uint64_t id, struct plk_sighting *seen)
{
    uint32_t used = plk_slots(s), i;

    for (i = 0; i < used; i++)
        seen->window |= plk_look_at_slot(plk_vcpu_at(s, i), id, seen);
}

int plk_orphan(struct plk_segment *s, const struct plk_cell *cell, uint64_t id, uint64_t from,
               uint64_t until, uint64_t *ticket)
{
    struct plk_sighting seen = {.from = from};
    uint32_t version = __atomic_load_n(&s->header->tombs_version, __ATOMIC_SEQ_CST); /* 1 */
    uint64_t tail = __atomic_load_n(&cell->tail, __ATOMIC_SEQ_CST);                  /* 2 */
    uint64_t owner, t;

    if (until > tail)
        until = tail;
    if (until > from && until - from > PLK_ORPHAN_SPAN)
        until = from + PLK_ORPHAN_SPAN;
    plk_look_at_slots(s, id, &seen);                                                 /* 3 */
    owner = __atomic_load_n(&cell->owner, __ATOMIC_SEQ_CST);                         /* 4 */
    for (t = from; t < until; t++) {                                                 /* 5 */
        if (PLK_OWNER_VALID(owner, t) || plk_tomb_stands(s, id, t))
            plk_sighted(&seen, t);
    }
    plk_look_at_slots(s, id, &seen);                                                 /* 6 */
    if (seen.window || __atomic_load_n(&s->header->tombs_version, __ATOMIC_SEQ_CST) != version) /* 7 */
        return -EAGAIN;
    t = PLK_LOAD_ACQUIRE(&cell->head);                                               /* 8 */
    for (t = t > from ? t : from; t < until; t++) {
        if ((seen.claimed[(t - from) / 8] & (1u << ((t - from) % 8))) == 0) {
            *ticket = t;
            return 1;
        }
    }
    return 0;
}

unsigned plk_claims_of_dead(const struct plk_vcpu *dead, struct plk_pend claims[PLK_CLAIMS_MOST])
{
    struct plk_pend now = {PLK_LOAD(&dead->pending), PLK_LOAD(&dead->ticket)};
    uint32_t depth = PLK_LOAD(&dead->depth), i;
    unsigned count = 0;

    for (i = 0; i < depth && i < PLK_PEND_DEPTH; i++)
        claims[count++] = (struct plk_pend){PLK_LOAD(&dead->outer[i].cell), PLK_LOAD(&dead->outer[i].ticket)};
    if (now.cell != 0 &&
        (count == 0 || memcmp(&claims[count - 1], &now, sizeof(now)) != 0)) /* or died moving it */
        claims[count++] = now;
    return count;
}
