/* subject.h - what a lock must be to be measured at the C level.
 *
 * A subject is one file and one row of subjects.h:
 *
 *     #include "subject.h"
 *
 *     static int create(void *place, const struct bench_env *env) { ... }
 *     static inline int lock(void *place) { ... }
 *     static inline int unlock(void *place) { ... }
 *     static void destroy(void *place) { ... }
 *
 *     BENCH_SUBJECT(my_lock, 1, "what it is");
 *
 * The loops that are timed, `pairs` and the games, are made in the subject's own
 * file, with lock and unlock compiled into them, because that is what a program
 * gets that uses them: an inlined fast path costs no call, a library's function
 * does, and the difference is part of the result. */
#ifndef BENCH_SUBJECT_H
#define BENCH_SUBJECT_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#include "games.h"

/* One kind of lock.  All functions return 0 or a negative errno. */
struct bench_subject {
    const char *name, *meaning;
    int excludes; /* 0: does not lock anything, measures the harness */
    /* Make a free lock in `place`: BENCH_PLACE zeroed bytes, aligned to a line and
     * shared with the children that are forked later. */
    int (*create)(void *place, const struct bench_env *env);
    int (*lock)(void *place);
    int (*unlock)(void *place);
    void (*destroy)(void *place);
    /* n times lock and unlock */
    int (*pairs)(void *place, uint64_t n);
    /* by enum bench_game; until the slice is over */
    bench_play games[3];
};

#define BENCH_PLACE 1984u
/* Where in its page a lock lies.  Not at the beginning, where the words of shared segments do: a load waits
 * for an earlier store whose address has the same low 12 bits, and in a program locks lie anywhere. */
#define BENCH_OFFSET 2112u
#define BENCH_PAGE 4096u

/* The compiler may keep nothing in registers from one turn to the next. */
#define BENCH_TURN() __asm__ volatile("" ::: "memory")

#define BENCH_SUBJECT(id, locks, says)                                              \
    static int bench_pairs_of_##id(void *place, uint64_t n)                         \
    {                                                                               \
        int rc = 0;                                                                 \
                                                                                    \
        while (n-- != 0 && (rc = lock(place)) == 0) {                               \
            BENCH_TURN();                                                           \
            if ((rc = unlock(place)) != 0)                                          \
                break;                                                              \
            BENCH_TURN();                                                           \
        }                                                                           \
        return rc;                                                                  \
    }                                                                               \
    BENCH_GAMES(id)                                                                 \
    const struct bench_subject bench_subject_##id = {                               \
        #id, says, locks, create, lock, unlock, destroy, bench_pairs_of_##id,       \
        {bench_contend_of_##id, bench_relay_of_##id, bench_queue_of_##id}}

#endif
