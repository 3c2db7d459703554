/* suite.c - the lock without Python: what the core promises, checked on a processor, C library or
 * kernel for which there is no Python at hand.
 *
 *   suite            all checks, with every slow path, patched where there is a patcher and not
 *
 * Processes are forked, killed and waited for; every wait has a generous limit, and no check
 * depends on how fast anything is.  What the kernel lacks is said, and what cannot be checked
 * without it is left out: who is not told of deaths by the kernel (robust futexes; an emulator
 * has none) finds them by asking for the thread, as soon as its process has been waited for. */
#include "suite.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define PROCESSES 4u
#define SECTIONS 400u /* of one process or thread */
#define QUEUE 5u
#define PATIENCE_S 120u /* what takes longer hangs, and is ended by SIGALRM */
#define STORM 12u /* workers killed */

/* ---------------------------------------------------------------- processes */

static pid_t start(void (*work)(struct plk_lock *, uint32_t), struct plk_lock *lock, uint32_t number)
{
    pid_t pid = fork();

    must(pid >= 0, "fork");
    if (pid != 0)
        return pid;
    alarm(PATIENCE_S);
    work(lock, number);
    _exit(0);
}

static void ended_well(pid_t pid)
{
    int status;

    must(waitpid(pid, &status, 0) == pid, "waitpid");
    must(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a process did not end well");
}

static void kill_it(pid_t pid)
{
    must(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid, "kill");
}

static void take(struct plk_lock *lock, int expected)
{
    int rc = plk_acquire(lock);

    if (rc != expected)
        fprintf(stderr, "suite: an acquisition returned %d, not %d\n", rc, expected);
    must(rc == expected, "an acquisition");
}

static void give(struct plk_lock *lock) { must(plk_unlock(lock) == 0, "the holder can't unlock"); }

static void rest_for_ever(void)
{
    for (;;)
        pause();
}

static void take_and_give(struct plk_lock *lock, uint32_t number)
{
    take(lock, 0);
    shared->order[__atomic_fetch_add(&shared->entered, 1, __ATOMIC_RELAXED)] = number;
    give(lock);
}

static void take_and_stay(struct plk_lock *lock, uint32_t number)
{
    (void)number;
    take(lock, 0);
    PLK_STORE_RELEASE(&shared->inside, 1);
    rest_for_ever();
}

static void take_after_a_death(struct plk_lock *lock, uint32_t number)
{
    (void)number;
    take(lock, PLK_OWNER_DIED);
    must(plk_mark_consistent(lock) == 0, "the holder can't mark the lock consistent");
    give(lock);
}

/* A process that waits for the lock; returned from when it has a ticket. */
static pid_t queue_up(void (*work)(struct plk_lock *, uint32_t), struct plk_lock *lock, uint32_t number)
{
    uint64_t before = tickets(lock);
    pid_t pid = start(work, lock, number);

    while (tickets(lock) == before)
        breathe();
    return pid;
}

static pid_t holder(struct plk_lock *lock)
{
    pid_t pid;

    PLK_STORE(&shared->inside, 0);
    pid = start(take_and_stay, lock, 0);
    while (PLK_LOAD_ACQUIRE(&shared->inside) == 0)
        breathe();
    return pid;
}

/* ------------------------------------------------------------------- checks */

static void alone(struct plk_lock *lock)
{
    uint64_t first = PLK_LOAD(&lock->cell->head);

    must(plk_unlock(lock) == -EPERM, "a stranger can unlock");
    take(lock, 0);
    must(plk_acquire(lock) == -EDEADLK, "an owner can wait for itself");
    must(plk_trylock(lock) == -EBUSY, "an owner can enter twice");
    give(lock);
    must(plk_trylock(lock) == 0, "a free lock is busy");
    must(PLK_LOAD(&lock->cell->head) > first, "tickets do not rise");
    give(lock);
    must(plk_unlock(lock) == -EPERM, "a lock can be unlocked twice");
    must(plk_mark_consistent(lock) == -EPERM, "a stranger can mark the lock consistent");
}

static void count(struct plk_lock *lock, uint32_t number)
{
    volatile uint64_t *counter = &shared->counter; /* plain: the lock protects it */
    uint32_t i;

    (void)number;
    for (i = 0; i < SECTIONS; i++) {
        take(lock, 0);
        *counter = *counter + 1;
        give(lock);
    }
}

static void processes(struct plk_lock *lock)
{
    pid_t pids[PROCESSES];
    uint32_t i;

    shared->counter = 0;
    for (i = 0; i < PROCESSES; i++)
        pids[i] = start(count, lock, i);
    for (i = 0; i < PROCESSES; i++)
        ended_well(pids[i]);
    must(shared->counter == (uint64_t)PROCESSES * SECTIONS, "two processes were inside");
}

static void *count_in_thread(void *lock)
{
    count(lock, 0);
    return NULL;
}

static void threads(struct plk_lock *lock)
{
    pthread_t ids[PROCESSES];
    uint32_t i;

    shared->counter = 0;
    for (i = 0; i < PROCESSES; i++)
        must(pthread_create(&ids[i], NULL, count_in_thread, lock) == 0, "pthread_create");
    for (i = 0; i < PROCESSES; i++)
        pthread_join(ids[i], NULL);
    must(shared->counter == (uint64_t)PROCESSES * SECTIONS, "two threads were inside");
}

static void order(struct plk_lock *lock)
{
    pid_t pids[QUEUE];
    uint32_t i;

    shared->entered = 0;
    take(lock, 0);
    for (i = 0; i < QUEUE; i++)
        pids[i] = queue_up(take_and_give, lock, i);
    give(lock);
    for (i = 0; i < QUEUE; i++)
        ended_well(pids[i]);
    must(shared->entered == QUEUE, "somebody did not enter");
    for (i = 0; i < QUEUE && lock->policy == PLK_FIFO; i++)
        must(shared->order[i] == i, "the order of arrival was not kept");
}

static void give_up(struct plk_lock *lock, uint32_t number)
{
    (void)number;
    must(plk_trylock(lock) == -EBUSY, "a lock that is held can be taken");
    must(plk_acquire_until(lock, plk_now() + 20000000u) == -ETIMEDOUT, "no timeout");
}

static void timeouts(struct plk_lock *lock)
{
    pid_t first, second;

    shared->entered = 0;
    take(lock, 0);
    first = start(give_up, lock, 0);
    ended_well(first);
    first = queue_up(take_and_give, lock, 1);
    second = start(give_up, lock, 0);
    ended_well(second);
    give(lock);
    ended_well(first);
    take(lock, 0);
    give(lock);
}

static void dead_holder(struct plk_lock *lock)
{
    pid_t dead = holder(lock), next;

    kill_it(dead); /* nobody waits: the next to come is told */
    take_after_a_death(lock, 0);
    dead = holder(lock); /* somebody waits */
    next = queue_up(take_after_a_death, lock, 0);
    kill_it(dead);
    ended_well(next);
    dead = holder(lock); /* until somebody has put things in order */
    kill_it(dead);
    take(lock, PLK_OWNER_DIED);
    give(lock);
    take_after_a_death(lock, 0);
    take(lock, 0);
    give(lock);
}

static void dead_waiter(struct plk_lock *lock)
{
    pid_t dead, behind;

    shared->entered = 0;
    take(lock, 0);
    dead = queue_up(take_and_give, lock, 1);
    behind = queue_up(take_and_give, lock, 2);
    kill_it(dead);
    give(lock);
    ended_well(behind);
    must(shared->entered == 1 && shared->order[0] == 2, "the dead has entered");
    take(lock, 0);
    give(lock);
}

static void *end_inside(void *lock)
{
    take(lock, 0);
    return NULL;
}

static void ended_thread(struct plk_lock *lock)
{
    pthread_t id;

    must(pthread_create(&id, NULL, end_inside, lock) == 0 && pthread_join(id, NULL) == 0, "pthread");
    take_after_a_death(lock, 0);
}

static void toil(struct plk_lock *lock, uint32_t number)
{
    (void)number;
    for (;;) {
        if (plk_acquire(lock) < 0)
            _exit(3);
        PLK_STORE(&shared->begun, PLK_LOAD(&shared->begun) + 1);
        PLK_STORE(&shared->done, PLK_LOAD(&shared->begun)); /* differ only after a death */
        if (plk_unlock(lock) != 0)
            _exit(4);
    }
}

static uint64_t begun(struct plk_lock *lock)
{
    (void)lock;
    return PLK_LOAD(&shared->begun);
}

/* Killed wherever they happen to be. */
static void storm(struct plk_lock *lock)
{
    pid_t pids[PROCESSES];
    uint32_t i, n;
    uint64_t before;

    for (i = 0; i < PROCESSES; i++)
        pids[i] = start(toil, lock, i);
    for (n = 0; n < STORM; n++) {
        for (before = begun(lock); begun(lock) < before + 20;)
            breathe();
        i = n % PROCESSES;
        kill_it(pids[i]);
        pids[i] = start(toil, lock, i);
    }
    for (i = 0; i < PROCESSES; i++)
        kill_it(pids[i]);
    must(plk_acquire(lock) >= 0, "the lock was lost");
    must(plk_mark_consistent(lock) == 0, "the holder can't mark the lock consistent");
    give(lock);
}

static void names(struct plk_lock *lock)
{
    char name[PLK_NAME_MAX];
    struct plk_found found;
    struct plk_segment *s;
    uint32_t length = 0;
    int64_t index;
    int fd = memfd_create("suite", MFD_CLOEXEC);

    (void)lock;
    must(plk_name_find(segment, "none", 4, 0, PLK_FIFO) == -ENOENT, "a name that nobody gave");
    index = plk_name_find(segment, "orders", 6, 1, PLK_FIFO);
    must(index >= 0 && plk_name_find(segment, "orders", 6, 0, PLK_FIFO) == index, "a name is lost");
    must(plk_name_at(segment, 0, name, &length) == index && length == 6, "the directory");
    must(plk_attach(fd, &s, &found) == -PLK_E_UNFINISHED, "an empty file is a domain");
    must(write(fd, "this is not a segment at all", 28) == 28, "write");
    must(plk_attach(fd, &s, &found) == -PLK_E_FOREIGN, "a foreign file is a domain");
    close(fd);
}

static const struct check {
    const char *name;
    void (*run)(struct plk_lock *lock);
    int needs_robust;
} checks[] = {
    {"alone", alone, 0},           {"processes", processes, 0},       {"threads", threads, 0},
    {"order", order, 0},           {"timeouts", timeouts, 0},         {"dead holder", dead_holder, 0},
    {"dead waiter", dead_waiter, 0}, {"ended thread", ended_thread, 0}, {"storm", storm, 1},
    {"names", names, 0},
};

/* In a process of its own: a process chooses once. */
static uint32_t run_all(const struct way *way, int robust)
{
    uint32_t i, policy, passed = 0;

    set_up(way);
    for (policy = PLK_FIFO; policy <= PLK_BOUNDED; policy++) {
        if (policy == PLK_BOUNDED && way->native)
            continue;
        for (i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
            struct plk_lock lock = fresh_lock(policy);

            if (checks[i].needs_robust && !robust)
                continue;
            now_checking = checks[i].name;
            alarm(PATIENCE_S);
            checks[i].run(&lock);
            passed++;
        }
    }
    return passed;
}

int main(void)
{
    const struct way *ways;
    uint32_t count, i, total = 0;
    int robust = have_robust_futexes();

    share();
    printf("robust futexes: %s, membarrier: %s, futex: %s, patch sites: %s\n", robust ? "yes" : "no",
           plk_membarrier_works() ? "yes" : "no", plk_futex_works() ? "yes" : "no",
           plk_patcher() ? "yes" : "no");
    fflush(stdout);
    ways = all_ways(&count);
    for (i = 0; i < count; i++) {
        pid_t pid = fork();

        must(pid >= 0, "fork");
        now_way = ways[i].name;
        if (pid == 0) {
            shared->passed = run_all(&ways[i], robust);
            exit(0);
        }
        ended_well(pid);
        printf("%s%s%s: %u checks\n", ways[i].name, ways[i].patch ? ", patched" : "",
               ways[i].barrier == PLK_BARRIER_MEMBARRIER ? ", membarrier" : "", shared->passed);
        fflush(stdout);
        total += shared->passed;
    }
    printf("passed: %u checks in %u ways\n", total, count);
    return 0;
}
