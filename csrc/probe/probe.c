/* probe.c - see probe.h for what is checked and why it catches what it does. */
#include "probe/probe.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LOAD(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define STORE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)

_Static_assert(sizeof(struct plk_probe_control) % PLK_PROBE_LINE == 0, "areas share no line");
_Static_assert(sizeof(struct plk_probe_worker) % PLK_PROBE_LINE == 0, "areas share no line");
_Static_assert(offsetof(struct plk_probe_lock, counter) == PLK_PROBE_LINE,
               "the words have a line of their own");
_Static_assert(sizeof(((struct plk_probe_lock *)0)->words) == PLK_PROBE_LINE, "the words fill it");

enum { MAX_WORKERS = 1 << 20, MAX_LOCKS = 1 << 30 };

uint64_t plk_probe_size(uint64_t workers, uint64_t locks)
{
    if (workers > MAX_WORKERS || locks > MAX_LOCKS)
        return 0;
    return sizeof(struct plk_probe_control) + workers * sizeof(struct plk_probe_worker) +
           locks * sizeof(struct plk_probe_lock);
}

struct plk_probe_worker *plk_probe_worker_at(struct plk_probe_control *c, uint64_t number)
{
    return (struct plk_probe_worker *)(c + 1) + number;
}

struct plk_probe_lock *plk_probe_lock_at(struct plk_probe_control *c, uint64_t index)
{
    return (struct plk_probe_lock *)plk_probe_worker_at(c, c->workers) + index;
}

/* splitmix64: any seed is good, neighbouring ones are unrelated. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* A number below n, n > 0, without the cost of a division. */
static uint64_t below(uint64_t random, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)random * n) >> 64);
}

void plk_probe_init(struct plk_probe_control *c, uint64_t workers, uint64_t locks, uint64_t seed)
{
    c->workers = workers;
    c->locks = locks;
    for (uint64_t i = 0; i < workers; i++) {
        struct plk_probe_worker *w = plk_probe_worker_at(c, i);

        w->number = i;
        w->rng = next_random(&seed);
    }
    for (uint64_t i = 0; i < locks; i++)
        plk_probe_lock_at(c, i)->last_ticket = PLK_PROBE_NO_TICKET;
}

uint64_t plk_probe_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A chain of multiplications, each waiting for the one before: its length is the
 * same in every process, touches no memory, and can't be folded away.  Counted in
 * turns, not by the clock, so that a preempted section is not cut short. */
void plk_probe_work(uint64_t loops)
{
    uint64_t x = loops;

    while (loops-- != 0) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(x) : : "memory"); /* the writes around it stay around it */
    }
}

uint64_t plk_probe_time_work(uint64_t loops)
{
    uint64_t start = plk_probe_now();

    plk_probe_work(loops);
    return plk_probe_now() - start;
}

int plk_probe_die_with(int parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
        return -1;
    /* It may have died before the request was made; then we have another parent. */
    return getppid() == (pid_t)parent ? 0 : -1;
}

void plk_probe_go(struct plk_probe_control *c)
{
    __atomic_store_n(&c->go, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &c->go, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

void plk_probe_hold(struct plk_probe_control *c, uint64_t index, int held)
{
    __atomic_fetch_add(&plk_probe_lock_at(c, index)->occupants, held ? 1 : UINT64_MAX, __ATOMIC_RELAXED);
}

uint64_t plk_probe_waiting(struct plk_probe_control *c)
{
    uint64_t waiting = 0;

    for (uint64_t i = 0; i < c->workers; i++)
        waiting += LOAD(&plk_probe_worker_at(c, i)->phase) == PLK_PROBE_WAITING;
    return waiting;
}

int64_t plk_probe_begin(struct plk_probe_control *c, struct plk_probe_worker *w)
{
    __atomic_fetch_add(&c->ready, 1, __ATOMIC_RELEASE);
    /* Whatever ended the sleep, the word decides. */
    while (__atomic_load_n(&c->go, __ATOMIC_ACQUIRE) == 0)
        syscall(SYS_futex, &c->go, FUTEX_WAIT, 0, NULL, NULL, 0);
    return plk_probe_outside(c, w);
}

int64_t plk_probe_outside(struct plk_probe_control *c, struct plk_probe_worker *w)
{
    /* Two draws a turn, whatever they are used for: the sequence of choices
     * depends on the seed alone. */
    uint64_t pause = next_random(&w->rng), choice = next_random(&w->rng);

    STORE(&w->phase, PLK_PROBE_OUTSIDE);
    plk_probe_work(c->outside_loops - c->outside_loops / 2 + below(pause, c->outside_loops + 1));
    if (LOAD(&c->stop) != 0 ||
        (c->limit != 0 && __atomic_fetch_add(&c->issued, 1, __ATOMIC_RELAXED) >= c->limit)) {
        STORE(&w->phase, PLK_PROBE_DONE);
        return -1;
    }
    w->lock = below(choice, c->locks);
    STORE(&w->waiting_since, plk_probe_now());
    __atomic_store_n(&w->phase, PLK_PROBE_WAITING, __ATOMIC_RELEASE);
    return (int64_t)w->lock;
}

void plk_probe_violated(struct plk_probe_control *c, struct plk_probe_worker *w, int kind,
                        uint64_t got, uint64_t expected)
{
    if (LOAD(&c->closed) != 0 || kind < 0 || kind >= PLK_PROBE_KINDS)
        return;
    if (w->violations[kind] == 0)
        w->first[kind] = (struct plk_probe_finding){w->lock, got, expected, plk_probe_now()};
    STORE(&w->violations[kind], w->violations[kind] + 1);
}

static void check_words(struct plk_probe_control *c, struct plk_probe_worker *w,
                        struct plk_probe_lock *l, uint64_t expected)
{
    for (int i = 0; i < PLK_PROBE_WORDS; i++) {
        uint64_t word = LOAD(&l->words[i]);

        if (word != expected) {
            plk_probe_violated(c, w, PLK_PROBE_torn_write, word, expected);
            return;
        }
    }
}

void plk_probe_check_line(struct plk_probe_control *c, struct plk_probe_worker *w,
                          struct plk_probe_lock *l)
{
    check_words(c, w, l, LOAD(&l->words[0]));
}

uint64_t plk_probe_stamp(const struct plk_probe_worker *w)
{
    return (w->number + 1) << PLK_PROBE_STAMP_BITS | (w->acquisitions + 1);
}

void plk_probe_write(struct plk_probe_control *c, struct plk_probe_worker *w, struct plk_probe_lock *l,
                     uint64_t stamp)
{
    uint64_t part = c->cs_loops / PLK_PROBE_WORDS;

    for (int i = 0; i < PLK_PROBE_WORDS; i++) {
        STORE(&l->words[i], stamp);
        plk_probe_work(part);
    }
    plk_probe_work(c->cs_loops % PLK_PROBE_WORDS);
    check_words(c, w, l, stamp);
}

void plk_probe_count(struct plk_probe_worker *w, uint64_t now, uint64_t waited)
{
    w->waits[plk_probe_bucket(waited)]++;
    w->wait_sum += waited;
    if (waited > w->wait_max)
        w->wait_max = waited;
    w->last_at = now;
    STORE(&w->acquisitions, w->acquisitions + 1);
}

void plk_probe_inside(struct plk_probe_control *c, struct plk_probe_worker *w, uint64_t ticket)
{
    struct plk_probe_lock *l = plk_probe_lock_at(c, w->lock);
    uint64_t opened = LOAD(&c->opened), last = LOAD(&l->last_ticket), now = plk_probe_now();
    uint64_t waited = now - (w->waiting_since > opened ? w->waiting_since : opened);
    uint64_t counted, others;

    if (LOAD(&c->closed) != 0)
        return;
    __atomic_store_n(&w->phase, PLK_PROBE_INSIDE, __ATOMIC_RELEASE);
    others = __atomic_fetch_add(&l->occupants, 1, __ATOMIC_RELAXED);
    if (others != 0)
        plk_probe_violated(c, w, PLK_PROBE_occupied, others, 0);
    if (ticket != PLK_PROBE_NO_TICKET) {
        if (last != PLK_PROBE_NO_TICKET && ticket != last + 1)
            plk_probe_violated(c, w, PLK_PROBE_ticket_order, ticket, last + 1);
        STORE(&l->last_ticket, ticket);
    }
    counted = LOAD(&l->counter);
    plk_probe_check_line(c, w, l);
    plk_probe_write(c, w, l, plk_probe_stamp(w));
    STORE(&l->counter, counted + 1);
    __atomic_fetch_sub(&l->occupants, 1, __ATOMIC_RELAXED);

    plk_probe_count(w, now, waited);
    __atomic_store_n(&w->phase, PLK_PROBE_RELEASING, __ATOMIC_RELEASE);
}

const char *plk_probe_violation_name(int kind)
{
    switch (kind) {
#define X(name, what) \
    case PLK_PROBE_##name: \
        return #name;
        PLK_PROBE_VIOLATIONS(X)
#undef X
    default:
        return NULL;
    }
}

const char *plk_probe_violation_text(int kind)
{
    switch (kind) {
#define X(name, what) \
    case PLK_PROBE_##name: \
        return what;
        PLK_PROBE_VIOLATIONS(X)
#undef X
    default:
        return NULL;
    }
}

uint32_t plk_probe_bucket(uint64_t ns)
{
    uint32_t top;

    if (ns < 1u << PLK_PROBE_SUB_BITS)
        return (uint32_t)ns;
    if (ns >> PLK_PROBE_TOP_BITS != 0)
        return PLK_PROBE_BUCKETS - 1;
    top = 63u - (uint32_t)__builtin_clzll(ns); /* 5 .. 39 */
    return (top - PLK_PROBE_SUB_BITS) * (1u << PLK_PROBE_SUB_BITS) +
           (uint32_t)(ns >> (top - PLK_PROBE_SUB_BITS));
}

uint64_t plk_probe_bucket_floor(uint32_t bucket)
{
    const uint32_t sub = 1u << PLK_PROBE_SUB_BITS;

    if (bucket < 2 * sub)
        return bucket;
    return (uint64_t)(sub + bucket % sub) << (bucket / sub - 1);
}
