/* scripts.c - what the crew and the corpse are told to do, and what they are at. */
#include "scripts.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/futex.h"
#include "victim.h"

enum doing doing[CREW];
struct corpse corpse_of_run;

static uint32_t held_by[CREW]; /* which lock, while HOLDING */
static int frozen[CREW];

int do_now(int who, enum command command, uint32_t lock)
{
    give(who, command, lock);
    if (await(who) != 0)
        return -ETIMEDOUT;
    return stage->parties[who].rc < 0 ? stage->parties[who].rc : 0;
}

static int hold(int who, uint32_t lock)
{
    doing[who] = HOLDING;
    held_by[who] = lock;
    return do_now(who, DO_HOLD, lock);
}

int release(int who)
{
    doing[who] = IDLE;
    return do_now(who, DO_RELEASE, held_by[who]);
}

void start(int who, enum command command, uint32_t lock)
{
    doing[who] = BUSY;
    give(who, command, lock);
}

int parked(int who)
{
    const struct plk_vcpu *v = vcpu_of(who);

    if (!config.sleeps)
        return 1;
    return v != NULL && PLK_LOAD_ACQUIRE(&v->channel) != 0 && process_sleeps(stage->parties[who].pid);
}

static int wait_for(int who, uint32_t lock)
{
    uint64_t until = plk_now() + SETTLE_NS;
    int rc;

    start(who, DO_ENTER, lock);
    rc = await_waiting(who);
    while (rc == 0 && !parked(who) && plk_now() < until)
        sched_yield();
    return rc;
}

static int freeze(int who)
{
    pid_t pid = stage->parties[who].pid, got;
    int status;

    frozen[who] = 1;
    kill(pid, SIGSTOP);
    while ((got = waitpid(pid, &status, WUNTRACED)) < 0 && errno == EINTR && !out_of_patience)
        ;
    return got == pid && WIFSTOPPED(status) ? 0 : -ECHILD;
}

void thaw(int who)
{
    if (frozen[who])
        kill(stage->parties[who].pid, SIGCONT);
    frozen[who] = 0;
}

static int bear_corpse(void)
{
    if (stage->parties[CORPSE].pid == 0) {
        fork_party(CORPSE, NULL);
        return await(CORPSE);
    }
    return 0;
}

void bury_corpse(void)
{
    struct party *p = &stage->parties[CORPSE];

    if (p->pid == 0)
        return;
    corpse_of_run.inside = party_inside(CORPSE, vcpu_of(CORPSE));
    corpse_of_run.died_at = plk_now();
    kill(p->pid, SIGKILL);
    while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    p->pid = 0;
}

static int corpse(enum command command)
{
    int rc = bear_corpse();

    return rc != 0 ? rc : do_now(CORPSE, command, L);
}

static int corpse_waits(void)
{
    int rc = bear_corpse();

    if (rc != 0)
        return rc;
    give(CORPSE, DO_ENTER, L);
    return await_waiting(CORPSE);
}

static int get_on(int who)
{
    int rc = await(who);

    doing[who] = IDLE;
    return rc != 0 ? rc : stage->parties[who].rc < 0 ? stage->parties[who].rc : 0;
}

/* As an unlocker does who is killed before the kick. */
static void promote(void)
{
    struct plk_gate *gate = plk_gate_of(locks[L].cell);

    PLK_STORE(&gate->promoted_ns, LONG_AGO(plk_now()));
    PLK_STORE_RELEASE(&gate->promoted, (uint32_t)PLK_LOAD(&plk_queue_cell(locks[L].cell)->head) + 1);
}

static int perform(enum act act)
{
    switch (act) {
    case A_HOLDS: return hold(A, L);
    case A_RELEASES: return release(A);
    case A_RECOVERS: return do_now(A, DO_RECOVER, L);
    case C_HOLDS_M: return hold(C, M);
    case C_RELEASES: return release(C);
    case B_WAITS: return wait_for(B, L);
    case C_WAITS: return wait_for(C, L);
    case A_LEAVES: return do_now(A, DO_LEAVE, L);
    case B_LEAVES: return do_now(B, DO_LEAVE, L);
    case B_FREEZES: return freeze(B);
    case C_FREEZES: return freeze(C);
    /* Who does not sleep looks after an abandoned head every so many turns. */
    case C_KEEPS_STILL: return config.sleeps ? 0 : freeze(C);
    case CORPSE_HOLDS: return corpse(DO_HOLD);
    case CORPSE_WAITS: return corpse_waits();
    case CORPSE_ANNOUNCES: return corpse(DO_ANNOUNCE);
    case CORPSE_DRAWS: return corpse(DO_DRAW);
    case CORPSE_HANDS_OVER: return corpse(DO_HAND_OVER);
    case CORPSE_MARKS: return corpse(DO_PASS_MARK);
    case CORPSE_MOVES_HEAD: return corpse(DO_PASS_HEAD);
    case CORPSE_NESTS: return corpse(DO_NEST);
    case CORPSE_GUARDS: return corpse(DO_GUARD);
    case CORPSE_DIES: bury_corpse(); return 0;
    case CORPSE_COMES: return corpse(DO_NOTHING);
    case TIME_COMES: PLK_STORE(&plk_gate_of(locks[L].cell)->promoted_ns, LONG_AGO(plk_now())); return 0;
    case SPINNER_CALLS: PLK_STORE(&plk_gate_of(locks[L].cell)->spinner, PLK_SPINNER(plk_now()) | 1); return 0;
    case SPINNER_DIED: PLK_STORE(&plk_gate_of(locks[L].cell)->spinner, PLK_SPINNER(0)); return 0;
    case IS_PROMOTED: promote(); return 0;
    case B_GETS_ON: return get_on(B);
    case A_PASSES: return do_now(A, DO_ENTER, L);
    case C_PASSES: return do_now(C, DO_ENTER, L);
    case END: return 0;
    }
    return -EINVAL;
}

int play(const enum act *acts)
{
    int rc = 0, i;

    for (i = 0; rc == 0 && i < ACTS && acts[i] != END; i++)
        rc = perform(acts[i]);
    return rc;
}
