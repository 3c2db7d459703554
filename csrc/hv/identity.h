/* hv/identity.h - who a thread is for the kernel, and whether it still is. */
#ifndef PLK_HV_IDENTITY_H
#define PLK_HV_IDENTITY_H

#include "recover/segment.h"

struct plk_identity {
    uint64_t start_time; /* of the process, clock ticks after boot */
    uint64_t pid_ns;     /* inode of its pid namespace; 0: not known */
    int32_t pid, tid;
};

/* This thread; reads files. */
struct plk_identity plk_identify(void);

/* The second witness of a death.  The kernel marks the life words of every thread
 * that ends, but for one: a thread other than the main one that calls execve takes
 * over the main thread's id before its list is walked, and its words, which name
 * the former id, are passed over.  Where the kernel, asked by a caller of that pid
 * namespace, knows of no such thread, the word is marked here.  With the domain
 * mutex held.  1: just marked. */
int plk_life_settle(struct plk_vcpu *v, uint64_t pid_ns);

/* Would plk_life_settle mark it?  Without the mutex: a reason to take it, no more. */
int plk_life_lapsed(const struct plk_vcpu *v, uint64_t pid_ns);

#endif
