/* sync/rwlock.c - many readers or one writer, in phases.
 *
 * The state of the word is how many read, and whether somebody writes.  Each of them has a node in state
 * HELD, or GRANTED until it has woken, so the word is a cache: what the nodes say counts, and repair
 * makes it anew.  All of it is changed with the guard held, the word after the node.
 *
 *   arrival   a reader enters if nobody writes and nobody waits; a writer, if nobody is inside, nor waits
 *   phases    when a writer leaves, all readers enter who wait at that time, also those behind other writers
 *             (arrival < ADMITTED); when the last reader has left, the first writer does
 *
 * So a writer with k writers before it waits for at most k + 1 phases of readers and k of writers, and a reader
 * for the phase of readers that it came in, if a writer waits, and one writer, however many there are.
 *
 * A reader that dies is taken out of the count: it has changed nothing.  A writer that dies inside is told to
 * all who enter until one who writes has put things in order (OWNER_DIED in the word); one that died before
 * it had woken has not been inside. */
#include "sync/sync.h"

#define PLK_ADMITTED data[0]
#define PLK_AGAIN data[1] /* of a node: how often its reader entered beyond the first */

static uint64_t plk_rw_one(uint64_t want) { return want == PLK_WANT_WRITE ? PLK_RW_WRITER : 1; }

static int32_t plk_rw_told(const struct plk_sync *sync)
{
    return (PLK_LOAD(&sync->word) & PLK_SYNC_OWNER_DIED) != 0 ? PLK_OWNER_DIED : 0;
}

static void plk_rw_change(struct plk_sync *sync, uint64_t out, uint64_t in)
{
    PLK_STORE_RELEASE(&sync->word, PLK_LOAD(&sync->word) - out + in);
}

static int plk_rw_attempt(struct plk_at *at, struct plk_node *node, int called)
{
    struct plk_sync *sync = at->sync;
    struct plk_node *held = plk_node_held(at);
    uint64_t want = node->data[0], state = PLK_LOAD(&sync->word) & PLK_SYNC_STATE;

    (void)called;
    PLK_STORE(&node->result, plk_rw_told(sync));
    if (held != NULL) {
        if (want != PLK_WANT_READ || held->data[0] != PLK_WANT_READ)
            return -EALREADY; /* it would wait for itself */
        PLK_STORE(&held->PLK_AGAIN, held->PLK_AGAIN + 1);
        return 0;
    }
    if (sync->queued != 0 || state >= PLK_RW_WRITER || (want == PLK_WANT_WRITE && state != 0))
        return -EAGAIN;
    at->holds = 1;
    plk_rw_change(sync, 0, plk_rw_one(want));
    return 0;
}

/* 0; 1: not done, as plk_grant. */
static int plk_rw_admit(struct plk_at *at, struct plk_node *node)
{
    if (plk_grant(at, node, plk_rw_told(at->sync)) != 0)
        return 1;
    plk_rw_change(at->sync, 0, plk_rw_one(node->data[0]));
    return 0;
}

static void plk_rw_settle(struct plk_at *at)
{
    struct plk_sync *sync = at->sync;
    struct plk_node *writer = NULL, *node, *next;

    if ((PLK_LOAD(&sync->word) & PLK_SYNC_STATE) < PLK_RW_WRITER) {
        for (node = plk_at_first(at, 0); node != NULL; node = next) {
            if (writer != NULL && node->arrival >= sync->PLK_ADMITTED)
                break;
            next = plk_at_next(at, node, 0);
            if (node->data[0] == PLK_WANT_WRITE)
                writer = writer == NULL ? node : writer;
            else if (plk_rw_admit(at, node) != 0)
                return;
        }
        if (writer != NULL && (PLK_LOAD(&sync->word) & PLK_SYNC_STATE) == 0 && plk_rw_admit(at, writer) != 0)
            return;
    }
    PLK_STORE_RELEASE(&sync->word, (PLK_LOAD(&sync->word) & ~PLK_SYNC_WAITERS) |
                                       (sync->queued != 0 ? PLK_SYNC_WAITERS : 0));
}

static void plk_rw_count(struct plk_at *at, struct plk_node *node, int alive, void *inside)
{
    uint32_t state = PLK_LOAD(&node->state);

    (void)at;
    if (alive && (state == PLK_NODE_HELD || state == PLK_NODE_GRANTED))
        *(uint64_t *)inside += plk_rw_one(node->data[0]);
}

/* The word, from those who are inside and alive. */
static void plk_rw_repair(struct plk_at *at)
{
    uint64_t inside = 0, word = PLK_LOAD(&at->sync->word);

    plk_nodes_visit(at, plk_rw_count, &inside);
    if ((word & PLK_SYNC_STATE) >= PLK_RW_WRITER && inside < PLK_RW_WRITER)
        PLK_STORE(&at->sync->PLK_ADMITTED, at->sync->arrivals); /* a writer's phase is over */
    PLK_STORE_RELEASE(&at->sync->word, (word & ~PLK_SYNC_STATE) | (inside & PLK_SYNC_STATE));
}

static void plk_rw_dead(struct plk_at *at, struct plk_node *node)
{
    uint32_t state = PLK_LOAD(&node->state);

    if (state == PLK_NODE_HELD && node->data[0] == PLK_WANT_WRITE)
        __atomic_fetch_or(&at->sync->word, PLK_SYNC_OWNER_DIED, __ATOMIC_SEQ_CST);
    if (state == PLK_NODE_HELD || state == PLK_NODE_GRANTED)
        plk_rw_repair(at);
}

static int plk_rw_act(struct plk_at *at, uint32_t what, uint64_t value)
{
    struct plk_node *held = plk_node_held(at);

    if (what != PLK_ACT_UNLOCK && what != PLK_ACT_MEND)
        return -EINVAL;
    if (held == NULL || held->data[0] != value)
        return -EPERM;
    if (what == PLK_ACT_MEND)
        __atomic_fetch_and(&at->sync->word, ~PLK_SYNC_OWNER_DIED, __ATOMIC_SEQ_CST);
    else if (held->PLK_AGAIN != 0)
        PLK_STORE(&held->PLK_AGAIN, held->PLK_AGAIN - 1);
    else {
        if (value == PLK_WANT_WRITE)
            PLK_STORE(&at->sync->PLK_ADMITTED, at->sync->arrivals);
        plk_node_drop(at, held);
        plk_rw_change(at->sync, plk_rw_one(value), 0);
    }
    return 0;
}

static void plk_rw_tell(const struct plk_sync *copy, struct plk_told *told)
{
    told->mode = (copy->word & PLK_SYNC_STATE) >= PLK_RW_WRITER ? PLK_MODE_WRITTEN : PLK_MODE_USUAL;
    told->value = copy->word & PLK_RW_READERS;
}

const struct plk_kind_ops plk_kind_rwlock = {.holds = 1,
                                             .attempt = plk_rw_attempt,
                                             .settle = plk_rw_settle,
                                             .dead = plk_rw_dead,
                                             .repair = plk_rw_repair,
                                             .act = plk_rw_act,
                                             .tell = plk_rw_tell};
