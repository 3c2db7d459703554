/* sync/barrier.c - barriers: `limit` threads go on together, or are all told that they won't.
 *
 * Whoever comes takes an arrival number.  The numbers of those who wait now begin at BASE, and nobody who
 * still waits may be missing: a gap in the queue is a thread that gave up or died, and breaks the barrier for
 * the others.  So whether it is broken follows from the queue, and is seen in the same stretch in which the
 * gap arises.
 *
 *   word 0                          those from BASE on wait
 *   word PLK_BARRIER_ACTING         they are all there; ACTOR, the last of them, runs the action first, and
 *                                   is not in the queue.  Who comes now waits for the next time
 *   word PLK_BARRIER_BROKEN         nobody waits, until it is reset
 *
 * Those below `until` have passed, and those between that and BASE have been told that it broke; settle grants
 * whoever of them is still in the queue.  Who dies with the guard was at something here: repair breaks it.  A
 * thread that dies with its grant is no concern of the others, who have gone on. */
#include "sync/sync.h"

#include "recover/life.h"

#define PLK_BASE data[0]
#define PLK_ACTOR data[1]    /* PLK_MUTEX_HOLDER */
#define PLK_TOGETHER data[2] /* arrivals below it pass when ACTOR has acted */
#define PLK_VICTIM data[3]   /* who died and broke it: pid << 32 | tid, 0: nobody, or not known */

static uint64_t plk_barrier_parties(const struct plk_sync *sync)
{
    return sync->limit != 0 ? sync->limit : 1; /* 0 has been written over it */
}

static uint64_t plk_barrier_base(const struct plk_sync *sync)
{
    return sync->PLK_BASE > sync->until ? sync->PLK_BASE : sync->until;
}

static void plk_barrier_clear(struct plk_sync *sync, uint64_t word)
{
    PLK_STORE(&sync->PLK_BASE, sync->arrivals);
    PLK_STORE_RELEASE(&sync->word, word);
}

static void plk_barrier_break(struct plk_at *at)
{
    if ((PLK_LOAD(&at->sync->word) & PLK_BARRIER_BROKEN) == 0)
        plk_barrier_clear(at->sync, PLK_BARRIER_BROKEN);
}

static void plk_barrier_died(struct plk_at *at, const struct plk_vcpu *v)
{
    uint64_t who = v != NULL ? (uint64_t)(uint32_t)PLK_LOAD(&v->pid) << 32 | (uint32_t)PLK_LOAD(&v->tid) : 0;

    if ((PLK_LOAD(&at->sync->word) & PLK_BARRIER_BROKEN) == 0)
        PLK_STORE(&at->sync->PLK_VICTIM, who);
    plk_barrier_break(at);
}

/* The last of them is there: they pass, or `actor` acts first. */
static int32_t plk_barrier_full(struct plk_at *at, uint64_t until, const struct plk_vcpu *actor, uint64_t tag,
                                int acts)
{
    if (!acts) {
        PLK_STORE(&at->sync->until, until);
        return (int32_t)plk_barrier_parties(at->sync) - 1;
    }
    PLK_STORE(&at->sync->PLK_TOGETHER, until);
    PLK_STORE(&at->sync->PLK_ACTOR, PLK_MUTEX_HOLDER(PLK_LOAD(&actor->generation), tag));
    PLK_STORE_RELEASE(&at->sync->word, PLK_BARRIER_ACTING);
    return PLK_BARRIER_ACT;
}

/* Take out the dead who wait; that breaks it. */
static void plk_barrier_census(struct plk_at *at)
{
    struct plk_node *node = plk_at_first(at, 1);

    while (node != NULL)
        node = plk_at_next(at, node, 1);
}

/* With one more they would all be there, and none that waits is one who has been let go. */
static int plk_barrier_last(struct plk_at *at)
{
    struct plk_sync *sync = at->sync;
    uint64_t base = plk_barrier_base(sync);
    struct plk_node *first;

    if (PLK_LOAD(&sync->word) != 0 || sync->arrivals - base + 1 < plk_barrier_parties(sync))
        return 0;
    first = plk_at_first(at, 1);
    return first == NULL || first->arrival >= base;
}

static int plk_barrier_attempt(struct plk_at *at, struct plk_node *node, int called)
{
    struct plk_sync *sync = at->sync;
    int last = plk_barrier_last(at);

    (void)called;
    if (last)
        plk_barrier_census(at);
    if ((PLK_LOAD(&sync->word) & PLK_BARRIER_BROKEN) != 0) {
        PLK_STORE(&node->result, PLK_BARRIER_BREACH);
        return 0;
    }
    if (!last)
        return -EAGAIN;
    PLK_STORE(&sync->arrivals, sync->arrivals + 1);
    PLK_STORE(&node->result,
              plk_barrier_full(at, sync->arrivals, at->seat->vcpu, at->seat->tag, node->data[0] != 0));
    return 0;
}

/* Those who came while others acted may be enough, all of them alive.  Nonzero: they are on their way. */
static int plk_barrier_next(struct plk_at *at)
{
    struct plk_sync *sync = at->sync;
    uint64_t last = plk_barrier_base(sync) + plk_barrier_parties(sync) - 1, vcpu;
    struct plk_node *node = plk_at_first(at, 1);

    while (node != NULL && node->arrival < last)
        node = plk_at_next(at, node, 1);
    if (PLK_LOAD(&sync->word) != 0)
        return 1; /* somebody was dead */
    if (node == NULL || node->arrival != last)
        return 0;
    vcpu = plk_node_number(at->s, node) / PLK_NODES;
    if (plk_barrier_full(at, last + 1, plk_vcpu_at(at->s, vcpu), vcpu + 1, node->data[0] != 0) == PLK_BARRIER_ACT)
        plk_grant(at, node, PLK_BARRIER_ACT);
    return 1;
}

/* Grant all whose fate is decided; the place of one who passes is that in its group.  Nonzero: not all, yet. */
static int plk_barrier_let_go(struct plk_at *at)
{
    struct plk_sync *sync = at->sync;
    uint64_t base = plk_barrier_base(sync), parties = plk_barrier_parties(sync);
    struct plk_node *node;

    while ((node = plk_at_first(at, 1)) != NULL && node->arrival < base) {
        uint64_t behind = sync->until - 1 - node->arrival;
        int passes = node->arrival < sync->until;

        if (plk_grant(at, node, passes ? (int32_t)(parties - 1 - behind % parties) : PLK_BARRIER_BREACH) != 0)
            return 1;
    }
    return 0;
}

/* While one acts: is one of those missing who are to pass with it?  Who came later waits for the next time. */
static int plk_barrier_gap(struct plk_at *at)
{
    uint64_t missing = at->sync->PLK_TOGETHER - plk_barrier_base(at->sync) - 1;
    struct plk_node *node = plk_at_first(at, 1);

    for (; missing != 0 && node != NULL && node->arrival < at->sync->PLK_TOGETHER; missing--)
        node = plk_at_next(at, node, 1);
    return missing != 0;
}

static void plk_barrier_settle(struct plk_at *at)
{
    struct plk_sync *sync = at->sync;
    uint32_t groups;

    /* Each turn grants somebody, but for two; what lies in shared memory may say otherwise. */
    for (groups = 0; groups < PLK_WAKES + 2; groups++) {
        uint64_t word, waiting;

        if (plk_barrier_let_go(at) != 0)
            return;
        if (at->wakes == PLK_WAKES) {
            at->more = 1;
            return;
        }
        word = PLK_LOAD(&sync->word);
        waiting = sync->arrivals - plk_barrier_base(sync) - ((word & PLK_BARRIER_ACTING) != 0);
        if ((word & PLK_BARRIER_BROKEN) != 0)
            return;
        if ((word & PLK_BARRIER_ACTING) != 0 ? plk_barrier_gap(at) : sync->queued < waiting)
            plk_barrier_break(at);
        else if (word != 0 || waiting < plk_barrier_parties(sync) || !plk_barrier_next(at))
            return;
    }
}

static void plk_barrier_dead(struct plk_at *at, struct plk_node *node)
{
    const struct plk_vcpu *v = plk_vcpu_at(at->s, plk_node_number(at->s, node) / PLK_NODES);
    uint32_t state = PLK_LOAD(&node->state);

    if ((state == PLK_NODE_QUEUED || state == PLK_NODE_ASIDE) && node->arrival >= plk_barrier_base(at->sync) &&
        (PLK_LOAD(&at->sync->word) != PLK_BARRIER_ACTING || node->arrival < at->sync->PLK_TOGETHER))
        plk_barrier_died(at, plk_life_of(v) != PLK_LIFE_ALIVE ? v : NULL); /* else deserted, or the slot is another's */
}

static void plk_barrier_repair(struct plk_at *at) { plk_barrier_died(at, NULL); }

static int plk_barrier_look(struct plk_at *at)
{
    uint64_t actor = at->sync->PLK_ACTOR;
    const struct plk_vcpu *v = plk_vcpu_at(at->s, PLK_MUTEX_VCPU(actor));

    if (PLK_LOAD(&at->sync->word) != PLK_BARRIER_ACTING)
        return 0;
    if (v != NULL && PLK_LOAD_ACQUIRE(&v->state) == PLK_VCPU_ONLINE &&
        (uint32_t)PLK_LOAD(&v->generation) == PLK_MUTEX_GENERATION(actor) && plk_life_of(v) == PLK_LIFE_ALIVE)
        return 0;
    plk_barrier_died(at, v);
    return 1;
}

static int plk_barrier_act(struct plk_at *at, uint32_t what, uint64_t value)
{
    struct plk_sync *sync = at->sync;
    uint64_t me = PLK_MUTEX_HOLDER(PLK_LOAD(&at->seat->vcpu->generation), at->seat->tag);

    (void)value;
    switch (what) {
    case PLK_ACT_PASS:
        if (PLK_LOAD(&sync->word) != PLK_BARRIER_ACTING || sync->PLK_ACTOR != me)
            return -EPIPE; /* broken or reset meanwhile */
        PLK_STORE(&sync->until, sync->PLK_TOGETHER);
        PLK_STORE_RELEASE(&sync->word, 0);
        return 0;
    case PLK_ACT_BREAK:
        plk_barrier_break(at);
        return 0;
    case PLK_ACT_RESET:
        PLK_STORE(&sync->PLK_VICTIM, 0);
        plk_barrier_clear(sync, 0);
        return 0;
    default:
        return -EINVAL;
    }
}

static void plk_barrier_tell(const struct plk_sync *copy, struct plk_told *told)
{
    uint64_t word = copy->word & PLK_SYNC_STATE;

    told->of = copy->limit;
    if (word == PLK_BARRIER_BROKEN) {
        told->mode = PLK_MODE_BROKEN;
        return;
    }
    told->value = copy->arrivals - plk_barrier_base(copy);
    if (word != PLK_BARRIER_ACTING)
        return;
    told->mode = PLK_MODE_ACTING;
    told->value = copy->limit;
    told->holder = PLK_MUTEX_VCPU(copy->PLK_ACTOR) + 1;
    told->generation = PLK_MUTEX_GENERATION(copy->PLK_ACTOR);
}

const struct plk_kind_ops plk_kind_barrier = {.attempt = plk_barrier_attempt,
                                              .settle = plk_barrier_settle,
                                              .dead = plk_barrier_dead,
                                              .repair = plk_barrier_repair,
                                              .look = plk_barrier_look,
                                              .act = plk_barrier_act,
                                              .tell = plk_barrier_tell};
