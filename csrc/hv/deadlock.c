/* hv/deadlock.c - who would wait for ever.
 *
 * A waits for a lock that B holds, B for one that C holds, C for one that A holds: no
 * release will ever come.  One waiter has one lock that it waits for, and a lock has one
 * holder, so from a waiter there is one way on, and a look is a walk: it comes back to where
 * it began, or it ends at somebody who does not wait, or it goes round a cycle of others,
 * and is broken off after PLK_CYCLE_MOST steps.
 *
 * Never a cycle that was none.  Nothing is locked, and while one reads on, what was read
 * may have passed.  But each thing that is read has a number that never comes again:
 *
 *   v waits for L     since (set when the wait began, 0 when it ended), and shifts, which
 *                     moves when v comes back to its wait from a signal handler; the slot's
 *                     generation tells v from those who had the slot before
 *   o holds L         its owner record: the ticket, which is handed out once.  Valid while
 *                     head is that ticket
 *
 * What has the same number at two looks was so all the while between them.  So a cycle all
 * of whose parts are the same at a second look, begun when the first had ended, was whole
 * in between.  Only a member's death, deadline or signal handler could end it since then.
 *
 * Not all too late.  Each stores since, and what it waits for, then fences, then looks: of
 * those who close a cycle together the last to fence sees the stores of all others.  (The
 * fence pairs with itself in another thread.)  Nothing hangs on that: everybody looks again
 * when it has slept, for as long as its watchdog lets it.
 *
 * Exactly one gives way.  A cycle may have been seen by all of its members; they choose
 * the one that began to wait last, and among equals the one with the highest slot.  All
 * see the same numbers, since they do not change as long as the cycle stands; so all
 * choose the same one, and only that one acts, and only when it sees the cycle itself.  Nobody
 * is in two cycles, because there is one way on from each.  So it can't be two.  And one it
 * will be, because the one chosen looks until it sees what the others see.  Most often it
 * does at once: it was the last to come, and the cycle was whole then.
 *
 *   If it handles a signal, it does not wait, and the cycle is open for as long.
 *   Then it looks again; or the handler raises, and it leaves its place without a search.
 *   If it dies, recovery releases what it held, and the others go on without anybody
 *   having been told of a deadlock.  If it is stopped (SIGSTOP), all wait for it to go on.
 *
 * A signal handler may wait while its thread has a place in another queue, which keeps all
 * behind it waiting, too.  Such cycles are looked for by that thread alone, when it finds none
 * of the others; so it gives way itself.  (One with two such threads in it is left
 * to find() of pylocks.deadlocks.)
 *
 * Who gives way abandons its ticket as one does whose time has run out (hv/leave.c), keeps what
 * it holds, and returns -ELOOP. */
#include "hv/deadlock.h"

#include <stdlib.h>
#include <string.h>

#include "hv/futex.h"
#include "hv/park.h"
#include "hv/reserve.h"
#include "hv/vcpu.h"
#include "recover/life.h"

/* Has v a place in the queue behind one of `me`, of whose wait a signal handler took it away?  At the
 * gate of a bounded lock all who are still in its queue, or have nothing yet, are behind. */
static int plk_is_behind(const struct plk_vcpu *v, uint64_t wanted, int bounded, const struct plk_vcpu *me)
{
    uint64_t pending = PLK_LOAD_ACQUIRE(&v->pending), ticket = PLK_LOAD_ACQUIRE(&v->ticket);
    uint32_t depth = PLK_LOAD(&me->depth), i;

    for (i = 0; i < depth && i < PLK_PEND_DEPTH; i++) {
        const struct plk_pend *claim = &me->outer[i];

        if (PLK_LOAD(&claim->cell) == pending && ticket != PLK_NO_TICKET && PLK_LOAD(&claim->ticket) < ticket)
            return 1;
        if (bounded && PLK_LOAD(&claim->cell) == wanted && pending != wanted)
            return 1;
    }
    return 0;
}

/* What the vCPU waits for: 1, and *next must go on before.  0: for nothing, or it is not held.
 * nested: nor can those go on who are behind interrupted waits of `me`. */
static int plk_waits_for(struct plk_segment *s, uint32_t index, uint32_t me, int nested,
                         struct plk_member *m, uint32_t *next)
{
    const struct plk_vcpu *v = plk_vcpu_at(s, index);
    struct plk_cell *cell;
    uint64_t wanted;

    if (index >= plk_slots(s) || v == NULL)
        return 0;
    *m = (struct plk_member){.vcpu = index, .since = PLK_LOAD_ACQUIRE(&v->wait_since)};
    m->shifts = PLK_LOAD_ACQUIRE(&v->shifts); /* after since: see plk_unnest */
    m->generation = PLK_LOAD(&v->generation);
    m->pid = PLK_LOAD(&v->pid);
    m->tid = PLK_LOAD(&v->tid);
    wanted = PLK_LOAD_ACQUIRE(&v->wanted);
    if (m->since == 0 || wanted == 0 || wanted > s->geometry.cells ||
        PLK_LOAD_ACQUIRE(&v->state) != PLK_VCPU_ONLINE || plk_life_of(v) != PLK_LIFE_ALIVE ||
        plk_reserve_cell(s, (uint32_t)wanted - 1, &cell) != 0)
        return 0;
    m->wanted = (uint32_t)wanted - 1;
    if (nested && index != me &&
        plk_is_behind(v, wanted, (PLK_LOAD(&cell->flags) & PLK_CELL_BOUNDED) != 0, plk_vcpu_at(s, me))) {
        *next = me;
        return 1;
    }
    m->owner = PLK_LOAD_ACQUIRE(&cell->owner);
    *next = PLK_OWNER_VCPU(m->owner);
    /* Its own: it has been let in, and not yet noted that it waits no more. */
    return PLK_OWNER_VALID(m->owner, PLK_LOAD_ACQUIRE(&cell->head)) && *next != index;
}

/* Is this a member of a cycle?  Of how many; 0: no. */
static uint32_t plk_way_round(struct plk_segment *s, uint32_t me, int nested)
{
    struct plk_member m;
    uint32_t at = me, count;

    for (count = 1; count <= PLK_CYCLE_MOST && plk_waits_for(s, at, me, nested, &m, &at); count++) {
        if (at == me)
            return count;
    }
    return 0;
}

/* One look at a cycle of so many.  1: it is one; and, the second time, still the same. */
static int plk_look_round(struct plk_segment *s, uint32_t me, int nested, struct plk_cycle *cycle, int second)
{
    uint32_t at = me, i;

    for (i = 0; i < cycle->count; i++) {
        struct plk_member m;

        if (!plk_waits_for(s, at, me, nested, &m, &at) ||
            (second && memcmp(&m, &cycle->members[i], sizeof(m)) != 0))
            return 0;
        cycle->members[i] = m;
    }
    return at == me;
}

/* Is it up to the first of them? */
static int plk_gives_way(const struct plk_cycle *cycle)
{
    const struct plk_member *me = &cycle->members[0], *m;

    for (m = me + 1; m < me + cycle->count; m++) {
        if (m->since > me->since || (m->since == me->since && m->vcpu > me->vcpu))
            return 0;
    }
    return 1;
}

/* Two looks; 1: it is one, and keeps the thread's cycle. */
static int plk_cycle_stands(struct plk_segment *s, struct plk_seat *seat, int nested)
{
    uint32_t me = (uint32_t)seat->tag - 1, count = plk_way_round(s, me, nested);
    struct plk_cycle *cycle, *old = seat->cycle;

    if (count == 0)
        return 0;
    cycle = malloc(sizeof(*cycle) + count * sizeof(cycle->members[0]));
    if (cycle == NULL)
        return 0; /* nobody could be told of it: look again */
    cycle->count = count;
    seat->cycle = cycle;
    __asm__ volatile("" ::: "memory"); /* a child forked here does not free it twice */
    free(old);
    if (plk_look_round(s, me, nested, cycle, 0) && plk_look_round(s, me, nested, cycle, 1))
        return 1;
    cycle->count = 0;
    return 0;
}

int plk_search(struct plk_wait *w)
{
    struct plk_segment *s = plk_segment_of(w->lock->domain);
    struct plk_seat *seat = w->seat;
    uint64_t now = plk_now();

    if (now < w->search_at)
        return 0;
    w->search_at = now + plk_watchdog();
    if (plk_slots_ready(s) < 0) /* who came after this process last looked may be a member */
        return 0;
    PLK_FENCE(); /* since is out before we look; pairs with this fence in others who close the cycle */
    if (plk_cycle_stands(s, seat, 0))
        return plk_gives_way(seat->cycle);
    return PLK_LOAD(&seat->vcpu->depth) != 0 && plk_cycle_stands(s, seat, 1);
}

uint32_t plk_cycle_found(uint64_t domain, uint32_t index, struct plk_member *member)
{
    const struct plk_seat *seat = plk_seat_even_closed((struct plk_domain *)(uintptr_t)domain);

    if (seat == NULL || seat->cycle == NULL || index >= seat->cycle->count)
        return 0;
    *member = seat->cycle->members[index];
    return seat->cycle->count;
}
