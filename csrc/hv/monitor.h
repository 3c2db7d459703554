/* hv/monitor.h - the side with privilege: the program at the kernel's context
 * switches, and the life word of who loaded it. */
#ifndef PLK_HV_MONITOR_H
#define PLK_HV_MONITOR_H

#include "hv/marks.h"

/* A descriptor of new marks, which user space may map for reading only; or a negative
 * errno. */
int plk_marks_new(void);

/* Load the program that marks the threads of that user.  `pid_offset` is where
 * struct task_struct has its pid, `tracepoint` the BTF type btf_trace_sched_switch.  A
 * descriptor, or a negative errno and what the verifier says in log. */
int plk_monitor_load(int marks, uint32_t uid, uint32_t pid_offset, uint32_t tracepoint, char *log,
                     uint32_t log_size);

/* Let the program run at every context switch, until the descriptor that this returns
 * is closed; or a negative errno. */
int plk_monitor_attach(int program);

/* The calling thread is the monitor for as long as it lives; `life` is an empty file
 * that it makes one page long.  0 or a negative errno. */
int plk_monitor_born(int life, void **pages);
void plk_monitor_ends(void *pages); /* by the same thread */

#endif
