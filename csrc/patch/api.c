/* patch/api.c - what the core offers to modules, and the core as a module: its
 * own functions have patch sites, too (lock_event, cpu_relax). */
#include "hv/bounded.h"
#include "hv/deadlock.h"
#include "hv/directory.h"
#include "hv/fibre.h"
#include "hv/futex.h"
#include "hv/leave.h"
#include "hv/park.h"
#include "hv/policy.h"
#include "hv/vcpu.h"
#include "hv/watch.h"
#include "patch/calibrate.h"
#include "patch/patch.h"
#include "sync/sync.h"

PLK_MODULE("pylocks._core");

static const struct plk_api plk_the_api = {
    .abi = PLK_ABI,
    .size = sizeof(struct plk_api),
    .module_add = plk_module_add,
    .lock_init = plk_cell_bind,
    .seats = plk_thread_seats,
    .enroll = plk_enroll,
    .seat_left = plk_seat_even_closed,
    .retire = plk_retire_all,
    .now = plk_now,
    .leave = plk_leave,
    .resume = plk_resume,
    .crowded = plk_crowded,
    .nap = plk_nap,
    .watch = plk_watch,
    .nest = plk_nest,
    .unnest = plk_unnest,
    .search = plk_search,
    .held_elsewhere = plk_held_elsewhere,
    .spin_policy = plk_policy_spin_in,
    .queue_shown = plk_queue_shown,
    .queue_called = plk_queue_called,
    .queue_promoted = plk_queue_promoted,
    .queue_standby = plk_park,
    .queue_pass = plk_queue_pass,
    .sync = &plk_the_sync_api,
    .fibre_enroll = plk_fibre_enroll,
    .fibre_drop = plk_fibre_drop,
    .fibre_begin = plk_fibre_begin,
    .fibre_end = plk_fibre_end,
    .vigil_begin = plk_vigil_begin,
    .vigil_end = plk_vigil_end,
    .vigil_look = plk_vigil_look,
};

/* Registers the core itself when first asked, so that it is always the first
 * module and patched with the others. */
const struct plk_api *plk_core_api(void) { return &plk_the_api; }

uint64_t plk_api_address(void) { return (uint64_t)(uintptr_t)&plk_the_api; }

int plk_core_register(void) { return plk_module_add(&plk_module_self); }

#define PLK_CALIBRATE_TURNS 2000u
#define PLK_CALIBRATE_TRIES 5

double plk_calibrate(void)
{
    static uint64_t head;
    double best = 0;
    int try;

    PLK_SITE_FRAME();
    for (try = 0; try < PLK_CALIBRATE_TRIES; try++) {
        uint64_t start = plk_now(), i;
        double ns;

        for (i = 0; i < PLK_CALIBRATE_TURNS && PLK_LOAD_ACQUIRE(&head) == 0; i++)
            PLK_CPU_RELAX();
        ns = (double)(plk_now() - start) / PLK_CALIBRATE_TURNS;
        if (try == 0 || ns < best) /* the least is the one that nobody interrupted */
            best = ns;
    }
    return best;
}
