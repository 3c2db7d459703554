/* setup.c - a process image with its ops chosen, a small domain, and a crew. */
#include "torture.h"

#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/attach.h"
#include "hv/directory.h"
#include "hv/park.h"
#include "hv/vcpu.h"
#include "hv/view.h"
#include "patch/calibrate.h"
#include "patch/patch.h"

#define VCPUS 10u    /* crew, corpse, victim, and some that wait for their recovery */
#define CHANNELS 4u  /* few, so that tickets share them */
#define SPIN_TURNS 3u
#define SPIN_NEAR 8u
#define CPUS 64u /* enough for everybody who is awake */
#define NEVER_NS 3600000000000u /* longer than any patience */

struct stage *stage;
struct plk_segment *segment;
struct plk_lock locks[LOCKS];

void fail(const char *format, ...)
{
    va_list rest;

    va_start(rest, format);
    fprintf(stderr, "torture: ");
    vfprintf(stderr, format, rest);
    fprintf(stderr, "\n");
    va_end(rest);
    exit(2);
}

static uint32_t choice_named(const char *op, const char *name)
{
    struct plk_choice_view view;
    uint32_t i;

    for (i = 0; plk_choice_view(i, &view) == 0; i++) {
        if (strcmp(view.op, op) == 0 && strcmp(view.name, name) == 0)
            return i;
    }
    fail("there is no choice %s=%s", op, name);
}

/* What the core's table says of the slow path. */
static void look_up_slow_path(void)
{
    struct plk_choice_view view;

    if (plk_choice_view(choice_named("lock_spinning", config.slow), &view) != 0)
        fail("the choice %s has gone", config.slow);
    config.native = view.protocol == PLK_NATIVE;
    config.sleeps = !config.native && view.sound && strcmp(config.slow, "yield") != 0;
}

static int choose_ops(void)
{
    const char *barrier = config.barrier == PLK_BARRIER_FENCE ? "fence" : "membarrier";
    const char *const names[PLK_OP_COUNT] = {
        /* native waiters only spin: more of them than CPUs would take whole time slices */
        [PLK_OP_cpu_relax] = config.native ? "yield" : "pause",
        [PLK_OP_unlock_barrier] = config.native ? "off" : barrier,
        [PLK_OP_lock_spinning] = config.slow,
        [PLK_OP_unlock_kick] = config.native ? "off" : "kick",
        [PLK_OP_vcpu_preempted] = "off",
        [PLK_OP_lock_event] = "counters",
    };
    uint32_t choices[PLK_OP_COUNT], op;

    for (op = 0; op < PLK_OP_COUNT; op++)
        choices[op] = choice_named(plk_op_name(op), names[op]);
    return plk_apply(choices, config.patched);
}

int setup_ops(void)
{
    struct plk_site_row row;
    uint32_t site;
    int rc = plk_core_register();

    look_up_slow_path();
    if (rc == 0)
        rc = choose_ops();
    for (site = 0; rc == 0 && plk_site_at(site, &row) == 0; site++) {
        if ((row.status == PLK_SITE_PATCHED) != config.patched)
            rc = -EACCES;
    }
    stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return stage == MAP_FAILED ? -errno : rc;
}

int setup_domain(void)
{
    struct plk_format format = {.vcpus = VCPUS, .cells = LOCKS + 1, .stride = PLK_LINE,
                                .channels = CHANNELS, .tombs = PLK_TOMB_WINDOW, .entries = 1,
                                .protocol = config.native ? PLK_NATIVE : PLK_ENLIGHTENED,
                                .barrier = config.barrier};
    struct plk_found found;
    int fd, rc, i;

    plk_segment_discard(&segment);
    fd = memfd_create("torture", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    rc = plk_format(fd, &format);
    if (rc == 0)
        rc = plk_attach(fd, &segment, &found);
    for (i = 0; rc == 0 && i < LOCKS; i++) {
        int64_t index = plk_cell_new(segment, i == L ? config.policy : PLK_FIFO);

        rc = index < 0 ? (int)index : plk_lock_init(&locks[i], &segment->face, (uint32_t)index);
    }
    if (rc == 0) {
        segment->face.spin_turns = SPIN_TURNS;
        segment->face.spin_near = SPIN_NEAR;
        /* 1 ns: one look at the clock, and into the queue */
        plk_segment_learn(segment, config.policy == PLK_BOUNDED, 1);
        plk_segment_crowd(segment, 0, 0, CPUS);
    }
    return rc;
}

/* The tracer's own: victims stop at their instructions much faster on its CPU. */
static cpu_set_t everywhere;

static void pin(void)
{
    cpu_set_t one;

    CPU_ZERO(&one);
    CPU_SET((unsigned)config.cpu, &one);
    sched_setaffinity(0, sizeof(one), &one);
}

pid_t fork_party(int who, void (*body)(void))
{
    struct party *p = &stage->parties[who];
    pid_t tracer = getpid(), pid;

    *p = (struct party){.slot = UINT32_MAX, .answered = UINT32_MAX};
    if (CPU_COUNT(&everywhere) == 0 && config.cpu >= 0) {
        sched_getaffinity(0, sizeof(everywhere), &everywhere);
        pin();
    }
    plk_watchdog_set(NEVER_NS); /* the crew's is set by each order */
    fflush(NULL);
    pid = fork();
    if (pid < 0)
        fail("fork: %s", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != tracer)
            _exit(1);
        signal(SIGALRM, SIG_DFL);
        if (who != VICTIM && CPU_COUNT(&everywhere) != 0)
            sched_setaffinity(0, sizeof(everywhere), &everywhere);
        if (body != NULL)
            body();
        serve_orders(who);
    }
    p->pid = pid;
    return pid;
}

int setup_crew(void)
{
    int who;

    for (who = A; who < CREW; who++)
        fork_party(who, NULL);
    for (who = A; who < CREW; who++) {
        if (await(who) != 0 || stage->parties[who].slot == UINT32_MAX)
            return -EAGAIN;
    }
    return 0;
}

void dismiss_crew(void)
{
    int who;

    for (who = A; who < CREW; who++) {
        struct party *p = &stage->parties[who];

        if (p->pid == 0)
            continue;
        kill(p->pid, SIGKILL);
        while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
            ;
        p->pid = 0;
    }
}
