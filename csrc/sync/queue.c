/* sync/queue.c - the queue of an object: who is next, who is called, who is granted.
 *
 * A doubly linked list of nodes in order of arrival, changed with the guard held.  It is a cache: state,
 * `sync` and arrival of the nodes say who waits, and in which order, and plk_queue_rebuild makes the list of
 * them again.  That is done when somebody died with the guard, and where a link turns out to be wrong,
 * which a living user of the object never does: so whatever is written over it, a walk comes to its end.
 *
 * The steps of a change, so that one who dies between two of them leaves nodes that are right:
 *
 *   add      arrival, links, then QUEUED: until that is there, rebuild drops it
 *   grant    links, result, then GRANTED: until that is there, rebuild puts it back into its place
 *   call     the word's CALLED, then the node's: settle recomputes the first from the second
 *   free     links, then FREE: from then on its thread, or the slot's next, may use it for another wait
 *
 * What is woken is woken when the guard is free again, by a futex wake of the node's state.  Its thread may
 * have seen the state without that, and be gone, and the node be another wait's: that one wakes, looks at
 * its state, and sleeps on.  The kernel compares the state before a sleep, so no wake comes too early; one
 * that is not sent at all, for its sender died, is made up for by the watchdog of the sleeper (wait.c). */
#include "sync/sync.h"

#include "hv/futex.h"
#include "hv/park.h"
#include "hv/reserve.h"

#define PLK_SYNC_FLAGS (PLK_SYNC_WAITERS | PLK_SYNC_CALLED | PLK_SYNC_RESERVED)

static int plk_waits(uint32_t state)
{
    return state == PLK_NODE_QUEUED || state == PLK_NODE_CALLED || state == PLK_NODE_ASIDE;
}

/* The node that a link names, if that waits here. */
static struct plk_node *plk_node_linked(const struct plk_at *at, uint32_t link)
{
    struct plk_node *node;

    /* A link that was written over may name one that nobody has ever used: it, or its slot, has no memory. */
    if (link == 0 || (link - 1) / PLK_NODES >= plk_slots_ready(at->s) || plk_reserve_node(at->s, link - 1, &node) != 0 || PLK_LOAD(&node->sync) != at->id || PLK_LOAD(&node->epoch) != at->epoch ||
        !plk_waits(PLK_LOAD(&node->state)))
        return NULL;
    return node;
}

static uint32_t plk_link_to(const struct plk_at *at, const struct plk_node *node)
{
    return (uint32_t)plk_node_number(at->s, node) + 1;
}

/* Put it behind `before`, at the front if that is NULL. */
static void plk_link(struct plk_at *at, struct plk_node *node, struct plk_node *before)
{
    struct plk_sync *sync = at->sync;
    uint32_t me = plk_link_to(at, node), next = before != NULL ? before->next : sync->first;
    struct plk_node *behind = plk_node_linked(at, next);

    node->prev = before != NULL ? plk_link_to(at, before) : 0;
    node->next = behind != NULL ? next : 0;
    *(before != NULL ? &before->next : &sync->first) = me;
    *(behind != NULL ? &behind->prev : &sync->last) = me;
    sync->queued++;
}

void plk_queue_add(struct plk_at *at, struct plk_node *node)
{
    struct plk_sync *sync = at->sync;
    struct plk_node *last = plk_node_linked(at, sync->last);

    if (sync->last != 0 && last == NULL) {
        plk_queue_rebuild(at);
        last = plk_node_linked(at, sync->last);
    }
    node->arrival = sync->arrivals++;
    plk_link(at, node, last);
    PLK_STORE_RELEASE(&node->state, PLK_NODE_QUEUED);
}

/* The living that wait, into their places; the first look at each is the one that counts. */
static void plk_rebuild_visit(struct plk_at *at, struct plk_node *node, int alive, void *except)
{
    struct plk_node *before;
    uint64_t left = (uint64_t)at->s->geometry.noded * PLK_NODES;

    if (!alive || node == except || !plk_waits(PLK_LOAD(&node->state)))
        return;
    if (node->arrival >= at->sync->arrivals)
        at->sync->arrivals = node->arrival + 1;
    before = plk_node_linked(at, at->sync->last);
    while (before != NULL && before->arrival > node->arrival && left-- != 0)
        before = plk_node_linked(at, before->prev);
    plk_link(at, node, before);
}

static void plk_rebuild_without(struct plk_at *at, struct plk_node *except)
{
    at->sync->first = at->sync->last = at->sync->queued = 0;
    plk_nodes_visit(at, plk_rebuild_visit, except);
}

void plk_queue_rebuild(struct plk_at *at) { plk_rebuild_without(at, NULL); }

void plk_queue_remove(struct plk_at *at, struct plk_node *node)
{
    struct plk_sync *sync = at->sync;
    uint32_t me = plk_link_to(at, node);
    struct plk_node *before = plk_node_linked(at, node->prev), *behind = plk_node_linked(at, node->next);

    if ((before != NULL ? before->next : sync->first) != me || (behind != NULL ? behind->prev : sync->last) != me) {
        plk_rebuild_without(at, node);
        return;
    }
    *(before != NULL ? &before->next : &sync->first) = behind != NULL ? node->next : 0;
    *(behind != NULL ? &behind->prev : &sync->last) = before != NULL ? node->prev : 0;
    sync->queued--;
}

void plk_queue_bury(struct plk_at *at, struct plk_node *node)
{
    if (plk_waits(PLK_LOAD(&node->state)))
        plk_queue_remove(at, node);
    if (at->kind->dead != NULL)
        at->kind->dead(at, node);
    PLK_STORE_RELEASE(&node->state, PLK_NODE_FREE);
}

/* From `link` on. */
static struct plk_node *plk_at_find(struct plk_at *at, uint32_t link, int aside)
{
    uint64_t left = (uint64_t)at->s->geometry.noded * PLK_NODES + 1;
    int rebuilt = 0;

    while (link != 0 && left-- != 0) {
        struct plk_node *node = plk_node_linked(at, link);
        uint32_t state;

        if (node == NULL) {
            if (rebuilt++)
                return NULL;
            plk_queue_rebuild(at);
            link = at->sync->first;
            continue;
        }
        link = node->next;
        if (!plk_node_alive(at->s, node)) {
            plk_queue_bury(at, node);
            continue;
        }
        state = PLK_LOAD(&node->state);
        if (state == PLK_NODE_QUEUED || (aside && state != PLK_NODE_CALLED))
            return node;
    }
    return NULL;
}

struct plk_node *plk_at_first(struct plk_at *at, int aside) { return plk_at_find(at, at->sync->first, aside); }

struct plk_node *plk_at_next(struct plk_at *at, struct plk_node *node, int aside)
{
    return plk_at_find(at, node->next, aside);
}

void plk_at_wake(struct plk_at *at, struct plk_node *node)
{
    if (at->wakes < PLK_WAKES)
        at->wake[at->wakes++] = &node->state;
    else
        plk_futex_wake(&node->state, PLK_ANY_BIT);
}

int plk_grant(struct plk_at *at, struct plk_node *node, int32_t result)
{
    if (at->wakes == PLK_WAKES) {
        at->more = 1;
        return 1;
    }
    plk_queue_remove(at, node);
    PLK_STORE(&node->result, result);
    PLK_STORE_RELEASE(&node->state, PLK_NODE_GRANTED);
    plk_at_wake(at, node);
    return 0;
}

/* Who is called and may be relied on to come; who has not come for so long may be stopped. */
static struct plk_node *plk_at_called(const struct plk_at *at)
{
    struct plk_node *node = plk_node_linked(at, at->sync->called);

    if (node == NULL || PLK_LOAD(&node->state) != PLK_NODE_CALLED || !plk_node_alive(at->s, node) ||
        plk_now() - at->sync->called_ns >= plk_watchdog())
        return NULL;
    return node;
}

uint64_t plk_at_flags(struct plk_at *at, int can, struct plk_node **next)
{
    struct plk_node *called = plk_at_called(at), *first = called != NULL ? called : plk_at_first(at, 0);
    uint64_t flags = at->sync->queued != 0 ? PLK_SYNC_WAITERS : 0;

    *next = NULL;
    if (first == NULL)
        return flags;
    if (first->overdue)
        flags |= PLK_SYNC_RESERVED;
    if (called == NULL && !can)
        return flags;
    if (called == NULL)
        *next = first;
    return flags | PLK_SYNC_CALLED;
}

void plk_call_next(struct plk_at *at, struct plk_node *next)
{
    if (next == NULL)
        return;
    at->sync->called = plk_link_to(at, next);
    at->sync->called_ns = plk_now();
    if (next->called_ns == 0)
        next->called_ns = at->sync->called_ns;
    PLK_STORE_RELEASE(&next->state, PLK_NODE_CALLED);
    plk_at_wake(at, next);
}

void plk_settle_calling(struct plk_at *at, int (*can)(uint64_t word))
{
    uint64_t word = PLK_LOAD(&at->sync->word), flags;
    struct plk_node *next;

    do /* [Y1] the flags in one step with the look at what there is; pairs with plk_permit_give, plk_mutex_give */
        flags = plk_at_flags(at, can(word), &next);
    while (!__atomic_compare_exchange_n(&at->sync->word, &word, (word & ~PLK_SYNC_FLAGS) | flags, 0,
                                        __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    plk_call_next(at, next);
}
