#include "hv/futex.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000ull
#define PLK_NAP_NS 1000000ull

/* As the kernel has them; headers may be older. */
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif
#define PLK_FUTEX_32 2u
struct plk_futex_one {
    uint64_t value, address;
    uint32_t flags, reserved;
};

uint64_t plk_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* Every errno is the caller's business, the environment's, or our bug; a bug is
 * not slept over. */
static void plk_futex_bug(const char *what, int error)
{
    fprintf(stderr, "pylocks: futex %s failed with errno %d, which means a wrong argument\n", what,
            error);
    abort();
}

enum plk_sleep plk_futex_wait(uint32_t *word, uint32_t value, uint32_t bits, uint64_t until)
{
    struct timespec ts = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
    int saved = errno, error;
    long rc;

    rc = syscall(SYS_futex, word, FUTEX_WAIT_BITSET, value, &ts, NULL, bits);
    error = errno;
    errno = saved;
    if (rc == 0)
        return PLK_SLEEP_WOKEN;
    switch (error) {
    case EAGAIN: /* the word changed before the sleep: a kick came between */
        return PLK_SLEEP_WOKEN;
    case ETIMEDOUT:
        return PLK_SLEEP_TIMED_OUT;
    case EINTR:
        return PLK_SLEEP_INTERRUPTED;
    case ENOSYS: /* a sandbox or an emulator; EPERM from a seccomp filter */
    case EPERM:
    case ENOMEM: /* the kernel could not look at the page now: look again */
        return PLK_SLEEP_UNSUPPORTED;
    default: /* EFAULT, EINVAL */
        plk_futex_bug("wait", error);
        return PLK_SLEEP_UNSUPPORTED;
    }
}

enum plk_sleep plk_futex_wait_any(const uint64_t *words, const uint32_t *values, uint32_t count,
                                  uint64_t until)
{
    struct plk_futex_one all[PLK_FUTEX_MANY];
    struct timespec ts = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
    int saved = errno, error;
    uint32_t i;
    long rc;

    if (count > PLK_FUTEX_MANY)
        count = PLK_FUTEX_MANY;
    for (i = 0; i < count; i++)
        all[i] = (struct plk_futex_one){values[i], words[i], PLK_FUTEX_32, 0};
    rc = syscall(SYS_futex_waitv, all, count, 0, &ts, CLOCK_MONOTONIC);
    error = errno;
    errno = saved;
    if (rc >= 0)
        return PLK_SLEEP_WOKEN;
    switch (error) {
    case EAGAIN: /* a word had changed already */
    case EFAULT: /* or had been unmapped */
        return PLK_SLEEP_WOKEN;
    case ETIMEDOUT:
        return PLK_SLEEP_TIMED_OUT;
    case EINTR:
        return PLK_SLEEP_INTERRUPTED;
    case ENOSYS:
    case EPERM:
    case ENOMEM:
        return PLK_SLEEP_UNSUPPORTED;
    default:
        plk_futex_bug("waitv", error);
        return PLK_SLEEP_UNSUPPORTED;
    }
}

int plk_futex_waits_any(void)
{
    static uint32_t word; /* 0, so a wait for 1 returns EAGAIN at once */
    uint64_t address = (uint64_t)(uintptr_t)&word;
    uint32_t value = 1;

    return plk_futex_wait_any(&address, &value, 1, 0) != PLK_SLEEP_UNSUPPORTED;
}

void plk_futex_poke(uint32_t *word)
{
    __atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);
    plk_futex_wake(word, FUTEX_BITSET_MATCH_ANY);
}

int plk_futex_wake(uint32_t *word, uint32_t bits)
{
    int saved = errno;
    long rc = syscall(SYS_futex, word, FUTEX_WAKE_BITSET, INT_MAX, NULL, NULL, bits);
    int error = errno;

    errno = saved;
    if (rc >= 0)
        return (int)rc;
    if (error != ENOSYS && error != EPERM && error != ENOMEM)
        plk_futex_bug("wake", error);
    return 0;
}

void plk_nap(uint64_t until)
{
    uint64_t end = plk_now() + PLK_NAP_NS;
    struct timespec ts;

    if (until < end)
        end = until;
    ts = (struct timespec){(time_t)(end / NS_PER_S), (long)(end % NS_PER_S)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL); /* a signal may cut it short */
}

int plk_futex_works(void)
{
    static uint32_t word; /* 0, so a wait for 1 returns EAGAIN at once */

    return plk_futex_wait(&word, 1, FUTEX_BITSET_MATCH_ANY, 0) != PLK_SLEEP_UNSUPPORTED;
}
