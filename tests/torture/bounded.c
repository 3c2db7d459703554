/* bounded.c - the victim's side of the paths of a bounded lock.
 *
 * What a waiter does depends on the clock: it goes from the queue to the gate when a
 * promotion is due.  Here none ever is, unless a script says that TIME_COMES, and no
 * sleeper looks at the gate by the clock; so the others are found where they were left.
 * When the victim is dead they get on by what they are told, and by the watchdog. */
#include "paths.h"

#include "hv/park.h"

#define SURVIVOR_WATCHDOG_NS 1000000u /* it has no other clock, either */

static struct plk_wait wait_of_victim;

int held_to_look(void)
{
    int rc = enter(L);

    if (rc < 0)
        return rc;
    leaving(L);
    plk_watchdog_set(1);
    return 0;
}

int comes_to_queue(void)
{
    if (plk_take(&locks[L], &wait_of_victim) != 1)
        return -EPROTO;
    plk_wait_begins(&wait_of_victim);
    plk_join_queue(&wait_of_victim);
    return 0;
}

int gone_from_queue(void) { return queue_and_leave(L); }

#define TRACED __attribute__((noinline)) int

TRACED acquire_bounded(void) { return plk_acquire(&locks[L]); }
TRACED release_bounded(void) { return plk_unlock(&locks[L]); }
TRACED give_up_bounded(void) { return plk_acquire_until(&locks[L], 0); }
TRACED go_on(void) { return plk_wait_turn(&wait_of_victim); }

TRACED give_up_there(void)
{
    wait_of_victim.deadline = 0;
    return plk_wait_turn(&wait_of_victim);
}

TRACED watch_queue(void)
{
    plk_module_self.api->watch(&wait_of_victim);
    return 0;
}

TRACED nest_there(void)
{
    const struct plk_api *api = plk_module_self.api;
    int rc = api->nest(&wait_of_victim);

    if (rc == 0)
        rc = plk_acquire(&locks[M]);
    if (rc == 0)
        rc = plk_unlock(&locks[M]);
    return rc == 0 ? api->unnest(&wait_of_victim) : rc;
}

void go_on_and_unlock(void)
{
    int rc;

    plk_watchdog_set(SURVIVOR_WATCHDOG_NS);
    wait_of_victim.watch = 0;
    do
        rc = plk_wait_turn(&wait_of_victim);
    while (rc == -EINTR);
    if (rc == 0)
        unlock_victim();
}
