/* paths.c - what the victim does, and what the judge does meanwhile. */
#include "mortal.h"

#include "sync/sync.h"

static struct plk_sync_wait waiting;

static int queue_up(void)
{
    waiting = (struct plk_sync_wait){.ref = &object, .seat = seat_of_mine(), .want = wants, .deadline = PLK_FOREVER, .pause = PLK_FOREVER};
    return plk_sync_begin(&waiting) == 1 ? 0 : -1;
}

static int seated(void) { return seat_of_mine() != NULL ? 0 : -1; }

static int take_now(void)
{
    int32_t result;

    return take_within(0, &result);
}

static int take_both(void) { return take_now() == 0 ? take_now() : -1; }

#define TRACED __attribute__((noinline)) static int

TRACED give_one(void) { return give_back(1); }
TRACED take_one(void) { return take_now(); }
TRACED go_on(void) { return plk_sync_wait(&waiting); }
TRACED give_up(void) { return plk_sync_leave(&waiting); }

TRACED queue_and_wait(void)
{
    waiting = (struct plk_sync_wait){.ref = &object, .seat = seat_of_mine(), .want = wants, .deadline = PLK_FOREVER, .pause = PLK_FOREVER};
    return plk_sync_wait(&waiting);
}

TRACED handle_a_signal(void)
{
    plk_sync_aside(&waiting);
    return plk_sync_back(&waiting);
}

TRACED notify_both(void) { return plk_the_sync_api.act(&object, seat_of_mine(), PLK_ACT_NOTIFY, 2); }
TRACED set_event(void) { return plk_the_sync_api.act(&object, seat_of_mine(), PLK_ACT_SET, 0); }
TRACED settle(void) { return plk_the_sync_api.act(&object, seat_of_mine(), PLK_ACT_SETTLE, 0); }
TRACED recover(void) { return plk_sync_recover(segment) < 0; }

static void judge_gives(void)
{
    if (give_back(1) != 0)
        fail("the judge could not give");
    scene->given++;
}

static void judge_gives_two(void)
{
    judge_gives();
    judge_gives();
}

static void judge_lets_go(void)
{
    if (give_back(1) != 0)
        fail("the judge could not let go");
}

static void judge_takes(void)
{
    if (take_now() != 0)
        fail("the judge could not take");
}

static void judge_notifies(void) { plk_the_sync_api.act(&object, seat_of_mine(), PLK_ACT_NOTIFY, 1); }
static void judge_notifies_all(void) { plk_the_sync_api.act(&object, seat_of_mine(), PLK_ACT_NOTIFY_ALL, 0); }
static void judge_arrives(void)
{
    wants = 0; /* without an action */
    judge_takes();
}

static void judge_breaks(void) { plk_the_sync_api.act(&object, seat_of_mine(), PLK_ACT_BREAK, 0); }

static void judge_sets(void) { set_event(); }

/* Set for all that wait, or for none: a clear that comes at once changes nothing about that. */
static void judge_clears(void)
{
    int i, done = 0;

    plk_event_clear(object.sync);
    for (i = 0; i < 100 && done != HELPERS; i++) {
        plk_module_self.api->nap(PLK_FOREVER);
        done = (int)(PLK_LOAD(&scene->done[0]) + PLK_LOAD(&scene->done[1]));
        if (done == 1)
            i = 0; /* the other must come, too */
    }
    if (done == 0)
        set_event();
}

const struct path paths[] = {
    {.name = "take", .kind = PLK_KIND_semaphore, .initial = 1, .helpers = 1, .come = AFTER, .prepare = seated,
     .traced = take_one, .dead = judge_gives, .least = -1},
    {.name = "give", .kind = PLK_KIND_semaphore, .helpers = 2, .prepare = seated, .traced = give_one,
     .dead = judge_gives_two, .most = 1},
    {.name = "give-after-death", .kind = PLK_KIND_semaphore, .helpers = 2, .prepare = seated, .traced = settle,
     .dead = judge_gives, .least = 1, .most = 1, .corpse = 1},
    {.name = "wait", .kind = PLK_KIND_semaphore, .helpers = 1, .come = AFTER, .prepare = seated,
     .traced = queue_and_wait, .asleep = judge_gives, .dead = judge_gives, .least = -1},
    {.name = "called", .kind = PLK_KIND_semaphore, .helpers = 1, .come = BEHIND, .prepare = queue_up,
     .begun = judge_gives, .traced = go_on, .dead = judge_gives, .least = -1},
    {.name = "leave", .kind = PLK_KIND_semaphore, .helpers = 1, .come = BEHIND, .prepare = queue_up,
     .traced = give_up, .dead = judge_gives},
    {.name = "leave-called", .kind = PLK_KIND_semaphore, .helpers = 1, .come = BEHIND, .prepare = queue_up,
     .begun = judge_gives, .traced = give_up},
    {.name = "signal", .kind = PLK_KIND_semaphore, .helpers = 1, .come = BEHIND, .prepare = queue_up,
     .begun = judge_gives, .traced = handle_a_signal},
    {.name = "recover", .kind = PLK_KIND_semaphore, .helpers = 2, .prepare = seated, .traced = recover,
     .dead = judge_gives, .least = 1, .most = 1, .corpse = 1},
    {.name = "mutex-take", .kind = PLK_KIND_mutex, .helpers = 1, .come = AFTER, .prepare = seated, .traced = take_one},
    {.name = "mutex-give", .kind = PLK_KIND_mutex, .helpers = 1, .come = BEHIND, .prepare = take_now,
     .traced = give_one},
    {.name = "mutex-called", .kind = PLK_KIND_mutex, .helpers = 1, .come = BEHIND, .before = judge_takes,
     .prepare = queue_up, .begun = judge_lets_go, .traced = go_on},
    {.name = "event-set", .kind = PLK_KIND_event, .helpers = 2, .prepare = seated, .traced = set_event,
     .dead = judge_clears},
    {.name = "event-wait", .kind = PLK_KIND_event, .helpers = 1, .prepare = seated, .traced = queue_and_wait,
     .asleep = judge_sets, .dead = judge_sets},
    {.name = "owned-take", .kind = PLK_KIND_owned, .initial = 1, .limit = 1, .helpers = 1, .come = AFTER,
     .prepare = seated, .traced = take_one},
    {.name = "owned-give", .kind = PLK_KIND_owned, .initial = 2, .limit = 2, .helpers = 2, .come = BEHIND,
     .prepare = take_both, .traced = give_one},
    {.name = "owned-called", .kind = PLK_KIND_owned, .initial = 1, .limit = 1, .helpers = 1, .come = BEHIND,
     .before = judge_takes, .prepare = queue_up, .begun = judge_lets_go, .traced = go_on},
    {.name = "condition-notify", .kind = PLK_KIND_condition, .helpers = 2, .prepare = seated, .traced = notify_both,
     .dead = judge_notifies_all},
    {.name = "condition-notified", .kind = PLK_KIND_condition, .helpers = 1, .come = BEHIND, .prepare = queue_up,
     .begun = judge_notifies, .traced = go_on, .dead = judge_notifies_all},
    {.name = "condition-leave", .kind = PLK_KIND_condition, .helpers = 1, .come = BEHIND, .prepare = queue_up,
     .begun = judge_notifies, .traced = give_up, .dead = judge_notifies_all},
    {.name = "barrier-first", .kind = PLK_KIND_barrier, .limit = 2, .helpers = 1, .come = AFTER, .prepare = seated,
     .traced = queue_and_wait, .asleep = judge_arrives, .dead = judge_breaks},
    {.name = "barrier-last", .kind = PLK_KIND_barrier, .limit = 3, .helpers = 2, .prepare = seated,
     .traced = queue_and_wait, .dead = judge_breaks},
    {.name = "rw-read", .kind = PLK_KIND_rwlock, .helpers = 1, .come = AFTER, .prepare = seated,
     .traced = take_one, .victim_wants = PLK_WANT_READ, .helper_wants = PLK_WANT_WRITE},
    {.name = "rw-write", .kind = PLK_KIND_rwlock, .helpers = 2, .come = AFTER, .prepare = seated,
     .traced = take_one, .victim_wants = PLK_WANT_WRITE, .helper_wants = PLK_WANT_READ},
    {.name = "rw-leave-read", .kind = PLK_KIND_rwlock, .helpers = 1, .come = BEHIND, .prepare = take_now,
     .traced = give_one, .victim_wants = PLK_WANT_READ, .helper_wants = PLK_WANT_WRITE},
    {.name = "rw-leave-write", .kind = PLK_KIND_rwlock, .helpers = 2, .come = BEHIND, .prepare = take_now,
     .traced = give_one, .victim_wants = PLK_WANT_WRITE, .helper_wants = PLK_WANT_READ},
    {.name = "rw-let-in", .kind = PLK_KIND_rwlock, .helpers = 1, .come = BEHIND, .before = judge_takes,
     .prepare = queue_up, .begun = judge_lets_go, .traced = go_on, .victim_wants = PLK_WANT_READ,
     .helper_wants = PLK_WANT_WRITE},
    {.name = "rw-let-in-write", .kind = PLK_KIND_rwlock, .helpers = 2, .come = BEHIND, .before = judge_takes,
     .prepare = queue_up, .begun = judge_lets_go, .traced = go_on, .victim_wants = PLK_WANT_WRITE,
     .helper_wants = PLK_WANT_WRITE},
};

const unsigned path_count = sizeof(paths) / sizeof(paths[0]);
