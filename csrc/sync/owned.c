/* sync/owned.c - permits that belong to the thread that took them, and come back when it dies.
 *
 * A node in state HELD says how many its thread has (data[0]).  `limit` of the record says how many there are in
 * all, so the word's state is a cache, too: what the living hold taken off that.  It is changed with the
 * guard held, after the node has been; who dies in between leaves the guard, and repair counts anew. */
#include "sync/sync.h"

static int plk_owned_can(uint64_t word) { return (word & PLK_SYNC_STATE) != 0; }

static int plk_owned_attempt(struct plk_at *at, struct plk_node *node, int called)
{
    struct plk_node *held = plk_node_held(at);
    uint64_t word = PLK_LOAD(&at->sync->word);

    if ((word & PLK_SYNC_STATE) == 0 || ((word & PLK_SYNC_RESERVED) != 0 && !called))
        return -EAGAIN;
    if (held != NULL)
        PLK_STORE(&held->data[0], held->data[0] + 1);
    else {
        PLK_STORE(&node->data[0], 1);
        at->holds = 1;
    }
    PLK_STORE(&at->sync->word, word - 1);
    return 0;
}

static void plk_owned_settle(struct plk_at *at) { plk_settle_calling(at, plk_owned_can); }

static void plk_owned_visit(struct plk_at *at, struct plk_node *node, int alive, void *held)
{
    (void)at;
    if (alive && PLK_LOAD(&node->state) == PLK_NODE_HELD)
        *(uint64_t *)held += PLK_LOAD(&node->data[0]);
}

static void plk_owned_repair(struct plk_at *at)
{
    uint64_t held = 0, limit = at->sync->limit;

    plk_nodes_visit(at, plk_owned_visit, &held);
    PLK_STORE(&at->sync->word, (PLK_LOAD(&at->sync->word) & ~PLK_SYNC_STATE) | (held < limit ? limit - held : 0));
}

static void plk_owned_dead(struct plk_at *at, struct plk_node *node)
{
    if (PLK_LOAD(&node->state) == PLK_NODE_HELD)
        plk_owned_repair(at);
}

static int plk_owned_act(struct plk_at *at, uint32_t what, uint64_t value)
{
    struct plk_node *held = plk_node_held(at);

    if (what != PLK_ACT_GIVE)
        return -EINVAL;
    if (held == NULL || held->data[0] < value)
        return -EPERM;
    PLK_STORE(&held->data[0], held->data[0] - value);
    if (held->data[0] == 0)
        plk_node_drop(at, held);
    PLK_STORE(&at->sync->word, PLK_LOAD(&at->sync->word) + value);
    return 0;
}

static void plk_owned_tell(const struct plk_sync *copy, struct plk_told *told)
{
    told->value = copy->word & PLK_SYNC_STATE;
    told->of = copy->limit;
}

const struct plk_kind_ops plk_kind_owned = {.attempt = plk_owned_attempt,
                                            .settle = plk_owned_settle,
                                            .dead = plk_owned_dead,
                                            .repair = plk_owned_repair,
                                            .act = plk_owned_act,
                                            .tell = plk_owned_tell};
