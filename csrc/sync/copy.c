#include "sync/copy.h"

#include "sync/sync.h"

/* Times and links of the queue move while nobody comes or goes: sweeps, calls. */
static int plk_record_moved(const struct plk_sync *before, const struct plk_sync *now)
{
    uint64_t moved = (before->word ^ now->word) | (before->arrivals ^ now->arrivals) | (before->until ^ now->until);
    unsigned i;

    for (i = 0; i < sizeof(now->data) / sizeof(now->data[0]); i++)
        moved |= before->data[i] ^ now->data[i];
    return moved != 0;
}

uint32_t plk_copied_syncs(const void *copy, const void *again, uint32_t first, uint32_t count,
                          const uint32_t *indices, const uint32_t *flags, uint32_t cells, struct plk_sync_row *rows)
{
    const struct plk_sync *before = copy, *now = again;
    uint32_t i, found = 0;

    for (i = 0; i < cells; i++) {
        const struct plk_kind_ops *kind = plk_kind_of(PLK_KIND_OF(flags[i]));
        uint32_t at = indices[i] - first;

        if (indices[i] < first || at >= count || kind == NULL)
            continue;
        rows[found] = (struct plk_sync_row){
            .index = indices[i], .kind = PLK_KIND_OF(flags[i]), .epoch = PLK_GENERATION_OF(flags[i]),
            .changing = (uint32_t)plk_record_moved(&before[at], &now[at]),
            .told.owner_died = (now[at].word & PLK_SYNC_OWNER_DIED) != 0,
        };
        kind->tell(&now[at], &rows[found++].told);
    }
    return found;
}

static int plk_row_of(const struct plk_sync_row *objects, uint32_t known, uint32_t index, uint32_t *row)
{
    uint32_t low = 0, high = known;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;

        if (objects[mid].index < index)
            low = mid + 1;
        else
            high = mid;
    }
    *row = low;
    return low < known && objects[low].index == index;
}

uint32_t plk_copied_nodes(const void *copy, const void *again, uint64_t first, uint32_t count,
                          const struct plk_sync_row *objects, uint32_t known, struct plk_node_row *rows)
{
    const struct plk_node *before = copy, *now = again;
    uint32_t i, object, found = 0;

    for (i = 0; i < count; i++) {
        const struct plk_node *node = &now[i], *was = &before[i];
        int holds;

        if (node->state == PLK_NODE_FREE || node->state > PLK_NODE_HELD || node->sync == 0 ||
            !plk_row_of(objects, known, node->sync - 1, &object) || objects[object].epoch != node->epoch)
            continue;
        holds = node->state == PLK_NODE_HELD;
        if (node->state == PLK_NODE_GRANTED) {
            if (!plk_kind_of(objects[object].kind)->holds)
                continue; /* it has what it waited for */
            holds = 1;
        }
        rows[found++] = (struct plk_node_row){
            .object = object, .vcpu = (uint32_t)((first + i) / PLK_NODES), .generation = node->generation,
            .holds = (uint32_t)holds, .want = (uint32_t)node->data[0], .aside = node->state == PLK_NODE_ASIDE,
            .changing = was->state != node->state || was->sync != node->sync || was->arrival != node->arrival ||
                        was->generation != node->generation,
            .arrival = node->arrival,
        };
    }
    return found;
}
