/* hv/preempted.h - the side without privilege: find a monitor's marks, read them. */
#ifndef PLK_HV_PREEMPTED_H
#define PLK_HV_PREEMPTED_H

#include "hv/marks.h"
#include "recover/segment.h"

/* The inode of the pid namespace that the kernel boots with, PROC_PID_INIT_INO there:
 * only its thread ids are those that a monitor sees. */
#define PLK_FIRST_PID_NS 0xeffffffcull

/* What this process knows of a monitor. */
enum plk_monitor_state {
    PLK_MONITOR_UNSOUGHT = 0,
    PLK_MONITOR_ASKED = 1,    /* connected; the answer has not come yet */
    PLK_MONITOR_SEEN = 2,     /* alive, and its marks are mapped */
    PLK_MONITOR_NONE = 3,     /* nobody listens, or does not answer */
    PLK_MONITOR_STRANGER = 4, /* another user's process listens under its name */
    PLK_MONITOR_REFUSED = 5,  /* it hung up: this user is not the one that it serves */
    PLK_MONITOR_UNLIKE = 6,   /* of another version */
    PLK_MONITOR_ENDED = 7,    /* there was one; its marks are not looked at any more */
    PLK_MONITOR_FAILED = 8,   /* no socket, descriptor or memory to be had */
};

uint32_t plk_monitor_state(void);

/* Go a step on the way to a monitor, unless its marks are there: connect, or take the
 * answer if it has come.  Never waits; returns plk_monitor_state(). */
uint32_t plk_monitor_look(void);

/* 1: thread tid, as the kernel counts, is switched out; 0: not, as far as known; -1: no monitor. */
int plk_thread_out(uint32_t tid);

/* Is the holder of w's lock, found at `head`, switched out?  1 or 0; -1: there is
 * nobody to tell.  Seldom, and only then, a step of plk_monitor_look. */
int plk_holder_out(const struct plk_wait *w, uint64_t head);

#endif
