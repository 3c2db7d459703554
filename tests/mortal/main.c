/* main.c - mortal PATH [POINTS]: one line "PATH instructions kills", or what was wrong, and status 1.
 *
 * Without POINTS at every instruction.  Without PATH: the names of all. */
#include "mortal.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/attach.h"
#include "hv/directory.h"
#include "hv/park.h"
#include "hv/vcpu.h"
#include "patch/choices.h"
#include "patch/calibrate.h"
#include "patch/patch.h"
#include "sync/sync.h"

#define NEVER_NS 3600000000000ull
#define SOON_NS 1000000ull
#define PATIENCE_NS 40000000000ull
#define MOST_STEPS 1000000L /* longer than any path */
#define ASLEEP_NS 20000000ull /* a step that takes so long is one that sleeps */

struct scene *scene;
struct plk_segment *segment;
struct plk_ref object;

static const struct path *path;
static long killed_at;
uint64_t wants;
static pid_t judge, helpers[HELPERS], victim;

void fail(const char *format, ...)
{
    va_list rest;

    printf("%s, killed at instruction %ld: ", path != NULL ? path->name : "set-up", killed_at);
    va_start(rest, format);
    vprintf(format, rest);
    va_end(rest);
    printf("\n  word %#llx, %u queued, done %u %u, results %d %d, given %u\n",
           object.sync != NULL ? (unsigned long long)object.sync->word : 0, object.sync != NULL ? object.sync->queued : 0,
           scene->done[0], scene->done[1], scene->result[0], scene->result[1], scene->given);
    fflush(stdout);
    _exit(1); /* the others die with it */
}

/* ------------------------------------------------------------------ users */

struct plk_seat *seat_of_mine(void)
{
    int rc = 0;

    return plk_seat_get(&segment->face, &rc);
}

int take_within(uint64_t ns, int32_t *result)
{
    struct plk_sync_wait w = {.ref = &object, .seat = seat_of_mine(), .want = wants, .pause = PLK_FOREVER};
    int rc;

    if (w.seat == NULL)
        return -ENOMEM;
    w.deadline = ns != 0 ? plk_module_self.api->now() + ns : 0;
    while ((rc = plk_sync_wait(&w)) == -EINTR) {
        plk_watchdog_set(SOON_NS); /* the judge has had the victim killed: from now on it looks after itself */
        w.watch = 0;
    }
    *result = w.result;
    return rc;
}

int give_back(uint64_t n)
{
    int rc = 0;

    if (object.kind == PLK_KIND_event || object.kind == PLK_KIND_condition || object.kind == PLK_KIND_barrier)
        return 0;
    if (object.kind == PLK_KIND_rwlock)
        return plk_the_sync_api.act(&object, seat_of_mine(), PLK_ACT_UNLOCK, wants);
    if (object.kind == PLK_KIND_owned)
        return plk_the_sync_api.act(&object, seat_of_mine(), PLK_ACT_GIVE, n);
    rc = object.kind == PLK_KIND_mutex ? plk_mutex_give(object.sync) : plk_permit_give(object.sync, n, PLK_PERMITS_MOST);
    return rc == 1 ? plk_the_sync_api.act(&object, seat_of_mine(), PLK_ACT_SETTLE, 0) : rc;
}

static pid_t fork_party(void)
{
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid < 0)
        fail("fork: %s", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != judge)
            _exit(1);
    }
    return pid;
}

static void heard(int number) { (void)number; }

static void helper(int i, uint64_t watchdog)
{
    plk_watchdog_set(watchdog);
    wants = path->helper_wants;
    if (take_within(PATIENCE_NS, &scene->result[i]) != 0)
        _exit(2);
    if (give_back(1) != 0)
        _exit(3);
    PLK_STORE_RELEASE(&scene->done[i], 1);
    _exit(0);
}

static void bring_helpers(enum come when)
{
    uint32_t before = PLK_LOAD(&object.sync->queued);
    int i;

    if (path->come != when)
        return;
    for (i = 0; i < path->helpers; i++) {
        helpers[i] = fork_party();
        if (helpers[i] == 0)
            helper(i, when == AFTER ? SOON_NS : NEVER_NS);
        if (when != AFTER)
            until_queued(before + (uint32_t)i + 1);
    }
}

void until_queued(uint32_t count)
{
    uint64_t until = plk_module_self.api->now() + PATIENCE_NS;

    while (PLK_LOAD(&object.sync->queued) < count) {
        if (plk_module_self.api->now() > until)
            fail("%u did not queue up", count);
        plk_module_self.api->nap(PLK_FOREVER);
    }
}

/* ------------------------------------------------------------------ victim */

static void be_victim(int (*prepare)(void), int (*traced)(void))
{
    plk_watchdog_set(NEVER_NS);
    wants = path->victim_wants;
    if (ptrace(PTRACE_TRACEME, 0, 0, 0) != 0 || prepare() != 0)
        _exit(4);
    raise(SIGTRAP);
    scene->victim_rc = traced();
    raise(SIGTRAP);
    _exit(5);
}

/* Until it stops; nonzero: it has. */
static int stopped(uint64_t patience)
{
    uint64_t until = plk_module_self.api->now() + patience;
    int status, spins = 0;

    for (;;) {
        pid_t got = waitpid(victim, &status, WNOHANG | __WALL);

        if (got == victim && !WIFSTOPPED(status))
            fail("the victim ended with status %#x", (unsigned)status);
        if (got == victim)
            return 1;
        if (++spins > 100) {
            if (plk_module_self.api->now() > until)
                return 0;
            usleep(50);
        }
    }
}

/* One instruction.  1: executed; 0: that was the last. */
static int step(int *slept)
{
    siginfo_t info;

    if (ptrace(PTRACE_SINGLESTEP, victim, 0, 0) != 0)
        fail("it can't be stepped: %s", strerror(errno));
    if (!stopped(path->asleep != NULL && !*slept ? ASLEEP_NS : PATIENCE_NS)) {
        if (path->asleep == NULL || *slept)
            fail("the victim does not come back");
        *slept = 1;
        path->asleep();
        if (!stopped(PATIENCE_NS))
            fail("the victim sleeps on");
    }
    /* The trap that it raised itself is the end. */
    return ptrace(PTRACE_GETSIGINFO, victim, 0, &info) == 0 && info.si_code != SI_TKILL;
}

static void begin_victim(int (*prepare)(void), int (*traced)(void))
{
    victim = fork_party();
    if (victim == 0)
        be_victim(prepare, traced);
    if (!stopped(PATIENCE_NS))
        fail("the victim is not prepared");
}

static void kill_victim(void)
{
    kill(victim, SIGKILL);
    while (waitpid(victim, NULL, __WALL) < 0 && errno == EINTR)
        ;
    victim = 0;
}

/* ------------------------------------------------------------------ trials */

static int seated(void) { return seat_of_mine() != NULL ? 0 : -1; }
static int corpse_gives(void) { return give_back(1); }

/* It dies with the guard, at one of the instructions that it has it for. */
static void bury_a_corpse(long nth)
{
    int slept = 0;

    begin_victim(seated, corpse_gives);
    while (step(&slept)) {
        const struct plk_cell *guard = object.guard.cell;

        if (guard->head != guard->tail && PLK_OWNER_VALID(guard->owner, guard->head) && nth-- == 0)
            break;
    }
    kill_victim();
}

static void new_object(void)
{
    struct plk_seed seed = {path->kind, path->initial, path->limit};
    int64_t index = plk_sync_new(segment, &seed);
    int rc = index < 0 ? (int)index : plk_the_sync_api.init(&object, &segment->face, (uint32_t)index, path->kind);

    if (rc != 0)
        fail("no object: %d", rc);
    memset(scene, 0, sizeof(*scene));
}

static void count_nodes(struct plk_at *at, struct plk_node *node, int alive, void *count)
{
    (void)at;
    (void)node;
    (void)alive;
    ++*(int *)count;
}

/* Nobody is left: what is there is right, and nothing else is. */
static void judge_object(void)
{
    struct plk_at at;
    int nodes = 0;
    long permits, first = (long)path->initial + (path->kind == PLK_KIND_owned ? 0 : (long)scene->given);

    if (plk_sync_recover(segment) < 0 || plk_at_enter(&at, &object, seat_of_mine(), PLK_FOREVER) != 0)
        fail("the guard is not to be had");
    plk_at_leave(&at, 1);
    plk_nodes_visit(&at, count_nodes, &nodes);
    if (nodes != 0 || object.sync->queued != 0 || object.sync->first != 0 || object.sync->last != 0)
        fail("%d nodes are left", nodes);
    if ((object.sync->word & ~PLK_SYNC_STATE & ~PLK_SYNC_OWNER_DIED) != 0)
        fail("flags are left");
    permits = (long)plk_permits(object.sync);
    if (path->kind != PLK_KIND_event && path->kind != PLK_KIND_barrier && (permits < first + path->least || permits > first + path->most))
        fail("%ld permits, and not %ld to %ld", permits, first + path->least, first + path->most);
    if (plk_cell_free(segment, (uint32_t)(object.guard.id - 1)) != 0)
        fail("the cell is not free");
}

static int told_of_death(void)
{
    return path->kind == PLK_KIND_mutex && (PLK_LOAD(&object.sync->word) & PLK_SYNC_STATE) != 0;
}

/* A victim that dies before its nth instruction, or at the end, if it has not so many.  How many it executed. */
static long trial(long nth)
{
    int slept = 0, alive = 1, told, i, status;
    long k;

    killed_at = nth;
    wants = PLK_WANT_WRITE; /* the judge */
    new_object();
    if (path->before != NULL)
        path->before();
    bring_helpers(BEFORE);
    if (path->corpse)
        bury_a_corpse(nth * 7 % 200);
    begin_victim(path->prepare, path->traced);
    bring_helpers(BEHIND);
    if (path->begun != NULL)
        path->begun();
    for (k = 0; k < nth && alive; k++)
        alive = step(&slept);
    told = told_of_death();
    kill_victim();
    bring_helpers(AFTER);
    for (i = 0; i < path->helpers; i++)
        kill(helpers[i], SIGUSR1);
    if (path->dead != NULL)
        path->dead();
    for (i = 0; i < path->helpers; i++) {
        if (waitpid(helpers[i], &status, 0) != helpers[i] || status != 0)
            fail("a helper ended with status %#x", (unsigned)status);
    }
    if (path->kind == PLK_KIND_mutex && (scene->result[0] == PLK_OWNER_DIED) != told)
        fail("of a death inside, which was %d, was told %d", told, scene->result[0]);
    judge_object();
    return k;
}

static int set_up(void)
{
    struct plk_format format = {.vcpus = 16, .cells = 16, .stride = PLK_LINE, .channels = 16,
                                .tombs = PLK_TOMB_WINDOW, .entries = 1, .protocol = PLK_ENLIGHTENED,
                                .barrier = PLK_BARRIER_FENCE};
    struct plk_found found;
    uint32_t choices[PLK_OP_COUNT], i;
    static const char *const wanted[PLK_OP_COUNT] = {
        [PLK_OP_cpu_relax] = "pause", [PLK_OP_unlock_barrier] = "fence", [PLK_OP_lock_spinning] = "futex",
        [PLK_OP_unlock_kick] = "kick", [PLK_OP_vcpu_preempted] = "off", [PLK_OP_lock_event] = "off"};
    int fd = memfd_create("mortal", MFD_CLOEXEC), rc = plk_core_register();

    for (i = 0; i < plk_choice_count(); i++) {
        struct plk_choice_view view;

        if (plk_choice_view(i, &view) == 0 && strcmp(view.name, wanted[view.op_index]) == 0)
            choices[view.op_index] = i;
    }
    if (rc == 0)
        rc = plk_apply(choices, 0);
    if (rc == 0)
        rc = plk_format(fd, &format);
    if (rc == 0)
        rc = plk_attach(fd, &segment, &found);
    return rc;
}

int main(int argc, char **argv)
{
    long instructions, points = argc > 2 ? atol(argv[2]) : 0, nth, kills = 0;
    unsigned i;

    judge = getpid();
    signal(SIGUSR1, heard);
    for (i = 0; i < path_count; i++) {
        if (argc < 2)
            printf("%s\n", paths[i].name);
        else if (strcmp(paths[i].name, argv[1]) == 0)
            path = &paths[i];
    }
    if (argc < 2)
        return 0;
    scene = mmap(NULL, sizeof(*scene), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (path == NULL || scene == MAP_FAILED || set_up() != 0)
        fail("no such path, or no domain");
    plk_watchdog_set(SOON_NS);
    instructions = trial(MOST_STEPS);
    for (nth = 0; nth <= instructions; nth += points != 0 && instructions > points ? instructions / points : 1) {
        trial(nth);
        kills++;
    }
    printf("%s %ld %ld\n", path->name, instructions, kills);
    return 0;
}
