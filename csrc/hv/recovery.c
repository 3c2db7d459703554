/* hv/recovery.c - death of a participant.
 *
 * A thread may be killed between any two instructions.  What it had done by then
 * is told by its slot (pending, ticket, outer, held: fast.h has the order of the
 * stores) and by the owner records; that it is dead, by its life word.  Whoever
 * notices takes the domain mutex and does what the dead would have done next, or
 * what it would have done on leaving the queue.  Noticed by
 *
 *   a waiter        whose sleep the watchdog ended, every so many yields or spins
 *   an arrival      that finds the lock busy and its owner dead, without waiting
 *   a newcomer      that looks for a free slot (hv/vcpu.c)
 *   Domain.recover
 *
 * For each dirty dead vCPU D, in this order:
 *
 *   claims   For each wait of D, on cell L:
 *              ticket t noted, head <= t: D is a leaver, and [K2] does the rest:
 *                tombstone, slow, fence, look at head, pass on if the turn came.
 *                That covers D granted but not entered, and D's owner record
 *                written but pending not yet cleared: it never got into its
 *                critical section, so nothing there can be half-done.
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
 * waiter's watch finds that head belongs to nobody (plk_look_after_head). */
#include "hv/recovery.h"

#include <sched.h>

#include "hv/barrier.h"
#include "hv/futex.h"
#include "hv/guard.h"
#include "hv/identity.h"
#include "hv/leave.h"
#include "hv/park.h"
#include "hv/reserve.h"
#include "recover/abandon.h"
#include "recover/claims.h"
#include "recover/counts.h"
#include "recover/life.h"

#define PLK_ORPHAN_TRIES 100

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

/* Ticket t is served and the dead's: move head on for them.  Nobody else would, unless
 * they had abandoned it before they died: then a passer may be quicker, and the
 * tombstone has to go. */
static int plk_release_for(struct plk_segment *s, struct plk_vcpu *me, struct plk_cell *cell, uint64_t id,
                           uint64_t t)
{
    uint64_t head = t;

    PLK_STORE_RELEASE(&cell->slow, 1); /* [S1] before head: nobody enters and misses it */
    __atomic_compare_exchange_n(&cell->head, &head, t + 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    PLK_FENCE(); /* [K1] [K2] head is out before we look; pairs with plk_slow_raise, plk_leave */
    if (plk_tomb_stands(s, id, t))
        plk_serve(s, me, cell, id, t);
    plk_serve_head(s, me, cell, id);
    return 0;
}

/* Ticket t was the dead's: abandon it for them. */
static int plk_leave_for(struct plk_segment *s, struct plk_vcpu *dead, struct plk_cell *cell, uint64_t id,
                         uint64_t t)
{
    int rc;

    if (t >= PLK_LOAD_ACQUIRE(&cell->tail))
        return 0; /* the slot lies */
    if (t < PLK_LOAD_ACQUIRE(&cell->head)) {
        plk_serve(s, dead, cell, id, t); /* a recoverer before us may have died with it put up */
        return 0;
    }
    if (t == PLK_LOAD_ACQUIRE(&cell->head))
        return plk_release_for(s, dead, cell, id, t);
    rc = plk_tomb_put(s, dead, id, t);
    if (rc != 0)
        return rc; /* the table is full: when head has come to t, it needs no tombstone */
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
        if (rc == 0 && !owns && plk_was_entering(cell, tag, &ticket))
            rc = plk_leave_for(s, dead, cell, claim->cell, ticket);
    } else
        rc = plk_leave_for(s, dead, cell, claim->cell, claim->ticket);
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

    if (PLK_OWNER_VALID(owner, head) && head < PLK_LOAD_ACQUIRE(&cell->tail)) {
        /* [D2] flag before head; pairs with the look at flags of whoever enters next */
        __atomic_fetch_or(&cell->flags, PLK_CELL_OWNER_DIED, __ATOMIC_SEQ_CST);
        plk_release_for(s, dead, cell, id, head);
    } else
        plk_serve_head(s, dead, cell, id);
}

static void plk_recover_cells(struct plk_segment *s, struct plk_vcpu *dead, uint32_t tag, uint64_t from,
                              uint64_t end)
{
    for (; from < end; from++) {
        struct plk_cell *cell = plk_cell_at(s, from);
        uint64_t owner;

        if (cell == NULL)
            return;
        owner = PLK_LOAD_ACQUIRE(&cell->owner);
        if ((owner & 0xffffu) == tag)
            plk_recover_owned(s, dead, cell, from + 1, owner);
    }
}

static int plk_recover_held(struct plk_segment *s, struct plk_vcpu *dead, uint32_t tag)
{
    uint64_t index = 0, end, per_page = PLK_PAGE / s->geometry.stride;
    int rc;

    while ((rc = plk_cells_next(s, &index, &end)) > 0) {
        plk_recover_cells(s, dead, tag, index, end);
        index = end;
    }
    if (rc == 0)
        return 0;
    /* Without the descriptor nobody says which pages are there: those that this
     * process uses are.  The rest is left to processes that have it. */
    for (index = 0; index * per_page < s->geometry.cells; index++) {
        if (PLK_LOAD(&s->reserved[index]))
            plk_recover_cells(s, dead, tag, index * per_page, (index + 1) * per_page);
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

/* [D4] The last of a recovery; a slot whose counts can't be mended now stays dirty. */
static int plk_mend_counts(struct plk_segment *s, struct plk_vcpu *dead)
{
    uint32_t channel = PLK_LOAD(&dead->channel);

    PLK_SITE_FRAME();
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

int plk_recover_vcpu(struct plk_segment *s, uint32_t index)
{
    struct plk_vcpu *dead = plk_vcpu_at(s, index);
    struct plk_pend claims[PLK_CLAIMS_MOST];
    unsigned count = plk_claims_of_dead(dead, claims), i;
    int owns = PLK_LOAD(&dead->held) > count; /* or died on its way out of a release */
    int rc = 0, part;

    PLK_SITE_FRAME();
    for (i = 0; i < count; i++) {
        part = plk_recover_claim(s, dead, index + 1, owns, &claims[i]);
        rc = part != 0 ? part : rc;
    }
    if (owns) {
        part = plk_recover_held(s, dead, index + 1);
        rc = part != 0 ? part : rc;
    }
    if (PLK_LOAD(&s->header->tombs_live) != 0)
        plk_finish_passings(s, dead);
    if (rc != 0)
        return rc;
    PLK_STORE(&dead->wait_since, 0);
    PLK_STORE(&dead->depth, 0);
    PLK_STORE_RELEASE(&dead->pending_held, 0); /* what is left of D now is counts */
    return plk_mend_counts(s, dead);
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
    for (i = 0; i < plk_slots(s); i++) {
        struct plk_vcpu *v = plk_vcpu_at(s, i);

        if (PLK_LOAD_ACQUIRE(&v->state) != PLK_VCPU_ONLINE || plk_life_of(v) != PLK_LIFE_DEAD)
            continue;
        if (!plk_vcpu_busy(v))
            PLK_STORE_RELEASE(&v->state, PLK_VCPU_FREE);
        else if (plk_recover_vcpu(s, i) != 0)
            continue;
        count++;
    }
    plk_parked_mend_all(s);
    for (i = 0; i < PLK_ORPHAN_TRIES && !plk_tombs_mend(s); i++)
        sched_yield();
    plk_guard_unlock(s);
    return count;
}

/* ------------------------------------------------------------ watching */

/* Has nobody in the domain looked for a while?  Then it is up to this thread. */
static int plk_look_due(struct plk_segment *s)
{
    uint64_t *looked = &s->header->looked_ns, last = PLK_LOAD(looked), now = plk_now();

    return now - last >= plk_watchdog() / 3 &&
           __atomic_compare_exchange_n(looked, &last, now, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

static int plk_anybody_dirty(struct plk_segment *s)
{
    int64_t used = plk_slots_ready(s);
    uint32_t i;

    for (i = 0; i < used; i++) {
        if (plk_vcpu_dirty(plk_vcpu_at(s, i)))
            return 1;
    }
    return 0;
}

/* Head is a ticket that nobody has entered with: somebody's that is about to, or
 * nobody's. */
static void plk_look_after_head(struct plk_segment *s, struct plk_wait *w)
{
    struct plk_cell *cell = w->lock->cell;
    uint64_t head = PLK_LOAD_ACQUIRE(&cell->head), ticket;

    if (head >= PLK_LOAD_ACQUIRE(&cell->tail) || PLK_OWNER_VALID(PLK_LOAD(&cell->owner), head))
        return;
    if (plk_orphan(s, cell, w->lock->id, head, head + 1, &ticket) == 1)
        plk_leave_for(s, w->seat->vcpu, cell, w->lock->id, ticket);
}

/* Somebody holds the lock, or is about to, whose word looks alive: ask the kernel. */
static int plk_head_lapsed(struct plk_segment *s, const struct plk_wait *w)
{
    const struct plk_cell *cell = w->lock->cell;
    uint64_t owner = PLK_LOAD_ACQUIRE(&cell->owner), pid_ns = PLK_LOAD(&w->seat->vcpu->pid_ns);
    uint32_t index = PLK_OWNER_VCPU(owner);

    if (PLK_OWNER_VALID(owner, PLK_LOAD_ACQUIRE(&cell->head)))
        return index < plk_slots(s) && plk_life_lapsed(plk_vcpu_at(s, index), pid_ns);
    for (index = 0; index < plk_slots(s); index++) {
        const struct plk_vcpu *v = plk_vcpu_at(s, index);

        if (PLK_LOAD(&v->pending) == w->lock->id && plk_life_lapsed(v, pid_ns))
            return 1;
    }
    return 0;
}

/* due: nobody else has looked at all vCPUs for a while. */
static void plk_look_for_dead(struct plk_segment *s, struct plk_wait *w, int due)
{
    const struct plk_cell *cell = w->lock->cell;
    int lapsed = due && plk_head_lapsed(s, w);
    uint32_t i;

    if (!lapsed && !(due && plk_anybody_dirty(s)) &&
        PLK_OWNER_VALID(PLK_LOAD(&cell->owner), PLK_LOAD_ACQUIRE(&cell->head)))
        return;
    if (plk_guard_trylock(s) != 0)
        return; /* who has it recovers, or will be done soon; or died, and the next look gets it */
    if (plk_slots_ready(s) >= 0) {
        if (lapsed)
            plk_recover_lapsed(s, PLK_LOAD(&w->seat->vcpu->pid_ns));
        for (i = 0; due && i < plk_slots(s); i++) {
            if (plk_vcpu_dirty(plk_vcpu_at(s, i)))
                plk_recover_vcpu(s, i);
        }
        plk_look_after_head(s, w);
    }
    plk_guard_unlock(s);
}

/* The lock is held by one who lives. */
static int plk_holder_lives(struct plk_segment *s, const struct plk_cell *cell, uint64_t head)
{
    uint64_t owner = PLK_LOAD(&cell->owner);
    uint32_t index = PLK_OWNER_VCPU(owner);

    return PLK_OWNER_VALID(owner, head) && index < plk_slots(s) &&
           plk_life_of(plk_vcpu_at(s, index)) == PLK_LIFE_ALIVE;
}

void plk_watch(struct plk_wait *w)
{
    struct plk_segment *s = plk_segment_of(w->lock->domain);
    struct plk_cell *cell = w->lock->cell;
    uint64_t head = PLK_LOAD_ACQUIRE(&cell->head);
    int waits = w->ticket != PLK_NO_TICKET, sleeps = waits && s->face.protocol != PLK_NATIVE;
    int due;

    if (head == w->ticket || (!waits && plk_holder_lives(s, cell, head)))
        return;
    due = plk_look_due(s);
    if (due || sleeps) /* its own queue a sleeper looks after in any case, as it looks so rarely */
        plk_look_for_dead(s, w, due);
    head = PLK_LOAD_ACQUIRE(&cell->head);
    /* Among sleepers it kicks again even if there is no tombstone: that costs
     * one look at the channel and mends a kick whose sender died before it. */
    if (head != w->ticket && (sleeps || PLK_LOAD(&s->header->tombs_live) != 0))
        plk_serve(s, w->seat->vcpu, cell, w->lock->id, head);
}
