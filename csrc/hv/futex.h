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

#define PLK_FUTEX_MANY 128u /* words that one sleep can be for (FUTEX_WAITV_MAX) */

/* The same on several words, given by their addresses, whatever the bits of a wake.  A word that is
 * no longer there counts as woken. */
enum plk_sleep plk_futex_wait_any(const uint64_t *words, const uint32_t *values, uint32_t count,
                                  uint64_t until);

/* 1: this kernel can do that (Linux 5.16). */
int plk_futex_waits_any(void);

/* Change the word and wake all sleepers on it. */
void plk_futex_poke(uint32_t *word);

/* Wake all sleepers on the word that share a bit; how many there were. */
int plk_futex_wake(uint32_t *word, uint32_t bits);

/* Sleep for a millisecond at most, and not beyond the CLOCK_MONOTONIC time. */
void plk_nap(uint64_t until);

/* 1: this kernel has the futex calls that parking needs. */
int plk_futex_works(void);

uint64_t plk_now(void); /* CLOCK_MONOTONIC, ns */

#endif
