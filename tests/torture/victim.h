/* victim.h - one process under ptrace, and its vCPU as others see it. */
#ifndef TORTURE_VICTIM_H
#define TORTURE_VICTIM_H

#include "torture.h"

#include <signal.h>

enum outcome {
    REACHED, /* it stands at the point */
    ENDED,   /* the path was over before */
    GONE,    /* ... and the process with it */
    STUCK,   /* no progress within the patience */
    BROKEN,  /* stopped by a signal that has no place there */
};

/* The present one. */
struct victim {
    pid_t pid;        /* 0: none */
    uint64_t rip;     /* of the instruction that it has not executed yet */
    uint64_t through; /* in a library function that is stepped through: not 0 */
    int asleep;       /* in a futex call begun by a single step that has not ended */
};

extern struct victim victim;

struct breakpoint {
    uint64_t at;
    long word; /* what was there */
};

/* Why victims can't be stepped through here; NULL: they can. */
const char *victim_why_not(void);

enum outcome victim_begin(void); /* to its first trap: REACHED */
void victim_let_go(void); /* from its last trap on */
enum outcome victim_reap(int *status); /* GONE */
void victim_kill(void);

/* Execute one instruction.  May fall asleep: then the step is still under way, and
 * the next call waits for its end. */
enum outcome victim_step(void);

/* To the next breakpoint, behind it; then back before it. */
enum outcome victim_continue(void);
void victim_set_back(void);

void victim_plant(struct breakpoint *b, uint64_t at);
void victim_lift(const struct breakpoint *b);
int victim_at_end(void); /* of the path */

/* The victim's slot, if it is online; it is noted in stage->parties then. */
struct plk_vcpu *victim_vcpu(void);

/* Which locks a party is inside of: owner record valid, and pending cleared. */
unsigned party_inside(int who, const struct plk_vcpu *v);

int process_sleeps(pid_t pid);

extern volatile sig_atomic_t out_of_patience;
extern uint64_t thread_exit_at; /* address of the destructor that unregisters a thread; 0: unknown */

#endif
