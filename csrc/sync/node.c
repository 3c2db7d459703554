/* sync/node.c - nodes: whose they are, and whether anybody is behind them.
 *
 * A node is used by the thread in whose slot it lies; `seat->nodes` says which it uses, and the slot's
 * `nodes` tells others.  Who is dead leaves its nodes as they are.  Whoever comes upon one with the guard of
 * its object takes it out and frees it; and so does the slot's next thread, before it uses the same node
 * again.  That a node is a dead thread's is told by the slot: its thread is not alive, or the generation has
 * moved on.  The living never look dead: a slot keeps its generation while its thread lives.
 *
 * A living thread may desert a node: it takes the generation away from it, and leaves it to the same hands.
 * That may be done at any instant, whatever somebody with the guard is doing to it, because that is what a
 * thread's death is.  It is for who can't wait for the guard any longer (wait.c). */
#include "sync/sync.h"

#include "hv/directory.h"
#include "hv/reserve.h"
#include "hv/vcpu.h"
#include "recover/life.h"

uint64_t plk_node_number(const struct plk_segment *s, const struct plk_node *node)
{
    return (uint64_t)(node - (const struct plk_node *)(s->base + s->geometry.off_nodes));
}

int plk_node_alive(const struct plk_segment *s, const struct plk_node *node)
{
    const struct plk_vcpu *v = plk_vcpu_at(s, plk_node_number(s, node) / PLK_NODES);

    return PLK_LOAD_ACQUIRE(&v->state) == PLK_VCPU_ONLINE && PLK_LOAD(&v->generation) == PLK_LOAD(&node->generation) &&
           plk_life_of(v) == PLK_LIFE_ALIVE;
}

static uint32_t plk_nodes_of(const struct plk_vcpu *v)
{
    return PLK_LOAD_ACQUIRE(&v->nodes) | PLK_LOAD(&v->nodes_left); /* never in neither: plk_node_desert */
}

void plk_nodes_visit(struct plk_at *at, plk_visit *visit, void *arg)
{
    int64_t slots = plk_slots_ready(at->s);
    uint64_t i;
    uint32_t k;

    for (i = 0; (int64_t)i < slots; i++) {
        uint32_t used = plk_nodes_of(plk_vcpu_at(at->s, i));

        for (k = 0; used >> k != 0 && k < PLK_NODES; k++) {
            struct plk_node *node;

            if ((used >> k & 1) == 0 || plk_reserve_node(at->s, i * PLK_NODES + k, &node) != 0)
                continue;
            if (PLK_LOAD_ACQUIRE(&node->state) != PLK_NODE_FREE && PLK_LOAD(&node->sync) == at->id &&
                PLK_LOAD(&node->epoch) == at->epoch)
                visit(at, node, plk_node_alive(at->s, node), arg);
            if (k == PLK_NODES - 1)
                break; /* a shift by the width is none */
        }
    }
}

static struct plk_node *plk_node_used(struct plk_segment *s, struct plk_seat *seat, uint32_t k)
{
    return plk_node_at(s, (seat->tag - 1) * PLK_NODES + k);
}

/* What it says it belongs to; its words may be anything.  Nonzero: there is such an object. */
static int plk_node_object(struct plk_segment *s, const struct plk_node *node, struct plk_ref *ref)
{
    uint32_t id = PLK_LOAD(&node->sync);
    struct plk_cell *cell;
    uint32_t flags;

    if (id == 0 || plk_reserve_cell(s, id - 1, &cell) != 0)
        return 0;
    flags = PLK_LOAD(&cell->flags);
    return (flags & PLK_CELL_SYNC) != 0 && plk_kind_of(PLK_KIND_OF(flags)) != NULL &&
           plk_guard_bind(ref, &s->face, id - 1, PLK_KIND_OF(flags)) == 0;
}

/* Free a node of a dead thread.  Nonzero: it is free. */
static int plk_node_reap(struct plk_segment *s, struct plk_seat *seat, struct plk_node *node)
{
    struct plk_ref ref;
    struct plk_at at;

    if (!plk_node_object(s, node, &ref)) {
        PLK_STORE_RELEASE(&node->state, PLK_NODE_FREE);
        return 1;
    }
    if (plk_at_enter(&at, &ref, seat, 0) != 0)
        return 0;
    if (PLK_LOAD(&node->state) != PLK_NODE_FREE && !plk_node_alive(s, node)) {
        if (PLK_LOAD(&node->sync) != at.id || PLK_LOAD(&node->epoch) != at.epoch)
            PLK_STORE_RELEASE(&node->state, PLK_NODE_FREE); /* the cell was another's then */
        else
            plk_queue_bury(&at, node);
    }
    plk_at_leave(&at, 1);
    return PLK_LOAD_ACQUIRE(&node->state) == PLK_NODE_FREE;
}

int plk_node_take(struct plk_ref *ref, struct plk_seat *seat, struct plk_node **found)
{
    struct plk_segment *s = plk_segment_of(ref->guard.domain);
    struct plk_vcpu *me = seat->vcpu;
    int reaps;
    uint32_t k;

    for (reaps = 0; reaps < 2; reaps++) {
        for (k = 0; k < PLK_NODES; k++) {
            uint32_t bit = 1u << k;
            struct plk_node *node;
            int rc;

            if ((seat->nodes & bit) != 0)
                continue;
            rc = plk_reserve_node(s, (seat->tag - 1) * PLK_NODES + k, &node);
            if (rc != 0)
                return rc;
            if (PLK_LOAD_ACQUIRE(&node->state) != PLK_NODE_FREE &&
                (!reaps || !plk_node_reap(s, seat, node)))
                continue;
            seat->nodes |= bit;
            PLK_STORE(&node->sync, (uint32_t)ref->guard.id);
            PLK_STORE(&node->epoch, PLK_GENERATION_OF(PLK_LOAD(&ref->guard.cell->flags)));
            PLK_STORE(&node->generation, PLK_LOAD(&me->generation));
            PLK_STORE(&node->result, 0);
            PLK_STORE(&node->overdue, 0);
            PLK_STORE(&node->called_ns, 0);
            PLK_STORE(&node->data[0], 0);
            PLK_STORE(&node->data[1], 0);
            PLK_STORE(&me->nodes_left, PLK_LOAD(&me->nodes_left) & ~bit);
            PLK_STORE_RELEASE(&me->nodes, seat->nodes); /* before its state says that it is used */
            *found = node;
            return 0;
        }
    }
    return -ENOBUFS;
}

void plk_node_free(struct plk_segment *s, struct plk_seat *seat, struct plk_node *node)
{
    uint32_t bit = 1u << (plk_node_number(s, node) % PLK_NODES);

    PLK_STORE_RELEASE(&node->state, PLK_NODE_FREE);
    seat->nodes &= ~bit;
    PLK_STORE_RELEASE(&seat->vcpu->nodes, seat->nodes);
}

void plk_node_desert(struct plk_segment *s, struct plk_seat *seat, struct plk_node *node)
{
    uint32_t bit = 1u << (plk_node_number(s, node) % PLK_NODES);
    struct plk_vcpu *me = seat->vcpu;

    PLK_STORE(&me->nodes_left, PLK_LOAD(&me->nodes_left) | bit);
    seat->nodes &= ~bit;
    PLK_STORE_RELEASE(&me->nodes, seat->nodes);
    PLK_STORE_RELEASE(&node->generation, PLK_LOAD(&me->generation) - 1);
}

struct plk_node *plk_node_held(struct plk_at *at)
{
    struct plk_node *node;
    uint32_t k;

    for (k = 0; k < PLK_NODES; k++) {
        if ((at->seat->nodes >> k & 1) == 0)
            continue;
        node = plk_node_used(at->s, at->seat, k);
        if (node != NULL && PLK_LOAD(&node->state) == PLK_NODE_HELD && PLK_LOAD(&node->sync) == at->id &&
            PLK_LOAD(&node->epoch) == at->epoch)
            return node;
    }
    return NULL;
}

void plk_node_drop(struct plk_at *at, struct plk_node *node) { plk_node_free(at->s, at->seat, node); }

int plk_sync_recover(struct plk_segment *s)
{
    struct plk_seat *seat = NULL;
    int64_t slots = plk_slots_ready(s);
    int rc, count = 0;
    uint64_t i;
    uint32_t k;

    for (i = 0; (int64_t)i < slots; i++) {
        for (k = 0; k < PLK_NODES; k++) {
            struct plk_node *node;

            if ((plk_nodes_of(plk_vcpu_at(s, i)) >> k & 1) == 0 ||
                plk_reserve_node(s, i * PLK_NODES + k, &node) != 0 ||
                PLK_LOAD_ACQUIRE(&node->state) == PLK_NODE_FREE || plk_node_alive(s, node))
                continue;
            /* Who only looks needs no slot. */
            if (seat == NULL && (rc = plk_first_use(&s->face, &seat)) != 0)
                return rc;
            count += plk_node_reap(s, seat, node);
        }
    }
    return count;
}
