/* hv/barrier.c - who pays for the order of head and slow.
 *
 * K1 and K2 need the unlocker to store head before it looks at slow.  Either the
 * unlocker fences (a locked instruction in every unlock), or, asymmetrically, the
 * waiter makes all CPUs fence when it raises slow: membarrier GLOBAL_EXPEDITED
 * interrupts each CPU that runs a thread of a registered process, and a CPU that
 * runs none has passed a full fence in its context switch.
 *
 *       U, no fence                        W
 *       head = t                           slow = 1
 *       look at slow                       membarrier: a fence on U's CPU, at p
 *                                          look at head
 *
 * If U's store comes before p it is visible when W looks; if it comes after p, so
 * does U's look, which then sees slow.  The domain's header says which of the two
 * its members live by: an unlocker without a fence among waiters without
 * membarrier would lose kicks, and is refused at attach.
 *
 * One membarrier serves the whole contended episode.  slow is 1 when raised and
 * 2, armed, once a membarrier has followed: a waiter that finds it armed knows
 * that every unlocker whose store it can't see will find slow set; that unlocker
 * fences in plk_serve_next before it looks at channels and tombstones, against
 * the waiter's own read-modify-write of `parked`.  Only a waiter arms, because its
 * ticket is outstanding: until it is served no holder can find tail == t + 1 and
 * clear slow under it (S1).  A leaver's ticket may be passed at any time; it pays
 * for its own membarrier and arms nothing. */
#include "hv/barrier.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PLK_SLOW_RAISED = 1, PLK_SLOW_ARMED = 2 };

static int plk_membarrier_registered;

static int plk_membarrier(int command)
{
    int saved = errno, rc = (int)syscall(SYS_membarrier, command, 0, 0);

    rc = rc < 0 ? -errno : rc;
    errno = saved;
    return rc;
}

int plk_membarrier_works(void)
{
    int commands = plk_membarrier(MEMBARRIER_CMD_QUERY);
    int needed = MEMBARRIER_CMD_GLOBAL_EXPEDITED | MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED;

    return commands > 0 && (commands & needed) == needed;
}

int plk_membarrier_register(void)
{
    int rc = plk_membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED);

    if (rc == 0)
        plk_membarrier_registered = 1;
    return rc;
}

void plk_membarrier_forked(void)
{
    if (plk_membarrier_registered)
        plk_membarrier_register();
}

void plk_barrier_heavy(struct plk_segment *s)
{
    PLK_FENCE();
    if (s->barrier == PLK_BARRIER_MEMBARRIER)
        plk_membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED);
}

void plk_slow_raise(struct plk_segment *s, struct plk_cell *cell)
{
    uint32_t raised = PLK_SLOW_RAISED;

    if (s->barrier != PLK_BARRIER_MEMBARRIER) {
        PLK_STORE(&cell->slow, PLK_SLOW_RAISED);
        PLK_FENCE();
        return;
    }
    if (PLK_LOAD(&cell->slow) != PLK_SLOW_ARMED) {
        PLK_STORE(&cell->slow, PLK_SLOW_RAISED);
        plk_barrier_heavy(s);
        __atomic_compare_exchange_n(&cell->slow, &raised, PLK_SLOW_ARMED, 0, __ATOMIC_SEQ_CST,
                                    __ATOMIC_RELAXED);
    }
    PLK_FENCE();
}
