/* chaos.h - the probe's marks where participants are killed: what a dead one may
 * leave half-done, and what must have been said of it.
 *
 * Lives and marks.  Every process that takes part, replacements included, is a
 * *life* with a number of its own, never used again.  A life writes what it is
 * about to do into its claims, and puts its number into the lock's `mark` for as
 * long as it is in its critical section:
 *
 *       phase    WAITING   |  acquire returns  |  mark = me; INSIDE ... RELEASING; mark = 0  |  release
 *                [---- a ----------------------][------------------ b ----------------------][-- c ---] OUTSIDE
 *
 * The mark is set after acquire has returned and taken away before release is
 * called.  So in b the life holds the lock, whatever happens; in a and c it may,
 * or may not: the lock's own instructions lie there, and whoever looks from
 * outside can't tell between which two of them a SIGKILL landed.
 *
 * Before it kills, the killer stores the time in the life's `condemned`.  The
 * kernel marks the victim's life word after that, and nobody recovers its locks
 * before the kernel has, so whoever is let in because of the death finds
 * `condemned` set.  The next holder takes over the mark by an atomic exchange and
 * judges by what it finds:
 *
 *   mark     condemned   owner_died
 *   0        -           no           as it should be
 *   other    no          any          occupied: two are inside
 *   other    yes         no           silent_death: it died in b, and nobody was told
 *   other    yes         yes          as it should be; the line and the counter are repaired
 *   0        -           yes          told of a death in a or c, or a false alarm
 *
 * A victim that is condemned but not dead yet and overtaken in b would pass for
 * dead here.  If owner_died is not set it is caught as silent_death; and if it
 * lives on to leave, it misses its mark, which is occupied as well.
 *
 * The last row is the grey zone.  It is narrowed from outside, by the reports
 * that are kept of every owner_died, the deaths, and the grants before: the dead
 * one was the last to hold the lock, so the report is explained only by a death
 * whose claim on this lock stood in a or c, that was condemned before the report,
 * and before the end of which nobody else's grant is known.  Each death explains
 * one report.  Or the one told before did not come to declare the data consistent,
 * being interrupted: owner_died is sticky, and `open` knows.  What remains unseen is
 * a death in a or c with the lock in hand that is not reported; the torture tests,
 * which kill at every single instruction, see those.
 *
 * The line and the counter.  A holder killed in b leaves them as they are, and only
 * then may they be found torn, or `counter` behind `entered`.  In a and c they are
 * whole: all writes come after the mark and before its end, and what a process has
 * written stays written when it dies.
 *
 * Tickets rise from holder to holder (FIFO).  A ticket that is skipped must
 * belong to somebody who gave up (`excuses`) or died waiting; that sum is
 * compared in the end. */
#ifndef PYLOCKS_PROBE_CHAOS_H
#define PYLOCKS_PROBE_CHAOS_H

#include "probe/probe.h"

#define PLK_CHAOS_LEVELS 2  /* locks that one life holds or waits for at once */
#define PLK_CHAOS_GRANTS 32 /* grants that a lock remembers */

enum plk_chaos_phase {
    PLK_CHAOS_OUTSIDE = 0,
    PLK_CHAOS_WAITING = 1,
    PLK_CHAOS_INSIDE = 2,
    PLK_CHAOS_RELEASING = 3,
};

/* Whether the death of which owner_died told is still to be declared mended. */
enum plk_chaos_open {
    PLK_CHAOS_MENDED = 0,
    PLK_CHAOS_TOLD = 1,    /* owner_died must stay */
    PLK_CHAOS_MENDING = 2, /* mark_consistent is called: either may be seen */
};

struct plk_chaos_claim {
    uint64_t lock, phase;
    uint64_t since; /* CLOCK_MONOTONIC ns, just before acquire */
};

struct plk_chaos_life {
    uint64_t seat;      /* number of the worker whose area it writes to */
    uint64_t condemned; /* CLOCK_MONOTONIC ns, stored by the killer just before it kills; 0: it is to live */
    uint64_t turns, timeouts, interrupts, told;
    struct plk_chaos_claim claims[PLK_CHAOS_LEVELS];
} __attribute__((aligned(PLK_PROBE_LINE)));

/* A grant; `at` is 0 while it is being written. */
struct plk_chaos_grant {
    uint64_t at, since, life;
    uint64_t freed; /* when the holder before left its critical section; 0: it died in it */
};

struct plk_chaos_lock {
    uint64_t mark;    /* number of the life inside + 1; 0: none */
    uint64_t entered; /* critical sections begun; equals `counter` between them */
    uint64_t skipped; /* tickets between each holder's and the one before */
    uint64_t excuses; /* acquisitions that were given up or came to nothing */
    uint64_t open;    /* enum plk_chaos_open */
    uint64_t freed;   /* CLOCK_MONOTONIC ns of the last end of a critical section */
    struct plk_chaos_grant grants[PLK_CHAOS_GRANTS]; /* the n-th in place n % PLK_CHAOS_GRANTS */
} __attribute__((aligned(PLK_PROBE_LINE)));

/* That acquire told of an owner's death. */
struct plk_chaos_report {
    uint64_t life, lock, ticket, at;
    uint64_t left;     /* the mark that was found */
    uint64_t previous; /* when the holder before was granted the lock; 0: there was none */
    uint64_t sticky;   /* the death had been told of before */
    uint64_t written;  /* 1: all of the above is there */
};

struct plk_chaos {
    uint64_t lives, reports;
    uint64_t reported __attribute__((aligned(PLK_PROBE_LINE))); /* reports made, also those without room */
} __attribute__((aligned(PLK_PROBE_LINE)));

/* Bytes of a mapping that holds the probe's areas and these; 0: too many. */
uint64_t plk_chaos_size(uint64_t workers, uint64_t locks, uint64_t lives, uint64_t reports);
/* Lay out zeroed memory of that size, after plk_probe_init. */
void plk_chaos_init(struct plk_probe_control *c, uint64_t lives, uint64_t reports);
struct plk_chaos *plk_chaos_at(struct plk_probe_control *c);
struct plk_chaos_life *plk_chaos_life_at(struct plk_probe_control *c, uint64_t number);
struct plk_chaos_lock *plk_chaos_lock_at(struct plk_probe_control *c, uint64_t index);
struct plk_chaos_report *plk_chaos_report_at(struct plk_probe_control *c, uint64_t index);

/* A life's steps, at one of its levels. */
void plk_chaos_wait(struct plk_probe_control *c, uint64_t life, uint64_t level, uint64_t lock);
/* The critical section begins, under this ticket; told: owner_died is set. */
void plk_chaos_enter(struct plk_probe_control *c, uint64_t life, uint64_t level, uint64_t ticket, int told);
void plk_chaos_work(struct plk_probe_control *c, uint64_t life, uint64_t level);
/* Around mark_consistent. */
void plk_chaos_mend(struct plk_probe_control *c, uint64_t life, uint64_t level, int done);
/* It ends; nothing if it has not begun. */
void plk_chaos_leave(struct plk_probe_control *c, uint64_t life, uint64_t level);
/* Release has returned, or acquire has given up. */
void plk_chaos_out(struct plk_probe_control *c, uint64_t life, uint64_t level);
/* Note a violation on the lock of this level. */
void plk_chaos_violated(struct plk_probe_control *c, uint64_t life, uint64_t level, int kind, uint64_t got,
                        uint64_t expected);

/* The lock's first grant, from `from` on, to somebody who waited for it then; 1: found.
 * Of grants that are forgotten since, the oldest one that is not stands for all. */
int plk_chaos_first_grant(struct plk_probe_control *c, uint64_t lock, uint64_t from,
                          struct plk_chaos_grant *found);

#endif
