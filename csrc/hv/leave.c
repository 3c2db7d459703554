/* hv/leave.c - abandoning a ticket and taking it back; the argument is in
 * recover/abandon.c, handshake [K2]. */
#include "hv/leave.h"

#include <stdlib.h>
#include <string.h>

#include "hv/barrier.h"
#include "hv/bounded.h"
#include "hv/park.h"
#include "hv/vcpu.h"
#include "recover/abandon.h"

/* The vCPU's own list of tickets that it left, so that a caller who polls keeps
 * its place.  An entry may be out of date (passed over since); it is dropped
 * when the same lock is left or taken again, so there is at most one a lock. */
static void plk_left_add(struct plk_seat *seat, uint64_t id, uint64_t ticket)
{
    uint32_t i;

    for (i = 0; i < seat->left_count; i++) {
        if (seat->left[i].cell == id) {
            seat->left[i].ticket = ticket;
            return;
        }
    }
    if (seat->left_count == seat->left_room) {
        uint32_t room = seat->left_room ? 2 * seat->left_room : 8;
        struct plk_pend *grown = malloc(room * sizeof(*grown)), *old = seat->left;

        if (grown == NULL)
            return; /* the place is lost, nothing else */
        if (old != NULL)
            memcpy(grown, old, seat->left_count * sizeof(*grown));
        seat->left = grown;
        seat->left_room = room;
        __asm__ volatile("" ::: "memory"); /* a child forked here does not free it twice */
        free(old);
    }
    seat->left[seat->left_count++] = (struct plk_pend){id, ticket};
}

/* It has no ticket any more. */
static void plk_ticket_over(struct plk_wait *w)
{
    struct plk_vcpu *me = w->seat->vcpu;

    PLK_STORE_RELEASE(&me->pending, 0);
    PLK_STORE_RELEASE(&me->held, PLK_LOAD(&me->held) - 1);
}

uint64_t plk_pass(struct plk_segment *s, struct plk_vcpu *me, struct plk_cell *cell, uint64_t id,
                  uint64_t head)
{
    unsigned passed;

    PLK_SITE_FRAME();
    head = plk_pass_on(s, me, cell, id, head, &passed);
    while (passed-- != 0)
        PLK_EVENT(me, passes);
    return head;
}

void plk_serve(struct plk_segment *s, struct plk_vcpu *me, struct plk_cell *cell, uint64_t id,
               uint64_t head)
{
    head = plk_pass(s, me, cell, id, head);
    plk_kick(s, me, id, head, PLK_KICK_AGAIN);
    if (PLK_LOAD(&cell->tail) == head)
        plk_queue_wake(s, me, cell, id);
}

void plk_serve_next(struct plk_lock *lock, struct plk_seat *seat, uint64_t head)
{
    struct plk_segment *s = plk_segment_of(lock->domain);

    PLK_FENCE(); /* [K1] [K2] head is out before we look; pairs with the fences of plk_slow_raise, plk_leave */
    head = plk_pass(s, seat->vcpu, lock->cell, lock->id, head);
    if (lock->policy == PLK_BOUNDED && PLK_LOAD(&lock->cell->tail) == head)
        plk_queue_call(lock, seat); /* nobody is at the gate */
    else
        plk_kick(s, seat->vcpu, lock->id, head, PLK_KICK_ONCE);
}

int plk_leave(struct plk_wait *w)
{
    struct plk_segment *s = plk_segment_of(w->lock->domain);
    struct plk_cell *cell = w->lock->cell;
    struct plk_vcpu *me = w->seat->vcpu;
    int rc = plk_tomb_put(s, me, w->lock->id, w->ticket), turn;

    PLK_SITE_FRAME();
    if (rc != 0)
        return rc;
    PLK_STORE(&cell->slow, 1);
    plk_barrier_heavy(s); /* [K2] pairs with unlock_barrier in plk_unlock, the new head in plk_pass_on */
    PLK_EVENT_AT(&s->face, me, abandons, w->lock->id, w->ticket);
    turn = PLK_LOAD_ACQUIRE(&cell->head) >= w->ticket;
    if (turn)
        plk_serve(s, me, cell, w->lock->id, w->ticket);
    else
        plk_left_add(w->seat, w->lock->id, w->ticket);
    PLK_STORE(&me->wait_since, 0);
    plk_ticket_over(w);
    return turn;
}

int plk_resume(struct plk_wait *w)
{
    struct plk_segment *s = plk_segment_of(w->lock->domain);
    struct plk_seat *seat = w->seat;
    struct plk_vcpu *me = seat->vcpu;
    uint64_t id = w->lock->id, ticket;
    uint32_t i;

    PLK_SITE_FRAME();
    for (i = 0; i < seat->left_count && seat->left[i].cell != id; i++)
        ;
    if (i == seat->left_count)
        return 0;
    ticket = seat->left[i].ticket;
    seat->left[i] = seat->left[--seat->left_count];
    /* Passed long ago?  All 64 bits tell; the tombstone knows only the low ones. */
    if (ticket < PLK_LOAD_ACQUIRE(&w->lock->cell->head))
        return 0;

    /* Claim the ticket in the slot before the tombstone falls (a compare-and-swap,
     * which no earlier store passes), so that it belongs to somebody at every
     * instant. */
    plk_announce(me, id);
    PLK_STORE_RELEASE(&me->ticket, ticket);
    if (plk_tomb_retract(s, me, id, ticket)) {
        PLK_EVENT(me, resumes);
        w->ticket = ticket;
        return 1;
    }
    plk_ticket_over(w); /* and of a bounded lock the wait goes on */
    return 0;
}

int plk_crowded(struct plk_domain *domain)
{
    struct plk_segment *s = plk_segment_of(domain);

    /* Three quarters full: the 32 places of a new tombstone are all taken once in
     * ten thousand times. */
    return PLK_LOAD(&s->header->tombs_live) >= s->geometry.tombs / 4 * 3;
}

int plk_nest(struct plk_wait *w)
{
    struct plk_vcpu *me = w->seat->vcpu;
    uint32_t depth = PLK_LOAD(&me->depth);

    if (depth >= PLK_PEND_DEPTH)
        return -ENOSPC;
    w->forks = plk_forks();
    w->since = PLK_LOAD(&me->wait_since);
    PLK_STORE(&me->wait_since, 0); /* who handles a signal does not wait */
    PLK_STORE(&me->outer[depth].ticket, w->ticket);
    PLK_STORE(&me->outer[depth].cell, w->lock->id);
    PLK_STORE_RELEASE(&me->depth, depth + 1); /* kept in the stack before pending falls */
    PLK_STORE_RELEASE(&me->pending, 0);
    return 0;
}

int plk_unnest(struct plk_wait *w)
{
    struct plk_vcpu *me = w->seat->vcpu;

    if (w->forks != plk_forks())
        return -ECHILD;
    PLK_STORE_RELEASE(&me->ticket, w->ticket);
    PLK_STORE_RELEASE(&me->pending, w->lock->id); /* back in place before the stack falls */
    PLK_STORE_RELEASE(&me->shifts, PLK_LOAD(&me->shifts) + 1); /* [D1] between the two; pairs with plk_look_at_slot */
    PLK_STORE_RELEASE(&me->depth, PLK_LOAD(&me->depth) - 1);
    PLK_STORE(&me->wanted, PLK_WANTED(w)->id);
    PLK_STORE_RELEASE(&me->wait_since, w->since); /* last: shifts has moved, which tells it from before */
    return 0;
}
