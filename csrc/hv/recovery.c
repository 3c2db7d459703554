/* hv/recovery.c - death of a participant.
 *
 * A thread may be killed between any two instructions.  What it had done by then
 * is told by its slot (pending, ticket, outer, held: fast.h has the order of the
 * stores) and by the owner records; that it is dead, by its life word.  Whoever
 * notices takes the domain mutex and does what the dead would have done next, or
 * what it would have done on leaving the queue.  Noticed by
 *
 *   a waiter        when its watchdog time has come, asleep, yielding or spinning,
 *                   or its own deadline (hv/watch.c)
 *   an arrival      that finds the lock busy and its owner dead, without waiting
 *   a newcomer      that looks for a free slot (hv/slot.c)
 *   Domain.recover
 *
 * For each dirty dead vCPU D, in this order:
 *
 *   claims   For each wait of D, on cell L:
 *              ticket t noted, head < t: D is a leaver, and [K2] does the rest:
 *                tombstone, slow, fence, look at head, pass on if the turn came.
 *              head == t: nobody else would move head, so it is moved.  That
 *                covers D granted but not entered, and D's owner record written
 *                but pending not yet cleared: it never got into its critical
 *                section, so nothing there can be half-done.
 *              no ticket noted: the orphans of L, if any, are left [D1].  If D's
 *                owner record is valid there, it was served at once and about to
 *                enter: a leaver, too; unless D held more locks than it was acquiring
 *                and this may be one of them: then it counts as owned, below.
 *              L is served, with slow raised and a fence as a leaver does: its
 *              head is passed over or kicked once more, because D may have moved
 *              head, or taken a kick meant for another, or died at leaving, or a
 *              recoverer before us died at leaving on D's behalf.
 *   owned    If D.held exceeds the claims: the cells whose owner record names D.
 *              The record is read once, and head after it: a stale one may be
 *              overwritten at any moment by a living owner, with head as its ticket.
 *              [D2] record valid: died inside.  Flag owner-died, then move head
 *                on, then serve; the acquirer of the next ticket looks at the
 *                flag after it has seen head, so it can't miss it.  D may have died
 *                at clearing slow [S1], having seen nobody: slow is raised again.
 *              record stale: D released, and may have died before its kick: serve.
 *   marks    Passings that somebody began and nobody finished.
 *   slot     [D3] held, pending, depth = 0.  Nothing before that takes away what
 *              makes D dirty, so a recoverer that dies leaves D to the next, for
 *              whom each step is either done or to be done again: a tombstone that
 *              stands is enough, head moves by compare-and-swap, a flag is set
 *              twice, a kick too many wakes nobody for long.
 *   counts   parked and tombs_live [D4]; D stays dirty until they are right.
 *            Then state = FREE.
 *
 * Nobody else touches what is D's: a ticket of D's that was not abandoned can't be
 * passed over, a valid owner record of D's stays the cell's last.  Two recoverers
 * are kept apart by the domain mutex, which is robust.  Waiters only try it: while
 * one of them recovers, the others go on waiting.
 *
 * What if a slot lies?  A recycled slot may be named by stale owner records of its
 * former thread: such cells get a needless kick.  A claim overlooked in [D1], or
 * any other ticket that has come to nobody, holds its queue up only until a
 * waiter's watch finds that head belongs to nobody (hv/watch.c). */
#include "hv/recovery.h"

#include <sched.h>
#include <stdlib.h>

#include "hv/barrier.h"
#include "hv/guard.h"
#include "hv/identity.h"
#include "hv/leave.h"
#include "hv/reserve.h"
#include "recover/abandon.h"
#include "recover/claims.h"
#include "recover/counts.h"
#include "recover/life.h"

/* More than a few help nobody: the next look comes in milliseconds. */
#define PLK_ORPHAN_TRIES 3
#define PLK_MEND_TRIES 8

/* A cell that the segment names: its memory may not be there, its number may lie. */
static struct plk_cell *plk_cell_named(struct plk_segment *s, uint64_t id)
{
    struct plk_cell *cell;

    if (id == 0 || id > s->geometry.cells || plk_reserve_cell(s, (uint32_t)(id - 1), &cell) != 0)
        return NULL;
    return cell;
}

static void plk_serve_head(struct plk_segment *s, struct plk_vcpu *me, struct plk_cell *cell, uint64_t id)
{
    plk_serve(s, me, cell, id, PLK_LOAD_ACQUIRE(&cell->head));
}

void plk_release_for(struct plk_segment *s, struct plk_vcpu *me, struct plk_cell *cell, uint64_t id,
                           uint64_t t)
{
    uint64_t head = t;

    PLK_STORE_RELEASE(&cell->slow, 1); /* [S1] before head: nobody enters and misses it */
    __atomic_compare_exchange_n(&cell->head, &head, t + 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    PLK_FENCE(); /* [K1] [K2] head is out before we look; pairs with plk_slow_raise, plk_leave */
    if (plk_tomb_stands(s, id, t))
        plk_serve(s, me, cell, id, t);
    plk_serve_head(s, me, cell, id);
}

int plk_leave_for(struct plk_segment *s, struct plk_vcpu *dead, struct plk_cell *cell, uint64_t id,
                         uint64_t t)
{
    int rc;

    if (t >= PLK_LOAD_ACQUIRE(&cell->tail))
        return 0; /* the slot lies */
    if (t < PLK_LOAD_ACQUIRE(&cell->head)) {
        plk_serve(s, dead, cell, id, t); /* a recoverer before us may have died with it put up */
        return 0;
    }
    if (t == PLK_LOAD_ACQUIRE(&cell->head)) {
        plk_release_for(s, dead, cell, id, t);
        return 0;
    }
    /* Full, or as good as: then this is asked for thousands of dead, at every look. */
    if (PLK_LOAD(&s->header->tombs_live) >= s->geometry.tombs - s->geometry.tombs / 64 &&
        !plk_tomb_stands(s, id, t))
        return -ENOSPC;
    rc = plk_tomb_put(s, dead, id, t);
    if (rc != 0)
        return rc; /* when head has come to t, it needs no tombstone */
    PLK_STORE(&cell->slow, 1);
    plk_barrier_heavy(s); /* [K2] pairs with unlock_barrier in plk_unlock, the new head in plk_pass_on */
    if (PLK_LOAD_ACQUIRE(&cell->head) >= t)
        plk_serve(s, dead, cell, id, t); /* takes the tombstone down if head has gone beyond */
    return 0;
}

/* [D1] Leave the tickets of [head, until) that belong to nobody alive. */
static int plk_leave_orphans(struct plk_segment *s, struct plk_vcpu *dead, struct plk_cell *cell,
                             uint64_t id, uint64_t until)
{
    uint64_t from = PLK_LOAD_ACQUIRE(&cell->head), ticket;
    int rc, tries;

    /* No more tickets can be outstanding than there are vCPUs and tombstones. */
    if (until - from > (uint64_t)s->geometry.vcpus * PLK_CLAIMS_MOST + s->geometry.tombs)
        return 0;
    while (from < until) {
        for (tries = 0; (rc = plk_orphan(s, cell, id, from, until, &ticket)) == -EAGAIN; tries++) {
            if (tries == PLK_ORPHAN_TRIES)
                return rc;
            sched_yield(); /* whoever is taking a ticket needs a few instructions for it */
        }
        if (rc == 0)
            from = until - from > PLK_ORPHAN_SPAN ? from + PLK_ORPHAN_SPAN : until; /* never past 2^64 */
        else if ((rc = plk_leave_for(s, dead, cell, id, ticket)) != 0)
            return rc;
        else
            from = ticket + 1;
    }
    return 0;
}

/* Was D served at once, and died before it had entered?  *ticket: which it had. */
static int plk_was_entering(struct plk_cell *cell, uint32_t tag, uint64_t *ticket)
{
    uint64_t owner = PLK_LOAD_ACQUIRE(&cell->owner);

    *ticket = PLK_LOAD_ACQUIRE(&cell->head);
    return (owner & 0xffffu) == tag && PLK_OWNER_VALID(owner, *ticket);
}

/* owns: D may own the cell, too. */
static int plk_recover_claim(struct plk_segment *s, struct plk_vcpu *dead, uint32_t tag, int owns,
                             const struct plk_pend *claim)
{
    struct plk_cell *cell = plk_cell_named(s, claim->cell);
    uint64_t ticket;
    int rc;

    if (cell == NULL)
        return 0;
    if (claim->ticket == PLK_NO_TICKET) {
        rc = plk_leave_orphans(s, dead, cell, claim->cell, PLK_LOAD_ACQUIRE(&cell->tail));
        /* Nobody announces himself at the gate of a bounded lock who owns it. */
        if (rc == 0 && (!owns || (PLK_LOAD(&cell->flags) & PLK_CELL_BOUNDED) != 0) &&
            plk_was_entering(cell, tag, &ticket))
            rc = plk_leave_for(s, dead, cell, claim->cell, ticket);
    } else
        rc = plk_leave_for(s, dead, cell, claim->cell, claim->ticket);
    if (rc == -ENOSPC)
        return rc; /* nothing has changed, and the slot stays dirty */
    /* The dead may have been leaving themselves, or a recoverer before us died at
     * leaving for them: between a tombstone and the look at head. */
    PLK_STORE(&cell->slow, 1);
    plk_barrier_heavy(s); /* [K2] as in plk_leave_for */
    plk_serve_head(s, dead, cell, claim->cell);
    return rc;
}

/* The cell's owner record, read before, names the dead. */
static void plk_recover_owned(struct plk_segment *s, struct plk_vcpu *dead, struct plk_cell *cell,
                              uint64_t id, uint64_t owner)
{
    uint64_t head = PLK_LOAD_ACQUIRE(&cell->head);

    PLK_SITE_FRAME();
    if (PLK_OWNER_VALID(owner, head) && head < PLK_LOAD_ACQUIRE(&cell->tail)) {
        /* [D2] flag before head; pairs with the look at flags of whoever enters next */
        __atomic_fetch_or(&cell->flags, PLK_CELL_OWNER_DIED, __ATOMIC_SEQ_CST);
        plk_release_for(s, dead, cell, id, head);
        PLK_EVENT_AT(&s->face, dead, owner_deaths, id, head);
    } else
        plk_serve_head(s, dead, cell, id);
}

/* vCPUs, by index. */
struct plk_set {
    uint64_t bits[(PLK_MAX_VCPUS + 63) / 64];
    uint32_t count;
};

static void plk_set_add(struct plk_set *set, uint32_t index)
{
    set->bits[index / 64] |= 1ull << (index % 64);
    set->count++;
}

static int plk_set_has(const struct plk_set *set, uint32_t index)
{
    return index < PLK_MAX_VCPUS && (set->bits[index / 64] >> (index % 64) & 1) != 0;
}

static void plk_recover_cells(struct plk_segment *s, const struct plk_set *dead, uint64_t from, uint64_t end)
{
    for (; from < end; from++) {
        struct plk_cell *cell = plk_cell_at(s, from);
        uint64_t owner;

        if (cell == NULL)
            return;
        owner = PLK_LOAD_ACQUIRE(&cell->owner);
        if (plk_set_has(dead, PLK_OWNER_VCPU(owner)))
            plk_recover_owned(s, plk_vcpu_at(s, PLK_OWNER_VCPU(owner)), cell, from + 1, owner);
    }
}

/* One sweep for all of them: it takes milliseconds where there are a million cells. */
static int plk_recover_held(struct plk_segment *s, const struct plk_set *dead)
{
    uint64_t index = 0, end, per_page = PLK_PAGE / s->geometry.stride;
    int rc;

    while ((rc = plk_cells_next(s, &index, &end)) > 0) {
        plk_recover_cells(s, dead, index, end);
        index = end;
    }
    if (rc == 0)
        return 0;
    /* Without the descriptor nobody says which pages are there: those that this
     * process uses are.  The rest is left to processes that have it. */
    for (index = 0; index * per_page < s->geometry.cells; index++) {
        if (PLK_LOAD(&s->reserved[index]))
            plk_recover_cells(s, dead, index * per_page, (index + 1) * per_page);
    }
    return rc;
}

/* Passings of which nobody knows whether their passer lives; a second one does no harm. */
static void plk_finish_passings(struct plk_segment *s, struct plk_vcpu *me)
{
    uint32_t i;

    for (i = 0; i < s->geometry.tombs; i++) {
        uint64_t *slot = &plk_tombs(s)[i], mark = PLK_LOAD_ACQUIRE(slot), id = PLK_TOMB_ID(mark);
        struct plk_cell *cell;

        if ((mark & PLK_TOMB_PASSING) == 0 || (cell = plk_cell_named(s, id)) == NULL)
            continue;
        plk_pass_finish(s, me, cell, slot, mark);
        plk_serve_head(s, me, cell, id);
    }
}

/* The last of a recovery; a slot whose counts can't be mended now stays dirty. */
static int plk_recover_slot(struct plk_vcpu *dead, struct plk_segment *s)
{
    uint32_t channel = PLK_LOAD(&dead->channel), kicked = PLK_LOAD(&dead->kicking);

    PLK_SITE_FRAME();
    if (kicked != 0 && kicked <= s->geometry.channels) /* marked, and perhaps not woken (hv/park.c) */
        PLK_STORE(&plk_channels(s)[kicked - 1].kicked, 0);
    PLK_STORE(&dead->kicking, 0);
    PLK_STORE(&dead->wait_since, 0);
    PLK_STORE(&dead->depth, 0);
    PLK_STORE_RELEASE(&dead->pending_held, 0); /* [D3] what is left of D now is counts [D4] */
    if (PLK_LOAD(&s->header->tombs_live) != 0 && !plk_tombs_mend(s) && PLK_LOAD(&dead->burying) != 0)
        return -EAGAIN;
    PLK_STORE(&dead->burying, 0);
    if (channel != 0 && channel <= s->geometry.channels && !plk_parked_mend(s, channel - 1))
        return -EAGAIN;
    PLK_STORE(&dead->channel, 0);
    PLK_EVENT(dead, recoveries);
    PLK_STORE_RELEASE(&dead->state, PLK_VCPU_FREE); /* [D3] pairs with plk_slot_takable */
    return 0;
}

/* *owns: D has more to it than the locks that it was acquiring; it may also have died
 * on its way out of a release. */
static int plk_recover_claims(struct plk_segment *s, uint32_t index, int *owns)
{
    struct plk_vcpu *dead = plk_vcpu_at(s, index);
    struct plk_pend claims[PLK_CLAIMS_MOST];
    unsigned count = plk_claims_of_dead(dead, claims), i;
    int rc = 0, part;

    *owns = PLK_LOAD(&dead->held) > count;
    for (i = 0; i < count; i++) {
        part = plk_recover_claim(s, dead, index + 1, *owns, &claims[i]);
        rc = part != 0 ? part : rc;
    }
    return rc;
}

uint32_t plk_recover_dead(struct plk_segment *s)
{
    enum { DEAD, OWNERS, OPEN, SETS };
    struct plk_set *sets;
    uint32_t used = plk_slots(s), recovered = 0, first, i;
    int owns, swept;

    for (first = 0; first < used && !plk_vcpu_dirty(plk_vcpu_at(s, first)); first++)
        ;
    if (first == used || (sets = calloc(SETS, sizeof(*sets))) == NULL) /* too large for small stacks */
        return 0;
    for (i = first; i < used; i++) { /* who dies from now on is left to the next look */
        if (plk_vcpu_dirty(plk_vcpu_at(s, i)))
            plk_set_add(&sets[DEAD], i);
    }
    for (i = first; i < used; i++) {
        if (!plk_set_has(&sets[DEAD], i))
            continue;
        if (plk_recover_claims(s, i, &owns) != 0)
            plk_set_add(&sets[OPEN], i);
        if (owns)
            plk_set_add(&sets[OWNERS], i);
    }
    swept = sets[OWNERS].count == 0 || plk_recover_held(s, &sets[OWNERS]) == 0;
    if (PLK_LOAD(&s->header->tombs_live) != 0)
        plk_finish_passings(s, plk_vcpu_at(s, first));
    for (i = first; i < used; i++) {
        if (plk_set_has(&sets[DEAD], i) && !plk_set_has(&sets[OPEN], i) &&
            (swept || !plk_set_has(&sets[OWNERS], i)))
            recovered += plk_recover_slot(plk_vcpu_at(s, i), s) == 0;
    }
    free(sets);
    return recovered;
}

unsigned plk_recover_lapsed(struct plk_segment *s, uint64_t pid_ns)
{
    unsigned count = 0;
    uint32_t i;

    for (i = 0; i < plk_slots(s); i++)
        count += (unsigned)plk_life_settle(plk_vcpu_at(s, i), pid_ns);
    return count;
}

int plk_recover(struct plk_segment *s)
{
    uint64_t pid_ns = plk_identify().pid_ns;
    int rc = plk_guard_lock(s), count = 0;
    int64_t slots;
    uint32_t i;

    if (rc != 0)
        return rc;
    slots = plk_slots_ready(s);
    if (slots < 0) {
        plk_guard_unlock(s);
        return (int)slots;
    }
    plk_recover_lapsed(s, pid_ns);
    count = (int)plk_recover_dead(s);
    for (i = 0; i < plk_slots(s); i++) {
        struct plk_vcpu *v = plk_vcpu_at(s, i);

        if (PLK_LOAD_ACQUIRE(&v->state) != PLK_VCPU_ONLINE || plk_life_of(v) != PLK_LIFE_DEAD ||
            plk_vcpu_busy(v))
            continue;
        PLK_STORE_RELEASE(&v->state, PLK_VCPU_FREE);
        count++;
    }
    plk_parked_mend_all(s);
    for (i = 0; i < PLK_MEND_TRIES && !plk_tombs_mend(s); i++)
        sched_yield();
    plk_guard_unlock(s);
    return count;
}
