/* hv/marks.h - which threads do not run, as a monitor with privilege marks it.
 *
 * An array of words, one for each residue of a thread id.  A program in the
 * kernel writes it at every context switch (hv/monitor.c); processes that spin
 * read it (hv/preempted.c):
 *
 *   word == tid   thread tid has been switched out and not yet in again
 *   other         nothing is known of thread tid: assume that it runs
 *
 * Only thread tid's own switching stores tid, so who shares its word can make it
 * be forgotten but never be taken for switched out while it runs.  Switching out
 * happens before switching in again, whatever the CPUs: the kernel does not pick a
 * thread that another CPU has not finished with.
 *
 * Whether it was preempted or sleeps makes no difference to who would spin for it.
 *
 * Beside the marks lies the monitor's life word: they mean something only as long
 * as a program writes them, and that is as long as the monitor lives. */
#ifndef PLK_HV_MARKS_H
#define PLK_HV_MARKS_H

#include <pylocks.h>

#define PLK_MARKS 65536u
#define PLK_MARKS_BYTES (PLK_MARKS * 4u)

/* Threads of a pool have neighbouring ids and run on different CPUs: 16 lines apart
 * instead of in one. */
static inline uint32_t plk_mark_at(uint32_t tid)
{
    return (tid << 4 | (tid >> 12 & 15u)) & (PLK_MARKS - 1);
}

/* What a monitor says to who connects to "\0pylocks.preempted.UID", together with two
 * descriptors: of the page with its life word, and of the marks. */
#define PLK_MARKS_SOCKET "pylocks.preempted."
#define PLK_MARKS_MAGIC 0x316b72616d6b6c70ull /* "plkmark1", little endian */
struct plk_greeting {
    uint64_t magic;
    uint32_t marks; /* PLK_MARKS */
    uint32_t uid;   /* the user whose threads are marked */
};

/* The life word is that of a robust mutex which lies across the end of its page: the
 * links of the C library's list stay private to the monitor, who may be root, and
 * are nothing that others should read or write. */
#define PLK_LIFE_SHOWN 24u /* bytes of the mutex in the shared page; its links come behind */

#endif
