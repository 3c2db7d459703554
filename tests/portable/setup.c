/* setup.c - see suite.h. */
#include "suite.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "hv/park.h"
#include "hv/view.h"
#include "patch/calibrate.h"
#include "patch/choices.h"

#define WATCHDOG_NS 5000000u
#define BREATH_NS 200000
#define MOST_WAYS 32u

struct shared *shared;
struct plk_segment *segment;
const char *now_checking = "", *now_way = "";

void must(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "suite: %s, %s: %s\n", now_way, now_checking, what);
    _exit(3);
}

void share(void)
{
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(shared != MAP_FAILED, "mmap");
}

void breathe(void)
{
    struct timespec ts = {0, BREATH_NS};

    nanosleep(&ts, NULL);
}

uint64_t tickets(const struct plk_lock *lock)
{
    uint64_t taken = PLK_LOAD(&lock->cell->tail);

    return lock->policy == PLK_BOUNDED ? taken + PLK_LOAD(&plk_queue_cell(lock->cell)->tail) : taken;
}

int have_robust_futexes(void)
{
    size_t size;
    void *head;

    return syscall(SYS_get_robust_list, 0, &head, &size) == 0;
}

int plk_patcher(void)
{
    const struct plk_site *first = PLK_SITES_BEGIN, *end = PLK_SITES_END;

    return first != end;
}

const struct way *all_ways(uint32_t *count)
{
    static struct way ways[MOST_WAYS];
    uint32_t i, n = 0;
    int patch;

    for (i = 0; i < plk_choice_count(); i++) {
        const struct plk_choice *c = plk_choice_at(i);

        if (c->op != PLK_OP_lock_spinning || !c->sound || !plk_choice_available(i))
            continue;
        for (patch = plk_patcher(); patch >= 0 && n < MOST_WAYS; patch--)
            ways[n++] = (struct way){.name = c->name, .choice = i, .native = c->protocol == PLK_NATIVE,
                                     .patch = patch,
                                     .barrier = patch && c->protocol != PLK_NATIVE && plk_membarrier_works()
                                                    ? PLK_BARRIER_MEMBARRIER
                                                    : PLK_BARRIER_FENCE};
    }
    *count = n;
    return ways;
}

static uint32_t choice_named(uint32_t op, const char *name)
{
    uint32_t i;

    for (i = 0; i < plk_choice_count(); i++) {
        if (plk_choice_at(i)->op == op && strcmp(plk_choice_at(i)->name, name) == 0)
            return i;
    }
    must(0, name);
    return 0;
}

void set_up(const struct way *way)
{
    int native = way->native, relies = way->barrier == PLK_BARRIER_MEMBARRIER;
    const struct plk_format format = {.vcpus = 64, .cells = 64, .stride = 64, .channels = 16, .tombs = 64,
                                      .entries = 16, .slow_path = "futex", .barrier = way->barrier,
                                      .protocol = native ? PLK_NATIVE : PLK_ENLIGHTENED};
    const char *const names[] = {
        [PLK_OP_cpu_relax] = native ? "yield" : "pause",
        [PLK_OP_unlock_barrier] = native ? "off" : relies ? "membarrier" : "fence",
        [PLK_OP_unlock_kick] = native ? "off" : strcmp(way->name, "hosted") == 0 ? "hosted" : "kick",
        [PLK_OP_vcpu_preempted] = native ? "off" : "same_cpu",
        [PLK_OP_lock_event] = "off"};
    uint32_t choices[PLK_OP_COUNT], op;
    int fd = memfd_create("suite", MFD_CLOEXEC);
    struct plk_found found;

    for (op = 0; op < PLK_OP_COUNT; op++)
        choices[op] = op == PLK_OP_lock_spinning ? way->choice : choice_named(op, names[op]);
    must(plk_core_register() == 0 && plk_apply(choices, way->patch) == 0, "the core can't be started");
    must(plk_format(fd, &format) == 0 && plk_attach(fd, &segment, &found) == 0, "there is no segment");
    plk_segment_spin(segment, native ? 20 : 50, 2);
    plk_watchdog_set(WATCHDOG_NS);
}

struct plk_lock fresh_lock(uint32_t policy)
{
    int64_t index = plk_cell_new(segment, policy);
    struct plk_lock lock;

    must(index >= 0 && plk_cell_bind(&lock, &segment->face, (uint32_t)index) == 0, "no lock");
    return lock;
}
