/* torture.h - kill at every instruction.
 *
 * One process, the tracer, forks all others:
 *
 *   A, B, C   the crew: they live through many kills and do what they are told
 *   corpse    dies by itself in a given state, before the victim begins
 *   victim    goes through one path of the lock under ptrace and is killed at one
 *             point of it
 *
 * A path is what the victim executes between two int3 instructions, and a script
 * of what the others do meanwhile (paths.c).  First the tracer steps a victim
 * through the whole path and notes every instruction; then, once for each point
 * of it, a fresh victim is brought there with breakpoints and killed, and the
 * verdict is taken of the others and of the shared words (verdict.c).
 *
 * A point is an instruction that has not been executed yet: "killed at k" and
 * "killed after k - 1" are the same.  Instructions of loops lead nowhere new if
 * nothing shared has changed since their last execution; those are killed a
 * bounded number of times (trace.h). */
#ifndef TORTURE_H
#define TORTURE_H

#include <pylocks.h>

#include <stdio.h>
#include <sys/types.h>

#include "recover/segment.h"

enum { A, B, C, CREW, CORPSE = CREW, VICTIM, PARTIES };
enum { L, M, LOCKS };

#define LOG_ROOM 64u
#define NOBODY 0u /* in `inside`; else a party's number + 1 */

enum command {
    DO_NOTHING,
    DO_ENTER,     /* acquire the lock, stay inside for a moment, release it */
    DO_HOLD,      /* acquire it and stay inside */
    DO_RELEASE,
    DO_LEAVE,     /* queue up and abandon the ticket at once */
    DO_BOTH,      /* DO_ENTER of every lock in turn */
    DO_RECOVER,   /* what Domain.recover() does */
    /* what only a corpse does: half of something, with the rest left undone */
    DO_ANNOUNCE,  /* an acquisition, up to just before its xadd */
    DO_DRAW,      /* ... up to just after it */
    DO_HAND_OVER, /* a release, up to the store of head */
    DO_PASS_MARK, /* ... and on: the next ticket is abandoned, and marked as being passed */
    DO_PASS_HEAD, /* ... and head has moved past it */
    DO_NEST,      /* queue up, put that wait aside and hold the other lock */
    DO_GUARD,     /* take the domain mutex and begin to set up a slot */
};

struct party {
    pid_t pid;
    uint32_t slot; /* of its vCPU; UINT32_MAX: not registered */
    uint32_t order, answered; /* futex words: orders given and carried out */
    uint32_t command, lock;
    uint64_t watchdog_ns; /* to be used from this order on */
    int32_t rc;
    uint32_t entries; /* times it was inside a lock since the trial began */
};

/* Somebody entered; written while inside. */
struct entry {
    uint64_t ticket, at; /* CLOCK_MONOTONIC ns */
    uint32_t party, before; /* `before`: who seemed to be inside, as in `inside` */
    uint32_t lock;
    int32_t rc; /* of the acquisition */
    uint32_t died; /* the lock said that its last holder died inside */
};

/* Shared by all processes of one harness; not part of the domain. */
struct stage {
    struct party parties[PARTIES];
    uint32_t inside[LOCKS];
    uint32_t entries, faults;
    struct entry log[LOG_ROOM];
    char fault[160]; /* the first thing that a party itself found wrong */
    int32_t victim_rc;
};

/* What is broken on purpose, to show that it would be noticed. */
enum breakage {
    SOUND,
    BLIND, /* nobody watches over anybody */
    HELD,  /* the dead's slot does not say that it held anything */
    OWNER, /* the cell does not say whose it was */
};

struct config {
    const char *slow; /* lock_spinning's choice */
    int native;       /* it needs the native protocol */
    int sleeps;       /* a waiter is asleep once it has spun its budget */
    int patched;
    uint32_t barrier; /* enum plk_barrier */
    int rescue;       /* no waiter looks after the dead: one call of plk_recover must do */
    enum breakage breakage;
    double patience;  /* s without progress until the crew counts as stuck */
    int cpu;          /* for the tracer and its victims; -1: any */
    uint32_t policy;  /* enum plk_policy: of lock L in the present domain */
};

extern struct stage *stage;
extern struct plk_segment *segment;
extern struct plk_lock locks[LOCKS]; /* of this process; inherited by those it forks */
extern struct config config;

/* Of a bounded lock: time passes only when a script says so.  Else a waiter would go on to
 * the gate by itself, and nobody ever be found in the queue. */
#define LONG_AGO(now) ((now) - 5 * (uint64_t)PLK_BOUND_NS) /* late enough not to be left to a holder on one CPU */

/* setup.c */
int setup_ops(void);       /* once: choose and patch, as the configuration says */
int setup_domain(void);    /* a fresh domain, in place of the present one */
int setup_crew(void);      /* fork A, B and C */
void dismiss_crew(void);
pid_t fork_party(int who, void (*body)(void));
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* crew.c */
void serve_orders(int who) __attribute__((noreturn)); /* what a party forked by fork_party does */
int enter(uint32_t lock); /* acquire and note it in the log; returns the acquisition's rc */
int queue_and_leave(uint32_t lock); /* 0, or a negative errno */
void noted(uint32_t lock, int rc);
void leaving(uint32_t lock);
extern uint64_t crew_watchdog_ns; /* for orders given from now on */
void give(int who, enum command command, uint32_t lock);
int answered(int who);
int waits(int who); /* it is queued for a ticket that is not served, or first in the queue of L */
struct plk_vcpu *vcpu_of(int who);
int await(int who); /* 0; -ETIMEDOUT after config.patience */
int await_waiting(int who);

#endif
