/* tsan.c - threads of one process, each a vCPU, do with a few locks all that can be
 * done, under the compiler's thread sanitizer.
 *
 *   tsan WAY SECONDS [SEED] [unprotected]
 *
 * It proves that whatever one thread wrote inside a critical section is ordered
 * before what the next one reads there, through the lock's own loads and stores, and that
 * the core reads nothing plainly that another thread writes.  Plain counters stand for
 * what users protect.
 *
 * The sanitizer knows of acquire and release, not of fences, nor of membarrier: the
 * handshakes K1, K2 and S1 are not its business (the model and the forced schedules have
 * them).  So the domain is one whose unlockers fence for themselves. */
#include <pylocks.h>

#include <sanitizer/tsan_interface.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "hv/attach.h"
#include "hv/directory.h"
#include "hv/futex.h"
#include "hv/leave.h"
#include "hv/park.h"
#include "hv/recovery.h"
#include "hv/vcpu.h"
#include "hv/view.h"
#include "patch/calibrate.h"
#include "patch/patch.h"

#define THREADS 4
#define CELLS 3
#define SECTIONS 400 /* of one thread, before it ends */

static struct plk_segment *segment;
static struct plk_lock locks[CELLS];
static uint64_t counters[CELLS];  /* plain: the lock protects it */
static uint64_t sections[CELLS];  /* atomic: what the counter must be */
static char deaths[CELLS];        /* addresses for the sanitizer */
static uint64_t unprotected;
static int plant, stop, died;

/* The sanitizer is done with a thread in the last round of its destructors, in which the
 * core still takes a mutex.  So that round is run at the end of the one before.  This is
 * what the core calls for pthread_key_create. */
int core_key_create(pthread_key_t *key, void (*destructor)(void *));

static void (*core_destructor)(void *);
static pthread_key_t core_key;

static void destroy(void *arg)
{
    static __thread int rounds;

    core_destructor(arg);
    if (++rounds == PTHREAD_DESTRUCTOR_ITERATIONS - 1) {
        pthread_setspecific(core_key, NULL);
        core_destructor(arg);
    }
}

int core_key_create(pthread_key_t *key, void (*destructor)(void *))
{
    int rc;

    core_destructor = destructor;
    rc = pthread_key_create(key, destroy);
    core_key = *key;
    return rc;
}

#define ADD(p, n) __atomic_fetch_add((p), (n), __ATOMIC_RELAXED)

static void must(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "tsan: %s\n", what);
    _exit(3);
}

struct dice {
    uint64_t state;
};

static uint32_t roll(struct dice *d, uint32_t n)
{
    d->state = d->state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(d->state >> 33) % n;
}

/* Inside the critical section of lock i. */
static void inside(unsigned i, int rc)
{
    if (rc == PLK_OWNER_DIED) {
        /* That a thread's stores come before its death, and that before its life word
         * says so, the kernel sees to, out of the sanitizer's sight. */
        __tsan_acquire(&deaths[i]);
        must(plk_mark_consistent(&locks[i]) == 0, "the holder can't mark the lock consistent");
    }
    counters[i]++;
    ADD(&sections[i], 1);
    if (plant)
        unprotected++;
}

static void leave_the_lock(unsigned i)
{
    must(plk_unlock(&locks[i]) == 0, "the holder can't unlock");
}

/* As a Python thread waits: now and then it looks at signals, whose handler may take
 * another lock, and may want to give up. */
static void wait_and_see(struct dice *d, unsigned i)
{
    struct plk_wait w;
    int rc = plk_take_until(&locks[i], &w, plk_now() + 2000000, plk_now() + 50000);
    unsigned other = (i + 1) % CELLS;

    while (rc == 1 || rc == -EINTR) {
        if (rc == -EINTR && w.ticket == PLK_NO_TICKET)
            return; /* natively, where it polls without a ticket */
        if (rc == -EINTR && roll(d, 2) == 0 && plk_nest(&w) == 0) {
            rc = plk_trylock(&locks[other]);
            if (rc >= 0) {
                inside(other, rc);
                leave_the_lock(other);
            }
            must(plk_unnest(&w) == 0, "the wait is this process's");
            rc = -EINTR;
        }
        if (rc == -EINTR && roll(d, 3) == 0) {
            while ((rc = plk_leave(&w)) == -ENOSPC)
                plk_nap(PLK_FOREVER);
            return;
        }
        w.pause = plk_now() + 50000;
        rc = plk_wait_turn(&w);
    }
    if (rc == 0) {
        inside(i, PLK_LOAD(&locks[i].cell->flags) & PLK_CELL_OWNER_DIED ? PLK_OWNER_DIED : 0);
        leave_the_lock(i);
    }
}

static void look_around(struct dice *d)
{
    struct plk_vcpu_view vcpu;
    struct plk_cell_view cell;
    char name[PLK_NAME_MAX] = {(char)('a' + roll(d, 8))};
    uint32_t length;
    int64_t index;

    switch (roll(d, 6)) {
    case 0: plk_vcpu_view(segment, roll(d, plk_vcpus_used(segment) + 1), &vcpu); break;
    case 1: plk_cell_view(segment, roll(d, CELLS), &cell); break;
    case 2: must(plk_name_find(segment, name, 1, 1, PLK_FIFO) >= 0, "no name can be added"); break;
    case 3: plk_name_at(segment, roll(d, 8), name, &length); break;
    case 4:
        index = plk_cell_new(segment, roll(d, 2) != 0 ? PLK_BOUNDED : PLK_FIFO);
        if (index >= 0)
            must(plk_cell_free(segment, (uint32_t)index) == 0, "a fresh cell is not free");
        break;
    default: must(plk_recover(segment) >= 0, "the dead can't be recovered"); break;
    }
}

/* End in the middle: inside, or in the queue. */
static void die(struct dice *d, unsigned i)
{
    struct plk_wait w;
    int rc;

    if (roll(d, 2) == 0) {
        inside(i, plk_acquire(&locks[i]));
        __tsan_release(&deaths[i]);
    } else {
        rc = plk_take(&locks[i], &w);
        if (rc == 0) /* entered, but does nothing there */
            __tsan_release(&deaths[i]);
        else if (roll(d, 2) == 0)
            must(plk_nest(&w) == 0, "the wait can't be kept");
    }
    ADD(&died, 1);
}

static void *work(void *arg)
{
    struct dice d = {(uint64_t)(uintptr_t)arg};
    unsigned n, i;
    int rc;

    for (n = 0; n < SECTIONS && !PLK_LOAD(&stop); n++) {
        i = roll(&d, CELLS);
        switch (roll(&d, 8)) {
        case 0: rc = plk_trylock(&locks[i]); break;
        case 1: case 2: rc = plk_acquire_until(&locks[i], plk_now() + roll(&d, 300000)); break;
        case 3: wait_and_see(&d, i); continue;
        case 4: look_around(&d); continue;
        default: rc = plk_acquire(&locks[i]); must(rc >= 0, "no lock"); break;
        }
        if (rc >= 0) {
            inside(i, rc);
            leave_the_lock(i);
        }
    }
    if (roll(&d, 3) == 0 && !PLK_LOAD(&stop))
        die(&d, roll(&d, CELLS));
    return NULL;
}

static void set_up(const char *way)
{
    int native = strcmp(way, "native") == 0;
    const struct plk_format format = {.vcpus = 64, .cells = 32, .stride = 64, .channels = 4, .tombs = 64,
                                      .entries = 16, .slow_path = "futex", .barrier = PLK_BARRIER_FENCE,
                                      .protocol = native ? PLK_NATIVE : PLK_ENLIGHTENED};
    const char *const names[] = {[PLK_OP_cpu_relax] = native ? "yield" : "pause",
                                 [PLK_OP_unlock_barrier] = native ? "off" : "fence",
                                 [PLK_OP_lock_spinning] = way,
                                 [PLK_OP_unlock_kick] = native ? "off" : "kick",
                                 [PLK_OP_vcpu_preempted] = native ? "off" : "same_cpu",
                                 [PLK_OP_lock_event] = "counters"};
    uint32_t choices[PLK_OP_COUNT] = {0}, i;
    int fd = memfd_create("tsan", MFD_CLOEXEC);
    struct plk_found found;

    for (i = 0; i < plk_choice_count(); i++) {
        const struct plk_choice *c = plk_choice_at(i);

        if (strcmp(c->name, names[c->op]) == 0)
            choices[c->op] = i;
    }
    must(plk_core_register() == 0 && plk_apply(choices, 0) == 0, "the core can't be started");
    must(plk_format(fd, &format) == 0 && plk_attach(fd, &segment, &found) == 0, "there is no segment");
    plk_segment_spin(segment, native ? 20 : 50, 2);
    plk_watchdog_set(1000000);
    for (i = 0; i < CELLS; i++) {
        must(plk_cell_new(segment, PLK_FIFO) == (int64_t)i, "no cell");
        must(plk_cell_bind(&locks[i], &segment->face, i) == 0, "no lock");
    }
}

/* Everybody has ended, some of them badly: every lock is free again, and has counted right. */
static void check(void)
{
    unsigned i;
    int rc;

    must(plk_recover(segment) >= 0, "the dead can't be recovered");
    for (i = 0; i < CELLS; i++) {
        rc = plk_acquire_until(&locks[i], plk_now() + 20000000000ull);
        must(rc >= 0, "a lock is lost");
        if (rc == PLK_OWNER_DIED)
            __tsan_acquire(&deaths[i]);
        must(counters[i] == sections[i], "a count is wrong: two threads were inside");
        leave_the_lock(i);
    }
}

static pthread_t start(uint64_t seed)
{
    pthread_t thread;

    must(pthread_create(&thread, NULL, work, (void *)(uintptr_t)seed) == 0, "no thread");
    return thread;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 0) : 1, end, started = 0, total = 0;
    unsigned i;

    if (argc < 3)
        return 2;
    plant = argc > 4 && strcmp(argv[4], "unprotected") == 0;
    set_up(argv[1]);
    end = plk_now() + (uint64_t)(strtod(argv[2], NULL) * 1e9);
    for (i = 0; i < THREADS; i++)
        threads[i] = start(seed + started++);
    for (i = 0; plk_now() < end; i = (i + 1) % THREADS) {
        pthread_join(threads[i], NULL);
        threads[i] = start(seed + started++);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    for (i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    check();
    for (i = 0; i < CELLS; i++)
        total += sections[i];
    plk_segment_discard(&segment);
    printf("%s: %llu critical sections of %llu threads, %d of which died in the middle\n", argv[1],
           (unsigned long long)total, (unsigned long long)started, died);
    return 0;
}
