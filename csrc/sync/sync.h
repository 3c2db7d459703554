/* sync/sync.h - the engine of semaphores, events and their like, and how a kind plugs into it.
 *
 * A new kind is a row in PLK_KINDS (pylocks/sync.h) and a file, sync/NAME.c, that defines
 *
 *     const struct plk_kind_ops plk_kind_NAME = { ... };
 *
 * Its functions run with the guard held, in the core, without the GIL, for some tens of ns: they do not
 * sleep, allocate or call Python.  Whoever holds the guard may die at any instruction.  The next one that
 * gets it has the queue rebuilt from the nodes, then calls `repair`, before it does anything else; so a
 * kind must be able to tell from the word, its data and the nodes what was under way.  What can be told
 * from the nodes needs no repair: recompute it in `settle`.
 *
 * How a wait goes (sync/wait.c).  A thread's node is QUEUED, unless `attempt` gives it at once what it
 * wants.  From then on a kind may do one of two things to those who wait:
 *
 *   plk_grant    what it waits for has happened: it leaves the queue with a result, which api->wait returns.
 *                If it dies before it has seen that, `dead` is told: pass on what it can't use.
 *   plk_call     it may try: it wakes and tries `quick` without the guard, then `attempt` with it.  Newcomers
 *                may have been quicker; then it is QUEUED again, in its old place.
 *
 * What a thread holds (permits that come back, a read lock) is a node, too, in state HELD: where
 * `attempt` sets at->holds, the node that waited becomes one, and is the thread's until plk_node_drop.  `dead` is told of it if the
 * thread dies.  Where `holds` is set, whoever is granted gets such a node; until its thread has seen
 * that, the node is GRANTED, and that counts as held. */
#ifndef PLK_SYNC_SYNC_H
#define PLK_SYNC_SYNC_H

#include "recover/segment.h"
#include "sync/copy.h"

#define PLK_WAKES 32u
#define PLK_KEPT_NS 1000000000u /* who has the guard so long does not run: it is stopped, or nobody */

/* One stretch with the guard held. */
struct plk_at {
    struct plk_segment *s;
    struct plk_ref *ref;
    struct plk_sync *sync;
    struct plk_seat *seat; /* of this thread */
    const struct plk_kind_ops *kind;
    uint64_t id;           /* index of the record, + 1 */
    uint32_t epoch;        /* generation of the cell */
    uint32_t wakes;        /* how many of `wake` are to be woken when the guard is free */
    int more;              /* settle has not come to an end: do it again */
    int holds;             /* the node that has just got what it wants becomes HELD */
    uint32_t *wake[PLK_WAKES];
};

struct plk_kind_ops {
    int holds; /* 1: nodes of the granted become HELD */
    /* Give it what it wants: 0, and node->result and at->holds may have been set; else -EAGAIN, and it is
     * queued, or stays so; or another negative errno, and it is not.  called: it has been called; else a newcomer,
     * in state FREE, and in no queue yet. */
    int (*attempt)(struct plk_at *at, struct plk_node *node, int called);
    /* The same for one that is called, without the guard: 0 or -EAGAIN.  NULL: there is no such way. */
    int (*quick)(struct plk_sync_wait *w);
    /* Who waits has changed, or the word has: set the word's flags, call or grant who is to be. */
    void (*settle)(struct plk_at *at);
    /* The thread of the node is dead; the node, as it left it, is about to be freed, and is in no queue
     * any more.  NULL: that concerns nobody. */
    void (*dead)(struct plk_at *at, struct plk_node *node);
    /* A thread died with the guard; the queue is in order again.  settle follows.  NULL: nothing to do. */
    void (*repair)(struct plk_at *at);
    /* Look for the deaths of others than waiters, as often as those.  Nonzero: something has changed;
     * settle follows.  NULL: there are none. */
    int (*look)(struct plk_at *at);
    /* plk_act but for PLK_ACT_SETTLE; settle follows.  -EINVAL: knows no such thing. */
    int (*act)(struct plk_at *at, uint32_t what, uint64_t value);
    /* What a copy of its record says, for observers; `told` is 0, but for owner_died.  Not with the guard, and
     * whatever may lie in it. */
    void (*tell)(const struct plk_sync *copy, struct plk_told *told);
};

/* Row `kind` of the table, and what people call it; NULL: there is none. */
const struct plk_kind_ops *plk_kind_of(uint32_t kind);
const char *plk_kind_name(uint32_t kind);

/* ------------------------------------------------- for kinds (sync/queue.c) */

/* The first in the queue that may be called or granted (QUEUED; with aside: or ASIDE), or the next behind
 * `node`; NULL: none.  The dead are taken out on the way. */
struct plk_node *plk_at_first(struct plk_at *at, int aside);
struct plk_node *plk_at_next(struct plk_at *at, struct plk_node *node, int aside);

/* It leaves the queue; its wait returns `result` (not negative).  0; 1: not done, for this stretch has woken
 * as many as it can.  Then leave off: settle is called again, in another one. */
int plk_grant(struct plk_at *at, struct plk_node *node, int32_t result);

/* What of the word is flags, given who waits: WAITERS, and CALLED if somebody is called, RESERVED if nobody
 * else may take.  `can`: there is something to take.  Then who is next is called, if nobody is: the caller
 * puts the flags into the word, in one step with the look at it that told `can`, and
 * then calls plk_call_next.  *next: whom; NULL: nobody. */
uint64_t plk_at_flags(struct plk_at *at, int can, struct plk_node **next);
void plk_call_next(struct plk_at *at, struct plk_node *next);

/* settle for a kind of which one takes what another gives: `can` tells it from the word. */
void plk_settle_calling(struct plk_at *at, int (*can)(uint64_t word));

/* This thread's node in state HELD of the object; NULL: none. */
struct plk_node *plk_node_held(struct plk_at *at);
/* It holds nothing any more. */
void plk_node_drop(struct plk_at *at, struct plk_node *node);

/* visit(at, node, alive, arg) for each node of the object that is not FREE, in no order. */
typedef void plk_visit(struct plk_at *at, struct plk_node *node, int alive, void *arg);
void plk_nodes_visit(struct plk_at *at, plk_visit *visit, void *arg);

/* ---------------------------------------------- of the engine (sync/guard.c) */

/* With the guard from here to plk_at_leave.  0; -ETIMEDOUT: somebody keeps it, it is later than `until`
 * (CLOCK_MONOTONIC ns; PLK_FOREVER: never), and PLK_KEPT_NS have passed; or another negative errno. */
int plk_at_enter(struct plk_at *at, struct plk_ref *ref, struct plk_seat *seat, uint64_t until);
/* settle: call the kind's first. */
void plk_at_leave(struct plk_at *at, int settle);
/* Wake its thread when the guard is free. */
void plk_at_wake(struct plk_at *at, struct plk_node *node);
/* Take the dead out, wake again who has been called or granted; not more often than every few milliseconds.
 * Nonzero: looked. */
int plk_at_sweep(struct plk_at *at);

/* ---------------------------------------------- of the engine (sync/node.c, sync/queue.c) */

int plk_node_alive(const struct plk_segment *s, const struct plk_node *node);
uint64_t plk_node_number(const struct plk_segment *s, const struct plk_node *node);
/* One that this thread does not use, in state FREE.  0; -ENOBUFS: it uses all; -ENOSPC. */
int plk_node_take(struct plk_ref *ref, struct plk_seat *seat, struct plk_node **node);
void plk_node_free(struct plk_segment *s, struct plk_seat *seat, struct plk_node *node);
/* Without the guard: it is a dead thread's from now on. */
void plk_node_desert(struct plk_segment *s, struct plk_seat *seat, struct plk_node *node);

void plk_queue_add(struct plk_at *at, struct plk_node *node);
void plk_queue_remove(struct plk_at *at, struct plk_node *node);
void plk_queue_rebuild(struct plk_at *at);
/* Its thread is dead: out of the queue, the kind is told, and it is free. */
void plk_queue_bury(struct plk_at *at, struct plk_node *node);

/* -------------------------------------------------------------- for plk_api */

extern const struct plk_sync_api plk_the_sync_api;
int plk_sync_begin(struct plk_sync_wait *w);
int plk_sync_wait(struct plk_sync_wait *w);
int plk_sync_leave(struct plk_sync_wait *w);
void plk_sync_aside(struct plk_sync_wait *w);
int plk_sync_back(struct plk_sync_wait *w);

/* Free the nodes of all dead threads in the domain, whatever object they are of.  How many there were. */
int plk_sync_recover(struct plk_segment *s);

/* Who holds the object now: how many, in rows[0 to most - 1]; or as api->init. */
struct plk_holder {
    uint32_t vcpu;
    int32_t pid, tid;
    uint32_t want; /* enum plk_want, or the kind's own */
    uint32_t alive;
};
int64_t plk_sync_holders(struct plk_segment *s, uint32_t index, uint32_t kind, struct plk_holder *rows,
                         uint32_t most);

#endif
