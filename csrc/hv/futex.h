/* hv/futex.h - the one place that calls futex(2).  Shared futexes only: the
 * words lie in memory of several processes. */
#ifndef PLK_HV_FUTEX_H
#define PLK_HV_FUTEX_H

#include <stdint.h>

enum plk_sleep {
    PLK_SLEEP_WOKEN,       /* woken, or the word had already changed, or spuriously */
    PLK_SLEEP_TIMED_OUT,
    PLK_SLEEP_INTERRUPTED, /* a signal handler ran */
    PLK_SLEEP_UNSUPPORTED, /* no such system call here */
};

#define PLK_ANY_BIT 0xffffffffu

/* Sleep while *word == value, until woken with a common bit or until the
 * absolute CLOCK_MONOTONIC time, ns. */
enum plk_sleep plk_futex_wait(uint32_t *word, uint32_t value, uint32_t bits, uint64_t until);

/* Wake all sleepers on the word that share a bit; how many there were. */
int plk_futex_wake(uint32_t *word, uint32_t bits);

/* Sleep for a millisecond at most, and not beyond the CLOCK_MONOTONIC time. */
void plk_nap(uint64_t until);

/* 1: this kernel has the futex calls that parking needs. */
int plk_futex_works(void);

uint64_t plk_now(void); /* CLOCK_MONOTONIC, ns */

#endif
