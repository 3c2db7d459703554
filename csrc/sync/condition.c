/* sync/condition.c - condition variables: who waits is told, in order of arrival.
 *
 * A notify is a promise to those who wait at that time: to all of them (`until` of the record, an arrival
 * number), or to the first `PROMISED` of those that arrived before `EARLIER`.  It is noted first and kept
 * by settle, so one who dies at it has notified as many as was noted, or nobody.  The number is lowered after
 * the grant: should somebody die in between, one more is woken, and none too few.
 *
 * A grant whose thread died before it saw it goes on to the next one who waited at the time of that notify.
 *
 * That no notify falls between the decision to wait and the wait is the mutex's affair: the waiter queues
 * while it has it (fast/condition.c), so who notifies with the mutex finds it here, and WAITERS in the word. */
#include "sync/sync.h"

#define PLK_PROMISED data[0]
#define PLK_EARLIER data[1]
#define PLK_MUTEX data[2]       /* its lock, cell index + 1; 0: not known yet */
#define PLK_TOLD_BEFORE data[1] /* of a node: EARLIER of the notify that it was granted for */

/* Nothing to be had on arrival. */
static int plk_condition_attempt(struct plk_at *at, struct plk_node *node, int called)
{
    (void)at;
    (void)node;
    (void)called;
    return -EAGAIN;
}

static void plk_condition_settle(struct plk_at *at)
{
    struct plk_sync *sync = at->sync;
    struct plk_node *node;

    while ((node = plk_at_first(at, 1)) != NULL && node->arrival < sync->until) {
        PLK_STORE(&node->PLK_TOLD_BEFORE, sync->until);
        if (plk_grant(at, node, 0) != 0)
            return;
    }
    while (sync->PLK_PROMISED != 0 && (node = plk_at_first(at, 1)) != NULL && node->arrival < sync->PLK_EARLIER) {
        PLK_STORE(&node->PLK_TOLD_BEFORE, sync->PLK_EARLIER);
        if (plk_grant(at, node, 0) != 0)
            return;
        PLK_STORE(&sync->PLK_PROMISED, sync->PLK_PROMISED - 1);
    }
    PLK_STORE(&sync->PLK_PROMISED, 0); /* there were not so many */
    PLK_STORE_RELEASE(&sync->word, sync->queued != 0 ? PLK_SYNC_WAITERS : 0);
}

static void plk_condition_promise(struct plk_sync *sync, uint64_t n, uint64_t earlier)
{
    if (sync->PLK_PROMISED == 0 || earlier > sync->PLK_EARLIER) /* nothing pending: the last one's is stale */
        PLK_STORE(&sync->PLK_EARLIER, earlier);
    PLK_STORE(&sync->PLK_PROMISED, sync->PLK_PROMISED + n);
}

static void plk_condition_dead(struct plk_at *at, struct plk_node *node)
{
    if (PLK_LOAD(&node->state) == PLK_NODE_GRANTED)
        plk_condition_promise(at->sync, 1, PLK_LOAD(&node->PLK_TOLD_BEFORE));
}

static int plk_condition_act(struct plk_at *at, uint32_t what, uint64_t value)
{
    struct plk_sync *sync = at->sync;

    if (what == PLK_ACT_NOTIFY)
        plk_condition_promise(sync, value, sync->arrivals);
    else if (what == PLK_ACT_NOTIFY_ALL)
        PLK_STORE(&sync->until, sync->arrivals);
    else if (what == PLK_ACT_PAIR) {
        if (sync->PLK_MUTEX == 0)
            PLK_STORE(&sync->PLK_MUTEX, value);
        return (int)(sync->PLK_MUTEX & INT32_MAX);
    } else
        return -EINVAL;
    return 0;
}

static void plk_condition_tell(const struct plk_sync *copy, struct plk_told *told)
{
    told->lock = (uint32_t)copy->PLK_MUTEX;
}

const struct plk_kind_ops plk_kind_condition = {.attempt = plk_condition_attempt,
                                                .settle = plk_condition_settle,
                                                .dead = plk_condition_dead,
                                                .act = plk_condition_act,
                                                .tell = plk_condition_tell};
