/* hv/robust.h - robust mutexes in memory that others can write.
 *
 * The C library believes what lies in a mutex: after its kind it chooses what to
 * do, by its lock word it tells whose it is.  Overwritten, they make it abort the
 * process (a priority-inheriting kind), or leave the mutex on the thread's list of
 * robust mutexes, into which it writes again when the segment is long unmapped.  So
 * both are checked before a mutex is locked, and put right before it is unlocked.
 *
 * What can't be checked are the links of that list, which lie in the mutex while it
 * is held: whoever writes to them makes the holder write where they point.  That
 * is why a segment is for one user's processes, and for nobody whom they would not
 * also let debug them. */
#ifndef PLK_HV_ROBUST_H
#define PLK_HV_ROBUST_H

#include "recover/segment.h"

/* A robust process-shared mutex; 0 or a negative errno. */
int plk_robust_init(pthread_mutex_t *mutex);

/* Nonzero: it is of the kind that plk_robust_init makes. */
int plk_robust_sound(const pthread_mutex_t *mutex);

/* Unlock what this thread holds, whatever has been written over it meanwhile. */
void plk_robust_unlock(pthread_mutex_t *mutex);

#endif
