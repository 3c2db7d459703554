/* conductor.c - leads a slice: everybody starts together, and what counts is a window that the
 * conductor opens and closes by its clock.
 *
 * Acquisitions and CPU time are read by the conductor when the window opens and when it closes, so
 * that those of a worker that is starved, or killed in the end, count like any other's.  Context
 * switches are told by the workers, when they notice a phase. */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness.h"

#define NS_PER_S 1000000000ll
#define GATHER_NS (60 * NS_PER_S)
#define LOOK_NS 200000 /* between two looks at who has come or left */
#define WORKERS_AT 4096u

_Static_assert(sizeof(struct bench_worker) == 4096, "a worker is a page");
_Static_assert(sizeof(struct bench_control) == 256, "four cache lines");
_Static_assert(sizeof(struct bench_control) <= WORKERS_AT, "workers follow");
_Static_assert(offsetof(struct bench_worker, waits) % 64 == 0, "waits have lines of their own");

static int64_t read_clock(clockid_t clock)
{
    struct timespec t;

    return clock_gettime(clock, &t) == 0 ? (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec : 0;
}

static void sleep_until(int64_t at)
{
    struct timespec t = {at / NS_PER_S, at % NS_PER_S};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        continue;
}

static long futex(uint32_t *word, int op, uint32_t value)
{
    return syscall(SYS_futex, word, op, value, NULL, NULL, 0);
}

BENCH_EXPORT uint64_t bench_mapping_size(uint32_t workers)
{
    return WORKERS_AT + (uint64_t)workers * sizeof(struct bench_worker);
}

BENCH_EXPORT struct bench_worker *bench_worker_at(struct bench_control *c, uint32_t number)
{
    return (struct bench_worker *)((char *)c + WORKERS_AT) + number;
}

BENCH_EXPORT double bench_ticks_per_ns(void)
{
    int64_t began = read_clock(CLOCK_MONOTONIC), ended;
    uint64_t first = bench_stamp(), last;

    sleep_until(began + 20000000);
    ended = read_clock(CLOCK_MONOTONIC);
    last = bench_stamp();
    return (double)(last - first) / (double)(ended - began);
}

BENCH_EXPORT int64_t bench_time_turns(uint64_t turns)
{
    int64_t began = read_clock(CLOCK_THREAD_CPUTIME_ID);

    bench_turns(turns);
    return read_clock(CLOCK_THREAD_CPUTIME_ID) - began;
}

BENCH_EXPORT int bench_die_with(int parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
        return -1;
    /* It may have died before the request was made; then we have another parent. */
    return getppid() == (pid_t)parent ? 0 : -1;
}

/* ------------------------------------------------------------------ workers */

void bench_notice(struct bench_worker *me, struct bench_pace *pace, uint32_t phase)
{
    struct rusage used;

    getrusage(RUSAGE_SELF, &used);
    me->switches[phase] = used.ru_nvcsw;
    me->preempted[phase] = used.ru_nivcsw;
    pace->phase = phase;
}

BENCH_EXPORT void bench_switches(struct bench_control *c, uint32_t number, uint32_t phase)
{
    struct bench_pace pace;

    if (phase < BENCH_PHASES)
        bench_notice(bench_worker_at(c, number), &pace, phase);
}

BENCH_EXPORT void bench_come(struct bench_control *c, uint32_t number)
{
    bench_worker_at(c, number)->pid = getpid();
    __atomic_fetch_add(&c->ready, 1, __ATOMIC_RELEASE);
    while (__atomic_load_n(&c->phase, __ATOMIC_ACQUIRE) == BENCH_GATHER)
        futex(&c->phase, FUTEX_WAIT, BENCH_GATHER);
}

BENCH_EXPORT void bench_leave(struct bench_control *c) { __atomic_fetch_add(&c->gone, 1, __ATOMIC_RELEASE); }

BENCH_EXPORT int bench_work(struct bench_lock *lock, struct bench_control *c, uint32_t number,
                            enum bench_game game)
{
    int rc;

    bench_come(c, number);
    rc = bench_play_of(lock, game)(bench_place_of(lock), c, number);
    /* Where others are killed in the queue, what it returns then is no error of the lock. */
    if (rc < 0 && BENCH_LOAD(&c->phase) != BENCH_OVER)
        bench_worker_at(c, number)->error = rc;
    bench_leave(c);
    return rc;
}

uint32_t bench_await_generation(struct bench_control *c, uint32_t last)
{
    uint32_t now;

    while ((now = __atomic_load_n(&c->generation, __ATOMIC_ACQUIRE)) == last)
        futex(&c->generation, FUTEX_WAIT, last);
    return now;
}

void bench_through(struct bench_control *c)
{
    if (__atomic_sub_fetch(&c->left, 1, __ATOMIC_ACQ_REL) == 0)
        futex(&c->left, FUTEX_WAKE, INT_MAX);
}

BENCH_EXPORT void bench_count_waits(struct bench_worker *worker, const uint64_t *ring, uint64_t room,
                                    uint64_t from, uint64_t to)
{
    if (to - from > room)
        from = to - room;
    for (; from < to; from++) {
        uint64_t waited = ring[from & (room - 1)];

        worker->waits[bench_bucket_of(waited)]++;
        if (waited > worker->longest)
            worker->longest = waited;
    }
}

/* ---------------------------------------------------------------- conductor */

static void enter(struct bench_control *c, uint32_t phase)
{
    __atomic_store_n(&c->phase, phase, __ATOMIC_RELEASE);
}

static int64_t cpu_time(const struct bench_worker *worker)
{
    clockid_t clock;

    /* 0 of a process that is gone: it left because of an error, which is reported. */
    return clock_getcpuclockid(worker->pid, &clock) == 0 ? read_clock(clock) : 0;
}

/* Wait until everybody has come; 0, -ECHILD if one has left instead, or -ETIMEDOUT. */
static int gather(struct bench_control *c)
{
    int64_t until = read_clock(CLOCK_MONOTONIC) + GATHER_NS;

    while (__atomic_load_n(&c->ready, __ATOMIC_ACQUIRE) < c->workers) {
        if (BENCH_LOAD(&c->gone) != 0)
            return -ECHILD;
        if (read_clock(CLOCK_MONOTONIC) > until)
            return -ETIMEDOUT;
        sleep_until(read_clock(CLOCK_MONOTONIC) + LOOK_NS);
    }
    return 0;
}

/* Wait until the count is everybody's; how many are missing. */
static uint32_t await(const uint32_t *count, uint32_t workers, int64_t until)
{
    uint32_t there;

    while ((there = __atomic_load_n(count, __ATOMIC_ACQUIRE)) < workers && read_clock(CLOCK_MONOTONIC) < until)
        sleep_until(read_clock(CLOCK_MONOTONIC) + LOOK_NS);
    return workers - there;
}

static void open_window(struct bench_control *c)
{
    for (uint32_t i = 0; i < c->workers; i++)
        bench_worker_at(c, i)->cpu_ns = cpu_time(bench_worker_at(c, i));
    for (uint32_t i = 0; i < c->workers; i++)
        bench_worker_at(c, i)->before = BENCH_LOAD(&bench_worker_at(c, i)->acquisitions);
}

static void close_window(struct bench_control *c)
{
    uint64_t now = c->in_ns ? (uint64_t)read_clock(CLOCK_MONOTONIC) : bench_stamp();

    for (uint32_t i = 0; i < c->workers; i++) {
        struct bench_worker *worker = bench_worker_at(c, i);
        uint64_t since = BENCH_LOAD(&worker->waiting_since);

        worker->counted = BENCH_LOAD(&worker->acquisitions) - worker->before;
        worker->pending = since != 0 && now > since ? now - since : 0;
    }
}

BENCH_EXPORT int bench_conduct(struct bench_control *c, int64_t warm_ns, int64_t window_ns, int64_t grace_ns)
{
    int64_t began;
    int rc = gather(c);

    if (rc < 0)
        return rc;
    began = read_clock(CLOCK_MONOTONIC);
    enter(c, BENCH_WARM);
    futex(&c->phase, FUTEX_WAKE, INT_MAX);
    sleep_until(began + warm_ns);

    open_window(c);
    began = read_clock(CLOCK_MONOTONIC);
    enter(c, BENCH_MEASURE);
    sleep_until(began + window_ns);
    close_window(c);
    c->window_ns = read_clock(CLOCK_MONOTONIC) - began;
    for (uint32_t i = 0; i < c->workers; i++)
        bench_worker_at(c, i)->cpu_ns = cpu_time(bench_worker_at(c, i)) - bench_worker_at(c, i)->cpu_ns;
    enter(c, BENCH_OVER);
    return (int)await(&c->gone, c->workers, read_clock(CLOCK_MONOTONIC) + grace_ns);
}

/* ------------------------------------------------------------------- queues */

static uint32_t waiting(struct bench_control *c)
{
    uint32_t found = 0;

    for (uint32_t i = 0; i < c->workers; i++)
        found += BENCH_LOAD(&bench_worker_at(c, i)->waiting_since) != 0;
    return found;
}

BENCH_EXPORT int bench_form(struct bench_lock *lock, struct bench_control *c, int64_t settle_ns)
{
    int64_t until;
    int rc = gather(c);

    if (rc < 0 || (rc = bench_acquire(lock)) < 0)
        return rc;
    if (c->phase == BENCH_GATHER) {
        enter(c, BENCH_MEASURE);
        futex(&c->phase, FUTEX_WAKE, INT_MAX);
    }
    __atomic_store_n(&c->left, c->workers, __ATOMIC_RELAXED);
    __atomic_fetch_add(&c->generation, 1, __ATOMIC_RELEASE);
    futex(&c->generation, FUTEX_WAKE, INT_MAX);
    until = read_clock(CLOCK_MONOTONIC) + GATHER_NS;
    while (waiting(c) < c->workers) {
        if (read_clock(CLOCK_MONOTONIC) > until)
            return -ETIMEDOUT;
        sleep_until(read_clock(CLOCK_MONOTONIC) + LOOK_NS);
    }
    sleep_until(read_clock(CLOCK_MONOTONIC) + settle_ns);
    return 0;
}

BENCH_EXPORT int64_t bench_drain(struct bench_lock *lock, struct bench_control *c)
{
    int64_t until = read_clock(CLOCK_MONOTONIC) + GATHER_NS;
    uint64_t began;
    uint32_t left;
    int rc;

    for (uint32_t i = 0; i < c->workers; i++)
        bench_worker_at(c, i)->cpu_ns = cpu_time(bench_worker_at(c, i));
    began = bench_stamp();
    BENCH_STORE(&c->released_at, began);
    if ((rc = bench_release(lock)) < 0)
        return rc;
    /* The last one's wake comes when its unlock is done. */
    while ((left = __atomic_load_n(&c->left, __ATOMIC_ACQUIRE)) != 0) {
        struct timespec limit = {GATHER_NS / NS_PER_S, 0};

        if (read_clock(CLOCK_MONOTONIC) > until)
            return -ETIMEDOUT;
        syscall(SYS_futex, &c->left, FUTEX_WAIT, left, &limit, NULL, 0);
    }
    for (uint32_t i = 0; i < c->workers; i++)
        bench_worker_at(c, i)->cpu_ns = cpu_time(bench_worker_at(c, i)) - bench_worker_at(c, i)->cpu_ns;
    /* Until the last one left the lock, not until we had a CPU to notice. */
    return (int64_t)(BENCH_LOAD(&c->released_at) - began);
}

BENCH_EXPORT int bench_disperse(struct bench_control *c, int64_t grace_ns)
{
    enter(c, BENCH_OVER);
    __atomic_fetch_add(&c->generation, 1, __ATOMIC_RELEASE);
    futex(&c->generation, FUTEX_WAKE, INT_MAX);
    return (int)await(&c->gone, c->workers, read_clock(CLOCK_MONOTONIC) + grace_ns);
}

BENCH_EXPORT void bench_merge(struct bench_control *c, uint64_t *waits)
{
    memset(waits, 0, BENCH_BUCKETS * sizeof(*waits));
    for (uint32_t i = 0; i < c->workers; i++)
        for (uint32_t bucket = 0; bucket < BENCH_BUCKETS; bucket++)
            waits[bucket] += bench_worker_at(c, i)->waits[bucket];
}

BENCH_EXPORT uint32_t bench_bucket(uint64_t ticks) { return bench_bucket_of(ticks); }

BENCH_EXPORT uint64_t bench_bucket_floor(uint32_t bucket)
{
    return bucket < 32 ? bucket : (uint64_t)(16 + bucket % 16) << (bucket / 16 - 1);
}
