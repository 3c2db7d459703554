/* sync/holders.c - who holds an object, for those who ask: a look without the guard, out of date at once. */
#include "sync/sync.h"

#include "hv/directory.h"

struct plk_holders {
    struct plk_holder *rows;
    uint32_t most, count;
};

static void plk_holders_visit(struct plk_at *at, struct plk_node *node, int alive, void *arg)
{
    struct plk_holders *found = arg;
    uint32_t state = PLK_LOAD(&node->state), vcpu = (uint32_t)(plk_node_number(at->s, node) / PLK_NODES);
    const struct plk_vcpu *v = plk_vcpu_at(at->s, vcpu);

    if (state != PLK_NODE_HELD && (state != PLK_NODE_GRANTED || !at->kind->holds))
        return;
    if (found->count < found->most)
        found->rows[found->count++] = (struct plk_holder){
            vcpu, PLK_LOAD(&v->pid), PLK_LOAD(&v->tid), (uint32_t)PLK_LOAD(&node->data[0]), (uint32_t)alive};
}

int64_t plk_sync_holders(struct plk_segment *s, uint32_t index, uint32_t kind, struct plk_holder *rows,
                         uint32_t most)
{
    struct plk_holders found = {rows, most, 0};
    struct plk_ref ref;
    struct plk_at at = {.s = s, .id = (uint64_t)index + 1, .kind = plk_kind_of(kind)};
    int rc = plk_guard_bind(&ref, &s->face, index, kind);

    if (rc != 0)
        return rc;
    at.epoch = PLK_GENERATION_OF(PLK_LOAD(&ref.guard.cell->flags));
    plk_nodes_visit(&at, plk_holders_visit, &found);
    return found.count;
}
