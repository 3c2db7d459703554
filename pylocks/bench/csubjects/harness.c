/* harness.c - opens subjects by their number in the table and runs them. */
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "harness.h"
#include "subjects.h"

#define X(id) extern const struct bench_subject bench_subject_##id;
BENCH_SUBJECTS(X)
#undef X

static const struct bench_subject *const bench_table[] = {
#define X(id) &bench_subject_##id,
    BENCH_SUBJECTS(X)
#undef X
};

#define BENCH_COUNT ((uint32_t)(sizeof(bench_table) / sizeof(bench_table[0])))
#define NS_PER_S 1000000000ll

struct bench_lock {
    const struct bench_subject *subject;
    void *page, *place;
};

/* CPU time of this thread: a free lock never sleeps, and what other programs
 * take is none of its time. */
static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

BENCH_EXPORT uint32_t bench_count(void) { return BENCH_COUNT; }

BENCH_EXPORT const char *bench_name(uint32_t subject)
{
    return subject < BENCH_COUNT ? bench_table[subject]->name : NULL;
}

BENCH_EXPORT const char *bench_meaning(uint32_t subject)
{
    return subject < BENCH_COUNT ? bench_table[subject]->meaning : NULL;
}

BENCH_EXPORT int bench_excludes(uint32_t subject)
{
    return subject < BENCH_COUNT && bench_table[subject]->excludes;
}

BENCH_EXPORT int bench_open(uint32_t subject, const struct bench_env *env, struct bench_lock **out)
{
    struct bench_lock *lock;
    int rc;

    if (subject >= BENCH_COUNT)
        return -EINVAL;
    lock = calloc(1, sizeof(*lock));
    if (lock == NULL)
        return -ENOMEM;
    lock->subject = bench_table[subject];
    lock->page = mmap(NULL, BENCH_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    rc = lock->page == MAP_FAILED ? -errno : 0;
    lock->place = (char *)lock->page + BENCH_OFFSET;
    if (rc == 0 && (rc = lock->subject->create(lock->place, env)) != 0)
        munmap(lock->page, BENCH_PAGE);
    if (rc != 0) {
        free(lock);
        return rc;
    }
    *out = lock;
    return 0;
}

BENCH_EXPORT void bench_close(struct bench_lock *lock)
{
    lock->subject->destroy(lock->place);
    munmap(lock->page, BENCH_PAGE);
    free(lock);
}

BENCH_EXPORT int64_t bench_pairs(struct bench_lock *lock, uint64_t n)
{
    int64_t start = now_ns();
    int rc = lock->subject->pairs(lock->place, n);

    return rc != 0 ? rc : now_ns() - start;
}

BENCH_EXPORT int bench_acquire(struct bench_lock *lock) { return lock->subject->lock(lock->place); }

BENCH_EXPORT int bench_release(struct bench_lock *lock) { return lock->subject->unlock(lock->place); }

bench_play bench_play_of(const struct bench_lock *lock, enum bench_game game)
{
    return lock->subject->games[game];
}

void *bench_place_of(const struct bench_lock *lock) { return lock->place; }
