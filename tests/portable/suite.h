/* suite.h - what the checks of suite.c stand on: a domain, locks of it, limits of waiting. */
#ifndef PORTABLE_SUITE_H
#define PORTABLE_SUITE_H

#include <pylocks.h>

#include <pthread.h>
#include <stdio.h>

#include "hv/attach.h"
#include "hv/barrier.h"
#include "hv/directory.h"
#include "hv/futex.h"
#include "patch/patch.h"

/* One way in which a process can be set up. */
struct way {
    const char *name; /* of the slow path */
    uint32_t choice, barrier;
    int native, patch;
};

/* Memory that all processes of a run share. */
struct shared {
    uint64_t counter, begun, done;
    uint32_t entered, inside, passed;
    uint32_t order[64];
};

extern struct shared *shared;
extern struct plk_segment *segment;
extern const char *now_checking, *now_way; /* for messages */

/* End with a message unless it is so. */
void must(int ok, const char *what);

void share(void);

/* Every sound slow path, patched and not; *count of them. */
const struct way *all_ways(uint32_t *count);

/* Choose, and make the domain. */
void set_up(const struct way *way);

struct plk_lock fresh_lock(uint32_t policy);

/* Let the others run. */
void breathe(void);

/* How many tickets have been taken so far, the queue's of a bounded lock among them. */
uint64_t tickets(const struct plk_lock *lock);

/* The kernel marks the words of threads that die. */
int have_robust_futexes(void);

/* This processor has patch sites. */
int plk_patcher(void);

#endif
