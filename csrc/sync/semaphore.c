/* sync/semaphore.c - permits that belong to nobody: whoever takes one, any other thread may give it back.
 *
 * The state of the word is how many there are.  Who takes or gives does it by compare-and-swap, whoever
 * has the guard; a thread that dies has taken what it took. */
#include "sync/sync.h"

static int plk_semaphore_can(uint64_t word) { return (word & PLK_SYNC_STATE) != 0; }

static int plk_semaphore_attempt(struct plk_at *at, struct plk_node *node, int called)
{
    (void)node;
    return plk_permit_take(at->sync, called);
}

static int plk_semaphore_quick(struct plk_sync_wait *w)
{
    uint32_t turns = w->ref->guard.domain->spin_turns;

    PLK_SITE_FRAME();
    for (;;) {
        if (plk_permit_take(w->ref->sync, 1) == 0)
            return 0;
        if (turns-- == 0)
            return -EAGAIN;
        PLK_CPU_RELAX();
    }
}

static void plk_semaphore_settle(struct plk_at *at) { plk_settle_calling(at, plk_semaphore_can); }

static void plk_semaphore_tell(const struct plk_sync *copy, struct plk_told *told)
{
    told->value = copy->word & PLK_SYNC_STATE;
    told->of = copy->initial & PLK_SYNC_STATE;
}

/* bounded: `limit` of its record says how many there can be (plk_permit_give). */
#define PLK_SEMAPHORE                                                                            \
    .attempt = plk_semaphore_attempt, .quick = plk_semaphore_quick, .settle = plk_semaphore_settle, \
    .tell = plk_semaphore_tell

const struct plk_kind_ops plk_kind_semaphore = {PLK_SEMAPHORE};
const struct plk_kind_ops plk_kind_bounded = {PLK_SEMAPHORE};
