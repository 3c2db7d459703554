/* sync/holders.c - who holds an object, for those who ask: a look without the guard, out of date at once. */
#include "sync/sync.h"

#include "hv/directory.h"
#include "recover/life.h"

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

/* Whom the record names, if that is still the thread that it was; unlike a node, its word may be alone. */
static void plk_holders_record(struct plk_at *at, struct plk_holders *found)
{
    struct plk_told told = {.holder = 0};
    struct plk_sync copy = {.word = PLK_LOAD(&at->sync->word)};
    const struct plk_vcpu *v;
    unsigned i;

    for (i = 0; i < sizeof(copy.data) / sizeof(copy.data[0]); i++)
        copy.data[i] = PLK_LOAD(&at->sync->data[i]);
    at->kind->tell(&copy, &told);
    v = plk_vcpu_at(at->s, (uint64_t)told.holder - 1);
    if (told.holder == 0 || v == NULL || PLK_LOAD_ACQUIRE(&v->state) != PLK_VCPU_ONLINE ||
        PLK_LOAD(&v->generation) != told.generation || found->count == found->most)
        return;
    found->rows[found->count++] = (struct plk_holder){told.holder - 1, PLK_LOAD(&v->pid), PLK_LOAD(&v->tid), 0,
                                                      plk_life_of(v) == PLK_LIFE_ALIVE};
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
    at.sync = ref.sync;
    at.epoch = PLK_GENERATION_OF(PLK_LOAD(&ref.guard.cell->flags));
    plk_nodes_visit(&at, plk_holders_visit, &found);
    plk_holders_record(&at, &found);
    return found.count;
}
