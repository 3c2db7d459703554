/* hv/mutexes.c - who holds a mutex.  Neither `held` of its vCPU nor a node says so. */
#include "hv/mutexes.h"

#include "hv/reserve.h"

int plk_mutex_held_by(struct plk_segment *s, int (*mine)(const struct plk_segment *s, uint64_t holder))
{
    uint64_t used = PLK_LOAD(&s->header->cells_next), i;

    for (i = 0; i < used && i < s->geometry.syncs; i++) {
        struct plk_cell *cell;
        struct plk_sync *sync;
        uint32_t flags, kind;
        uint64_t holder;

        if (plk_reserve_cell(s, (uint32_t)i, &cell) != 0)
            continue;
        flags = PLK_LOAD(&cell->flags);
        kind = PLK_KIND_OF(flags);
        if ((flags & PLK_CELL_ALLOCATED) == 0 || (flags & PLK_CELL_SYNC) == 0 ||
            (kind != PLK_KIND_mutex && kind != PLK_KIND_rmutex) || plk_reserve_sync(s, (uint32_t)i, &sync) != 0)
            continue;
        holder = PLK_LOAD(&sync->word) & PLK_SYNC_STATE;
        if (holder != 0 && mine(s, holder))
            return 1;
    }
    return 0;
}
