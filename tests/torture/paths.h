/* paths.h - what is killed at every instruction. */
#ifndef TORTURE_PATHS_H
#define TORTURE_PATHS_H

#include "torture.h"

/* One act of a script; the tracer sees to it that it is done before the next. */
enum act {
    END,
    A_HOLDS, A_RELEASES, A_RECOVERS, C_HOLDS_M, C_RELEASES,
    B_WAITS, C_WAITS,
    A_LEAVES, B_LEAVES,
    B_FREEZES, C_FREEZES, /* stopped by a signal until the victim is about to be killed */
    C_KEEPS_STILL, /* the same where waiters do not sleep anyway */
    CORPSE_COMES, CORPSE_HOLDS, CORPSE_WAITS, CORPSE_ANNOUNCES, CORPSE_DRAWS, CORPSE_HANDS_OVER,
    CORPSE_MARKS, CORPSE_MOVES_HEAD, CORPSE_NESTS, CORPSE_GUARDS,
    CORPSE_DIES,
    /* of a bounded lock */
    TIME_COMES,    /* for a promotion */
    SPINNER_CALLS, /* one that spins says so */
    SPINNER_DIED,  /* long ago, leaving its mark */
    IS_PROMOTED,   /* the first in the queue, by one who did not come to kick it */
    B_GETS_ON,     /* is through with the lock */
    A_PASSES, C_PASSES, /* takes the lock and releases it */
};

/* When the path's `event` happens, once a run. */
enum moment {
    NEVER,
    ASLEEP,  /* the victim sleeps; where it yields instead: it has looked around in vain */
    SPINNING, /* at the gate of a bounded lock, if it is one */
    BURYING, /* its tombstone stands */
};

#define ACTS 8
#define REFUSES INT32_MIN /* the process ends itself: it returns nothing */

struct path {
    const char *name, *meaning;
    enum act before[ACTS];   /* before the victim exists */
    int (*prepare)(void);    /* in the victim, untraced; 0, or it refuses to go on */
    enum act begin[ACTS];    /* then */
    int (*traced)(void);     /* in the victim, instruction by instruction */
    int32_t rc;              /* what that returns */
    enum moment moment;      /* once, while it goes on: */
    enum act event[ACTS];
    void (*finish)(void);    /* in a victim that was not killed */
    int inside_first, inside_last; /* of lock L, before the first and after the last instruction */
    const char *prior; /* another victim dies on the path of this name before; NULL: none */
    int linger_ms; /* the victim stands still for so long before it is killed */
    int c_wants_m; /* C queues for M when the victim is about to be killed, and not for L */
    uint32_t policy; /* enum plk_policy: of lock L */
};

/* bounded.c: the victim's side of the paths of a bounded lock; as the fields of their names. */
int held_to_look(void);    /* holds L, and looks at the clock as it leaves */
int comes_to_queue(void);  /* has a ticket of the queue, or holds it */
int gone_from_queue(void); /* queued up and left */
int acquire_bounded(void);
int release_bounded(void);
int give_up_bounded(void);
int go_on(void);       /* from the queue */
int give_up_there(void);
int watch_queue(void);
int nest_there(void);
void go_on_and_unlock(void);
void unlock_victim(void); /* it is inside of L */

extern const struct path paths[];
extern const unsigned path_count;

/* The victim's life, from its birth to its end. */
void be_victim_of(const struct path *path) __attribute__((noreturn));

#endif
