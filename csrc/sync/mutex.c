/* sync/mutex.c - a lock that any thread may release, as multiprocessing's: who holds it is known all the same,
 * and if that thread dies, the lock is free, and the next to take it is told.
 *
 * The state of the word names the holder.  So taking, giving, and giving on behalf of the dead are one
 * compare-and-swap each, and there is nothing in between at which to die.  The holder is dead if its slot says
 * so, or is another thread's by now; a thread that ends while it holds is no different. */
#include "sync/sync.h"

#include "recover/life.h"

static int plk_mutex_can(uint64_t word) { return (word & PLK_SYNC_STATE) == 0; }

static int plk_mutex_holder_lives(const struct plk_segment *s, uint64_t word)
{
    const struct plk_vcpu *v = plk_vcpu_at(s, PLK_MUTEX_VCPU(word));

    return v != NULL && PLK_LOAD_ACQUIRE(&v->state) == PLK_VCPU_ONLINE &&
           PLK_LOAD(&v->generation) == PLK_MUTEX_GENERATION(word) && plk_life_of(v) == PLK_LIFE_ALIVE;
}

static int plk_mutex_look(struct plk_at *at)
{
    uint64_t word = PLK_LOAD(&at->sync->word);

    return (word & PLK_SYNC_STATE) != 0 && !plk_mutex_holder_lives(at->s, word) &&
           __atomic_compare_exchange_n(&at->sync->word, &word, (word & ~PLK_SYNC_STATE) | PLK_SYNC_OWNER_DIED, 0,
                                       __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

static int plk_mutex_attempt(struct plk_at *at, struct plk_node *node, int called)
{
    int rc;

    if (!called)
        plk_mutex_look(at);
    rc = plk_mutex_take(at->sync, at->seat, called);
    if (rc >= 0)
        PLK_STORE(&node->result, rc);
    return rc >= 0 ? 0 : rc;
}

static int plk_mutex_quick(struct plk_sync_wait *w)
{
    uint32_t turns = w->ref->guard.domain->spin_turns;
    int rc;

    PLK_SITE_FRAME();
    for (;;) {
        rc = plk_mutex_take(w->ref->sync, w->seat, 1);
        if (rc >= 0) {
            PLK_STORE(&w->node->result, rc);
            return 0;
        }
        if (turns-- == 0)
            return -EAGAIN;
        PLK_CPU_RELAX();
    }
}

static void plk_mutex_settle(struct plk_at *at) { plk_settle_calling(at, plk_mutex_can); }

static void plk_mutex_tell(const struct plk_sync *copy, struct plk_told *told)
{
    uint64_t holder = copy->word & PLK_SYNC_STATE;

    told->value = holder != 0;
    told->holder = PLK_MUTEX_VCPU(holder) + 1;
    told->generation = PLK_MUTEX_GENERATION(holder);
}

static void plk_rmutex_tell(const struct plk_sync *copy, struct plk_told *told)
{
    plk_mutex_tell(copy, told);
    if (told->value != 0)
        told->value += (uint32_t)copy->data[0];
}

/* rmutex: how often its holder has taken it is for fast/rmutex.c. */
#define PLK_MUTEX                                                                                \
    .attempt = plk_mutex_attempt, .quick = plk_mutex_quick, .settle = plk_mutex_settle, .look = plk_mutex_look

const struct plk_kind_ops plk_kind_mutex = {PLK_MUTEX, .tell = plk_mutex_tell};
const struct plk_kind_ops plk_kind_rmutex = {PLK_MUTEX, .tell = plk_rmutex_tell};
