/* syncs.c - semaphores, events and their like. */
#include "targets.h"

#include "hv/directory.h"
#include "hv/reserve.h"
#include "hv/vcpu.h"
#include "sync/sync.h"

#define USED_MAX 64u
static uint64_t used[USED_MAX];
static uint32_t used_count;

void forget_the_syncs(void) { used_count = 0; }

static void empty_record(uint64_t index)
{
    uint64_t word, none = 0, at = world.geometry.off_syncs + index * sizeof(struct plk_sync);

    if (world_read(at, &word, sizeof(word)) && (word & PLK_SYNC_STATE) != 0)
        world_write(at, &none, sizeof(none));
}

/* Those that were used, and as many others as may have been written over to say so. */
void let_go_of_syncs(void)
{
    uint64_t i;

    for (i = 0; i < used_count; i++)
        empty_record(used[i]);
    for (i = 0; i < world.geometry.syncs && i < 256; i++)
        empty_record(i);
}

static int64_t a_sync(void)
{
    const struct plk_seed seed = {below(PLK_KIND_COUNT + 1), below(4), below(4)};
    uint32_t length;
    const char *name = shape_name(below(7), &length);

    if (one_in(2))
        return result(T_sync_new, plk_sync_new(segment, &seed));
    return result(T_sync_find, plk_sync_find(segment, name, length, (int)below(2), &seed));
}

void use_a_sync(void)
{
    static struct plk_ref ref;
    static struct plk_sync_wait w;
    struct plk_seat *seat;
    int64_t index = a_sync();
    struct plk_cell *cell;

    if (!world.enrolled)
        enroll();
    if (!world.enrolled || index < 0 || plk_reserve_cell(segment, (uint32_t)index, &cell) != 0 ||
        result(T_sync_init, plk_the_sync_api.init(&ref, &segment->face, (uint32_t)index,
                                                  one_in(8) ? below(9) : PLK_KIND_OF(cell->flags))) != 0)
        return;
    if (used_count < USED_MAX)
        used[used_count++] = (uint64_t)index;
    about_to_wait(&ref.guard);
    seat = plk_seat_even_closed(&segment->face);
    switch (below(4)) {
    case 0: result(T_sync_act, plk_the_sync_api.act(&ref, seat, below(PLK_ACT_KINDS + 1), below(3))); break;
    case 1: result(T_sync_look, plk_the_sync_api.look(&ref, seat)); break;
    default:
        w = (struct plk_sync_wait){.ref = &ref, .seat = seat, .deadline = one_in(3) ? 0 : soon(), .pause = soon()};
        if (result(T_sync_wait, plk_the_sync_api.wait(&w)) != -EINTR)
            break;
        if (one_in(2)) {
            plk_the_sync_api.aside(&w);
            mutate_living();
            plk_the_sync_api.back(&w);
        }
        result(T_sync_leave, plk_the_sync_api.leave(&w));
    }
}
