/* paths.c - the victim's side of each path, and the table. */
#include "paths.h"

#include <pthread.h>
#include <sys/ptrace.h>
#include <unistd.h>

#include "hv/recovery.h"
#include "hv/vcpu.h"

static struct plk_wait wait_of_victim;

void be_victim(void);

/* --------------------------------------------------------------- prepare */

static int seated(void)
{
    int rc = 0;

    return plk_seat_get(&segment->face, &rc) != NULL ? 0 : rc;
}

static int unknown(void) { return 0; } /* to the domain: it is not registered */

/* Holds L.  Its mark is taken off already, because the next is a release; that
 * nobody enters too early is seen from the words instead (verdict.c). */
static int holding(void)
{
    int rc = enter(L);

    if (rc >= 0)
        leaving(L);
    return rc < 0 ? rc : 0;
}

static int queued(void)
{
    int rc = plk_take(&locks[L], &wait_of_victim);

    return rc == 1 ? 0 : -EPROTO;
}

static int gone_before(void) { return queue_and_leave(L); }

/* ---------------------------------------------------------------- traced */

#define TRACED __attribute__((noinline)) static int

TRACED acquire(void) { return plk_acquire(&locks[L]); }
TRACED give_up(void) { return plk_acquire_until(&locks[L], 0); }
TRACED try_once(void) { return plk_trylock(&locks[L]); }
TRACED release(void) { return plk_unlock(&locks[L]); }
TRACED leave(void) { return plk_module_self.api->leave(&wait_of_victim); }
TRACED recover(void) { return plk_recover(segment); }
TRACED close_domain(void) { return plk_module_self.api->retire(&segment->face); }
TRACED end_thread(void) { pthread_exit(NULL); }

TRACED arrive(void) { return plk_take(&locks[L], &wait_of_victim); }

TRACED watch(void)
{
    plk_module_self.api->watch(&wait_of_victim);
    return 0;
}

TRACED mark_consistent(void)
{
    int rc = plk_acquire(&locks[L]);

    return rc == PLK_OWNER_DIED ? plk_mark_consistent(&locks[L]) : -EPROTO;
}

TRACED enroll(void)
{
    struct plk_seat *seat;

    return plk_first_use(&segment->face, &seat);
}

/* A signal handler that takes another lock while its thread waits for this one. */
TRACED nest(void)
{
    const struct plk_api *api = plk_module_self.api;
    int rc = api->nest(&wait_of_victim);

    if (rc == 0)
        rc = plk_acquire(&locks[M]);
    if (rc == 0)
        rc = plk_unlock(&locks[M]);
    return rc == 0 ? api->unnest(&wait_of_victim) : rc;
}

/* ---------------------------------------------------------------- finish */

void unlock_victim(void)
{
    noted(L, PLK_LOAD(&locks[L].cell->flags) & PLK_CELL_OWNER_DIED ? PLK_OWNER_DIED : 0);
    leaving(L);
    plk_unlock(&locks[L]);
}

static void wait_and_unlock(void)
{
    int rc;

    do
        rc = plk_wait_turn(&wait_of_victim);
    while (rc == -EINTR);
    if (rc == 0)
        unlock_victim();
}

/* ----------------------------------------------------------------- table */

const struct path paths[] = {
    {.name = "lock", .meaning = "an uncontended acquisition",
     .prepare = seated, .traced = acquire, .finish = unlock_victim, .inside_last = 1},
    {.name = "unlock", .meaning = "an uncontended release",
     .prepare = holding, .traced = release, .inside_first = 1},
    {.name = "spin", .meaning = "a wait that ends while spinning",
     .before = {A_HOLDS}, .prepare = seated, .traced = acquire, .moment = SPINNING,
     .event = {A_RELEASES}, .finish = unlock_victim, .inside_last = 1},
    {.name = "wait", .meaning = "spin, sleep, be woken, enter",
     .before = {A_HOLDS}, .prepare = seated, .traced = acquire, .moment = ASLEEP,
     .event = {A_RELEASES}, .finish = unlock_victim, .inside_last = 1},
    {.name = "kick", .meaning = "a release that wakes the next in line",
     .prepare = holding, .begin = {B_WAITS, C_WAITS}, .traced = release, .inside_first = 1},
    {.name = "pass", .meaning = "a release past two abandoned tickets that wakes the third",
     .prepare = holding, .begin = {A_LEAVES, B_LEAVES, C_WAITS, C_KEEPS_STILL}, .traced = release,
     .inside_first = 1},
    {.name = "leave", .meaning = "an acquisition that times out",
     .before = {A_HOLDS}, .prepare = seated, .traced = give_up, .rc = -ETIMEDOUT},
    {.name = "leave-served", .meaning = "leaving a ticket whose turn has come",
     .before = {A_HOLDS}, .prepare = queued, .begin = {B_WAITS, B_FREEZES, A_RELEASES}, .traced = leave,
     .rc = 1},
    {.name = "leave-passed", .meaning = "leaving a ticket that the holder passes over meanwhile",
     .before = {A_HOLDS}, .prepare = queued, .begin = {B_WAITS, B_FREEZES}, .traced = leave, .rc = 1,
     .moment = BURYING, .event = {A_RELEASES}},
    {.name = "resume", .meaning = "back to an abandoned ticket, and wait",
     .before = {A_HOLDS}, .prepare = gone_before, .begin = {B_WAITS, B_FREEZES}, .traced = acquire,
     .moment = ASLEEP, .event = {A_RELEASES}, .finish = unlock_victim, .inside_last = 1},
    {.name = "resume-late", .meaning = "back to an abandoned ticket that was passed over",
     .before = {A_HOLDS}, .prepare = gone_before, .begin = {A_RELEASES}, .traced = acquire,
     .finish = unlock_victim, .inside_last = 1},
    {.name = "try", .meaning = "a trylock of a free lock",
     .prepare = seated, .traced = try_once, .finish = unlock_victim, .inside_last = 1},
    {.name = "try-busy", .meaning = "a trylock of a lock that is held",
     .before = {A_HOLDS}, .prepare = seated, .begin = {B_WAITS}, .traced = try_once,
     .rc = -EBUSY},
    {.name = "try-dead", .meaning = "a trylock of a lock whose holder is dead",
     .before = {CORPSE_HOLDS}, .prepare = seated, .begin = {CORPSE_DIES}, .traced = try_once,
     .rc = PLK_OWNER_DIED, .finish = unlock_victim, .inside_last = 1},
    {.name = "nest", .meaning = "another lock taken and released during a wait",
     .before = {A_HOLDS}, .prepare = queued, .begin = {B_WAITS}, .traced = nest, .c_wants_m = 1,
     .finish = wait_and_unlock},
    {.name = "nest-wait", .meaning = "another lock waited for during a wait",
     .before = {A_HOLDS, C_HOLDS_M}, .prepare = queued, .begin = {B_WAITS, B_FREEZES}, .traced = nest,
     .moment = ASLEEP, .event = {C_RELEASES}, .c_wants_m = 1, .finish = wait_and_unlock},
    {.name = "recover-holder", .meaning = "a waiter recovers a dead holder",
     .before = {CORPSE_HOLDS, B_WAITS, B_FREEZES}, .prepare = queued, .begin = {CORPSE_DIES},
     .traced = watch, .finish = wait_and_unlock},
    {.name = "recover-waiter", .meaning = "a waiter recovers a dead waiter",
     .before = {A_HOLDS, CORPSE_WAITS, B_WAITS, B_FREEZES}, .prepare = queued, .begin = {CORPSE_DIES},
     .traced = watch, .finish = wait_and_unlock},
    {.name = "recover-granted",
     .meaning = "a waiter recovers one that died when its turn had come",
     .before = {A_HOLDS, CORPSE_WAITS, B_WAITS, B_FREEZES}, .prepare = queued,
     .begin = {CORPSE_DIES, A_RELEASES}, .traced = watch, .finish = wait_and_unlock},
    {.name = "recover-announced", .meaning = "a waiter recovers one that died before its xadd",
     .before = {A_HOLDS, CORPSE_ANNOUNCES, B_WAITS, B_FREEZES}, .prepare = queued, .begin = {CORPSE_DIES},
     .traced = watch, .finish = wait_and_unlock},
    {.name = "recover-drawn", .meaning = "a waiter recovers one that died after its xadd",
     .before = {A_HOLDS, CORPSE_DRAWS, B_WAITS, B_FREEZES}, .prepare = queued, .begin = {CORPSE_DIES},
     .traced = watch, .finish = wait_and_unlock},
    {.name = "recover-kick", .meaning = "a waiter recovers one that died before its kick",
     .before = {CORPSE_HOLDS, B_WAITS, B_FREEZES, CORPSE_HANDS_OVER},
     .prepare = queued, .begin = {CORPSE_DIES}, .traced = watch, .finish = wait_and_unlock},
    {.name = "recover-mark",
     .meaning = "a waiter recovers one that died about to pass over a ticket",
     .before = {CORPSE_HOLDS, A_LEAVES, B_WAITS, B_FREEZES, CORPSE_MARKS},
     .prepare = queued, .begin = {CORPSE_DIES}, .traced = watch, .finish = wait_and_unlock},
    {.name = "recover-passed",
     .meaning = "a waiter recovers one that died having passed over a ticket",
     .before = {CORPSE_HOLDS, A_LEAVES, B_WAITS, B_FREEZES, CORPSE_MOVES_HEAD},
     .prepare = queued, .begin = {CORPSE_DIES}, .traced = watch, .finish = wait_and_unlock},
    {.name = "recover-nested",
     .meaning = "a waiter recovers one that died holding a lock during a wait for another",
     .before = {A_HOLDS, CORPSE_NESTS, B_WAITS, B_FREEZES}, .prepare = queued, .begin = {CORPSE_DIES},
     .traced = watch, .finish = wait_and_unlock},
    {.name = "recover-guard",
     .meaning = "a waiter recovers a dead holder that died with the domain mutex, too",
     .before = {CORPSE_HOLDS, B_WAITS, B_FREEZES}, .prepare = queued,
     .begin = {CORPSE_GUARDS, CORPSE_DIES}, .traced = watch, .finish = wait_and_unlock},
    {.name = "arrive-behind-drawn",
     .meaning = "taking a ticket while others recover one that died after its xadd",
     .before = {A_HOLDS, CORPSE_DRAWS}, .prepare = seated, .begin = {B_WAITS, CORPSE_DIES},
     .traced = arrive, .rc = 1, .finish = wait_and_unlock, .linger_ms = 5},
    {.name = "recover-all",
     .meaning = "Domain.recover() of a dead holder, by one who waits for nothing",
     .before = {CORPSE_HOLDS, B_WAITS, B_FREEZES}, .prepare = seated, .begin = {CORPSE_DIES},
     .traced = recover, .rc = 1},
    {.name = "consistent", .meaning = "entering after a death, and marking the lock consistent",
     .before = {CORPSE_HOLDS}, .prepare = seated, .begin = {CORPSE_DIES, A_RECOVERS},
     .traced = mark_consistent, .finish = unlock_victim, .inside_last = 1},
    {.name = "enroll", .meaning = "becoming a vCPU in a slot never used before",
     .prepare = unknown, .traced = enroll},
    {.name = "enroll-again", .meaning = "becoming a vCPU in the slot of one that died",
     .before = {CORPSE_COMES, CORPSE_DIES}, .prepare = unknown, .traced = enroll},
    {.name = "enroll-dirty", .meaning = "becoming a vCPU in the slot of a dead holder",
     .before = {CORPSE_HOLDS, B_WAITS, B_FREEZES, CORPSE_DIES}, .prepare = unknown,
     .traced = enroll},
    {.name = "enroll-guard",
     .meaning = "becoming a vCPU after one that died with the domain mutex",
     .before = {CORPSE_GUARDS, CORPSE_DIES}, .prepare = unknown, .traced = enroll},
    {.name = "enroll-after-holder",
     .meaning = "recovering a dead holder and one that died recovering it",
     .prior = "recover-holder", .prepare = unknown, .traced = enroll},
    {.name = "enroll-after-drawn",
     .meaning = "recovering one that died after its xadd and one that died recovering it",
     .prior = "recover-drawn", .prepare = unknown, .traced = enroll},
    {.name = "enroll-after-waiter",
     .meaning = "recovering a dead waiter, whose turn has come, and one that died recovering it",
     .prior = "recover-waiter", .before = {A_RELEASES}, .prepare = unknown, .traced = enroll},
    {.name = "close", .meaning = "closing the domain: the thread gives up its slot",
     .prepare = seated, .traced = close_domain},
    {.name = "exit", .meaning = "the end of a thread",
     .prepare = seated, .traced = end_thread, .rc = REFUSES},
    {.name = "exit-holding", .meaning = "the end of a thread that holds the lock",
     .prepare = holding, .begin = {B_WAITS, C_WAITS}, .traced = end_thread, .rc = REFUSES,
     .inside_first = 1, .inside_last = 1},
    /* ------------------------------------------------------- a bounded lock */
#define BOUNDED .policy = PLK_BOUNDED
    {BOUNDED, .name = "barge", .meaning = "an uncontended acquisition of a bounded lock",
     .prepare = seated, .traced = acquire_bounded, .finish = unlock_victim, .inside_last = 1},
    {BOUNDED, .name = "barge-past", .meaning = "entering a free gate while somebody sleeps in the queue",
     .before = {A_HOLDS, B_WAITS, B_FREEZES, A_RELEASES}, .prepare = seated, .traced = acquire_bounded,
     .finish = unlock_victim, .inside_last = 1},
    {BOUNDED, .name = "bounded-unlock", .meaning = "an uncontended release of a bounded lock",
     .prepare = holding, .traced = release_bounded, .inside_first = 1},
    {BOUNDED, .name = "gate-spin", .meaning = "a wait that ends while spinning at the gate",
     .before = {A_HOLDS, SPINNER_DIED}, .prepare = seated, .traced = acquire_bounded, .moment = SPINNING,
     .event = {A_RELEASES}, .finish = unlock_victim, .inside_last = 1},
    {BOUNDED, .name = "standby", .meaning = "spin, queue, sleep as the first there, be promoted, enter",
     .before = {A_HOLDS}, .prepare = seated, .traced = acquire_bounded, .moment = ASLEEP,
     .event = {TIME_COMES, SPINNER_CALLS, A_RELEASES}, .finish = unlock_victim, .inside_last = 1},
    {BOUNDED, .name = "queue", .meaning = "sleep in the queue behind another, then enter",
     .before = {A_HOLDS, TIME_COMES, B_WAITS}, .prepare = seated, .traced = acquire_bounded, .moment = ASLEEP,
     .event = {A_RELEASES, B_GETS_ON, TIME_COMES, SPINNER_CALLS, C_PASSES}, .finish = unlock_victim,
     .inside_last = 1},
    {BOUNDED, .name = "promoted", .meaning = "from the queue to the gate, sleep there, enter",
     .before = {A_HOLDS}, .prepare = comes_to_queue, .begin = {C_WAITS, IS_PROMOTED}, .traced = go_on,
     .moment = ASLEEP, .event = {A_RELEASES}, .finish = unlock_victim, .inside_last = 1},
    {BOUNDED, .name = "self-promoted", .meaning = "the first in the queue finds that it is time",
     .before = {A_HOLDS}, .prepare = comes_to_queue, .begin = {TIME_COMES}, .traced = go_on,
     .moment = ASLEEP, .event = {A_RELEASES}, .finish = unlock_victim, .inside_last = 1},
    {BOUNDED, .name = "promote", .meaning = "a release that promotes the first in the queue",
     .prepare = held_to_look, .begin = {B_WAITS, B_FREEZES, C_WAITS, TIME_COMES}, .traced = release_bounded,
     .inside_first = 1},
    {BOUNDED, .name = "leave-it-to-sleeper", .meaning = "a release that leaves the promotion to others",
     .prepare = holding, .begin = {B_WAITS, C_WAITS}, .traced = release_bounded, .inside_first = 1},
    {BOUNDED, .name = "gate-kick", .meaning = "a release that wakes one who was promoted, at the gate",
     .prepare = holding, .begin = {TIME_COMES, B_WAITS, C_WAITS}, .traced = release_bounded,
     .inside_first = 1},
    {BOUNDED, .name = "doubt", .meaning = "a release that finds that the one promoted does not come",
     .prepare = held_to_look, .begin = {B_WAITS, B_FREEZES, IS_PROMOTED}, .traced = release_bounded,
     .inside_first = 1},
    {BOUNDED, .name = "doubt-dead", .meaning = "a release that recovers one who was promoted and died",
     .prepare = held_to_look, .begin = {CORPSE_WAITS, B_WAITS, B_FREEZES, IS_PROMOTED, CORPSE_DIES},
     .traced = release_bounded, .inside_first = 1},
    {BOUNDED, .name = "queue-timeout", .meaning = "a wait that times out in the queue",
     .before = {A_HOLDS, TIME_COMES, B_WAITS, B_FREEZES}, .prepare = seated, .traced = give_up_bounded,
     .rc = -ETIMEDOUT},
    {BOUNDED, .name = "standby-timeout", .meaning = "a wait that times out as the first in the queue",
     .before = {A_HOLDS}, .prepare = comes_to_queue, .begin = {C_WAITS, C_FREEZES},
     .traced = give_up_there, .rc = -ETIMEDOUT},
    {BOUNDED, .name = "gate-timeout", .meaning = "a wait that times out at the gate",
     .before = {A_HOLDS}, .prepare = comes_to_queue, .begin = {C_WAITS, C_FREEZES, TIME_COMES},
     .traced = give_up_there,
     .rc = -ETIMEDOUT},
    {BOUNDED, .name = "queue-resume", .meaning = "back to a ticket of the queue, and wait",
     .before = {A_HOLDS, TIME_COMES, B_WAITS}, .prepare = gone_from_queue, .begin = {C_WAITS},
     .traced = acquire_bounded, .moment = ASLEEP,
     .event = {A_RELEASES, B_GETS_ON, TIME_COMES, SPINNER_CALLS, A_PASSES}, .finish = unlock_victim,
     .inside_last = 1},
    {BOUNDED, .name = "gate-resume", .meaning = "back to a ticket of the gate, and wait",
     .before = {A_HOLDS, TIME_COMES}, .prepare = gone_from_queue, .begin = {TIME_COMES},
     .traced = acquire_bounded, .moment = ASLEEP, .event = {A_RELEASES}, .finish = unlock_victim,
     .inside_last = 1},
    {BOUNDED, .name = "standby-nest", .meaning = "another lock taken during a wait as first in the queue",
     .before = {A_HOLDS}, .prepare = comes_to_queue, .begin = {B_WAITS}, .traced = nest_there,
     .c_wants_m = 1, .finish = go_on_and_unlock},
    {BOUNDED, .name = "queue-recover-holder",
     .meaning = "one in the queue recovers a dead holder of the gate",
     .before = {CORPSE_HOLDS, TIME_COMES, B_WAITS, B_FREEZES}, .prepare = comes_to_queue,
     .begin = {CORPSE_DIES}, .traced = watch_queue, .finish = go_on_and_unlock},
    {BOUNDED, .name = "queue-recover-standby", .meaning = "one in the queue recovers the dead first there",
     .before = {A_HOLDS, CORPSE_WAITS, B_WAITS, B_FREEZES}, .prepare = comes_to_queue,
     .begin = {CORPSE_DIES}, .traced = watch_queue, .finish = go_on_and_unlock},
    {BOUNDED, .name = "queue-recover-promoted",
     .meaning = "one in the queue recovers one that died at the gate",
     .before = {A_HOLDS, TIME_COMES, CORPSE_WAITS, B_WAITS, B_FREEZES}, .prepare = comes_to_queue,
     .begin = {CORPSE_DIES}, .traced = watch_queue, .finish = go_on_and_unlock},
    {BOUNDED, .name = "queue-recover-queued",
     .meaning = "one in the queue recovers one that died before it there",
     .before = {A_HOLDS, TIME_COMES, B_WAITS, B_FREEZES, CORPSE_WAITS}, .prepare = comes_to_queue,
     .begin = {CORPSE_DIES}, .traced = watch_queue, .finish = go_on_and_unlock},
    {BOUNDED, .name = "queue-recover-both",
     .meaning = "one in the queue recovers the holder of the gate and finds the first there stopped",
     .before = {CORPSE_HOLDS, B_WAITS, B_FREEZES, C_WAITS, C_FREEZES}, .prepare = comes_to_queue,
     .begin = {CORPSE_DIES}, .traced = watch_queue, .finish = go_on_and_unlock},
};

const unsigned path_count = sizeof(paths) / sizeof(paths[0]);

#define TRAP() __asm__ volatile("int3" ::: "memory")

void be_victim_of(const struct path *path)
{
    int rc;

    be_victim();
    if (ptrace(PTRACE_TRACEME, 0, 0, 0) != 0)
        _exit(3);
    rc = path->prepare();
    if (rc != 0) {
        stage->victim_rc = rc;
        _exit(4);
    }
    TRAP();
    rc = path->traced();
    TRAP();
    stage->victim_rc = rc;
    if (path->finish != NULL)
        path->finish();
    _exit(0);
}
