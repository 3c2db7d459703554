/* mortal.h - threads that use a semaphore or its like are killed before each of their instructions.
 *
 * One process, the judge, makes an object and forks the others: helpers, who wait for it, and the victim, which it
 * steps through one path instruction by instruction and kills at one of them.  Then the helpers must get on, and
 * what the object has to give must be right, to a permit.  Once for each instruction of the path, or for
 * so many of them. */
#ifndef MORTAL_H
#define MORTAL_H

#include <pylocks.h>

#include "recover/segment.h"

#define HELPERS 2

/* Shared by all processes of a trial. */
struct scene {
    uint32_t done[HELPERS];   /* it has got what it waited for, and given it back */
    int32_t result[HELPERS];  /* of its wait */
    uint32_t given;           /* permits that the judge has put there since the victim exists */
    int32_t victim_rc;
};

enum come { BEFORE, BEHIND, AFTER }; /* the victim exists; it is prepared; it is dead */

/* One path; what a function does is said in paths.c. */
struct path {
    const char *name;
    uint32_t kind;
    uint64_t initial, limit;
    int helpers;
    enum come come;           /* when these queue up */
    void (*before)(void);     /* in the judge, before all */
    int (*prepare)(void);     /* in the victim, before it is traced; 0 */
    void (*begun)(void);      /* in the judge, then */
    int (*traced)(void);      /* in the victim, instruction by instruction */
    void (*asleep)(void);     /* in the judge, once, when the victim sleeps */
    void (*dead)(void);       /* in the judge, when it has been killed */
    int least, most;          /* permits there may be in the end, besides the first and those that the judge gave */
    uint64_t victim_wants, helper_wants; /* of an RW lock */
    int corpse;               /* another thread has died before, with the guard, at giving one */
};

extern struct scene *scene;
extern struct plk_segment *segment;
extern struct plk_ref object;
extern const struct path paths[];
extern const unsigned path_count;
extern uint64_t wants; /* by this process, of the object */

/* Of any process of a trial. */
struct plk_seat *seat_of_mine(void);
int take_within(uint64_t ns, int32_t *result); /* what api->wait returns */
int give_back(uint64_t n);                     /* 0 */
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void until_queued(uint32_t count);

#endif
