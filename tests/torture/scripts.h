/* scripts.h - what the crew and the corpse are told to do, and what they are at. */
#ifndef TORTURE_SCRIPTS_H
#define TORTURE_SCRIPTS_H

#include "paths.h"

#define SETTLE_NS 100000000u /* that long at most until nobody moves any more */

enum doing { IDLE, BUSY, HOLDING };

extern enum doing doing[CREW];

/* The corpse of the present run. */
struct corpse {
    uint64_t died_at; /* CLOCK_MONOTONIC ns; 0: it lives, or there is none */
    unsigned inside;  /* locks, when it died */
};

extern struct corpse corpse_of_run;

/* Give an order and wait until it is carried out.  0 or a negative errno. */
int do_now(int who, enum command command, uint32_t lock);

/* Give one that may take until the victim is dead. */
void start(int who, enum command command, uint32_t lock);

/* In the wait loop; and asleep, where waiters sleep. */
int parked(int who);

int release(int who); /* by one that is HOLDING */
void thaw(int who);
void bury_corpse(void);

/* Act after act, each done before the next begins.  0 or a negative errno. */
int play(const enum act *acts);

#endif
