/* sync/event.c - it has happened, or not yet.
 *
 * The state of the word is PLK_EVENT_SET or 0.  Who sets it while somebody waits notes in `until` for whom
 * that is, then sets the word, then grants them: from the note on it is done for all of them, whoever
 * dies, and even if it is cleared at once. */
#include "sync/sync.h"

static int plk_event_attempt(struct plk_at *at, struct plk_node *node, int called)
{
    (void)node;
    (void)called;
    return plk_event_is_set(at->sync) ? 0 : -EAGAIN;
}

static void plk_event_settle(struct plk_at *at)
{
    struct plk_sync *sync = at->sync;
    struct plk_node *node;
    uint64_t word;

    do {
        word = PLK_LOAD(&sync->word);
        if ((word & PLK_EVENT_SET) != 0)
            sync->until = sync->arrivals; /* set by one who saw nobody wait, or died before it noted for whom */
        while ((node = plk_at_first(at, 1)) != NULL && node->arrival < sync->until) {
            if (plk_grant(at, node, 0) != 0)
                return;
        }
    } while (!__atomic_compare_exchange_n(
        &sync->word, &word,
        (word & PLK_SYNC_STATE) | (sync->queued != 0 ? PLK_SYNC_WAITERS : 0), 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
}

static int plk_event_act(struct plk_at *at, uint32_t what, uint64_t value)
{
    (void)value;
    if (what != PLK_ACT_SET)
        return -EINVAL;
    at->sync->until = at->sync->arrivals;
    __atomic_fetch_or(&at->sync->word, PLK_EVENT_SET, __ATOMIC_SEQ_CST);
    return 0;
}

static void plk_event_tell(const struct plk_sync *copy, struct plk_told *told)
{
    told->mode = (copy->word & PLK_EVENT_SET) != 0 ? PLK_MODE_SET : PLK_MODE_USUAL;
}

const struct plk_kind_ops plk_kind_event = {.attempt = plk_event_attempt,
                                            .settle = plk_event_settle,
                                            .act = plk_event_act,
                                            .tell = plk_event_tell};
