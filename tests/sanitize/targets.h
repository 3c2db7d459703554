/* targets.h - the calls that are made, which results each may have, and what their files share. */
#ifndef SANITIZE_TARGETS_H
#define SANITIZE_TARGETS_H

#include "fuzz.h"

/* X(function, errors that it may have besides success) */
#define GUARD ETIMEDOUT, ENOTRECOVERABLE, EBADF
#define HEADER PLK_E_FOREIGN, PLK_E_UNFINISHED, PLK_E_TRUNCATED, PLK_E_ABI, PLK_E_BOOT, PLK_E_CORRUPT, EIO
#define WAITS ETIMEDOUT, EDEADLK, ELOOP, EUSERS, ENOSPC, GUARD
#define TARGETS(X)                                                  \
    X(inspect, HEADER)                                              \
    X(extent, HEADER)                                               \
    X(attach, HEADER, ENOSPC, ENOMEM)                               \
    X(reset, GUARD, ENOSPC)                                         \
    X(vcpu_view, EINVAL, ENOSPC)                                    \
    X(cell_view, EINVAL, ENOSPC, EBADF)                             \
    X(name_at, ERANGE, ENOENT, PLK_E_CORRUPT, ENOSPC)               \
    X(name_find, ENOENT, ENAMETOOLONG, ENOSPC, PLK_E_CORRUPT)               \
    X(name_create, ENAMETOOLONG, EUSERS, ENOSPC, EINVAL, EPROTONOSUPPORT, PLK_E_CORRUPT, GUARD) \
    X(cell_new, EUSERS, ENOSPC, EINVAL, EPROTONOSUPPORT, PLK_E_CORRUPT, GUARD)       \
    X(cell_free, EBUSY, EINVAL, GUARD)                              \
    X(cell_bind, EINVAL, ENOENT, EMEDIUMTYPE, EPROTONOSUPPORT, PLK_E_CORRUPT, ENOSPC, EBADF) \
    X(enroll, EUSERS, ENOSPC, GUARD)                                \
    X(trylock, EBUSY, EUSERS, ENOSPC, GUARD)                        \
    X(acquire, WAITS)                                               \
    X(acquire_until, WAITS)                                         \
    X(wait_and_leave, WAITS, EINTR)                                 \
    X(nested_wait, WAITS, EINTR)                                    \
    X(unlock, EPERM)                                                \
    X(watch, 0)                                                     \
    X(search, 0)                                                    \
    X(recover, ENOSPC, GUARD)                                             \
    X(mark_consistent, EPERM)                                       \
    X(vcpu_tally_view, EINVAL, EBADF, EIO)                          \
    X(lock_tally_view, EINVAL, EBADF, EIO)                          \
    X(lock_tallies_next, EBADF)                                     \
    X(tickets_served, EBADF)                                        \
    X(ring_read, EINVAL, EBADF, EIO)                                \
    X(sync_new, EUSERS, ENOSPC, EINVAL, PLK_E_CORRUPT, GUARD)       \
    X(sync_find, ENOENT, ENAMETOOLONG, EUSERS, ENOSPC, EINVAL, PLK_E_CORRUPT, GUARD) \
    X(sync_init, EINVAL, EMEDIUMTYPE, ENOSPC, EBADF, ENOENT, EPROTONOSUPPORT, PLK_E_CORRUPT) \
    X(sync_wait, ETIMEDOUT, EINTR, ENOBUFS, ENOSPC, EBADF, EDEADLK, ELOOP, EALREADY) \
    X(sync_leave, 0)                                                \
    X(sync_act, EPERM, EINVAL, EDEADLK, ELOOP)                      \
    X(sync_look, 0)                                                 \
    X(crowded, 0)                                                   \
    X(service_begin, EBUSY, EUSERS, ENOSPC, GUARD)                  \
    X(service_look, 0)                                              \
    X(retire, EBUSY)                                                \
    X(format, EINVAL, ENOSPC, ENOMEM, EFBIG, EIO)

enum target {
#define X(name, ...) T_##name,
    TARGETS(X)
#undef X
    T_COUNT
};

extern struct plk_segment *segment; /* that is attached */
extern int traces;                  /* lock_event=trace */

/* -------------------------------------------------------------- results.c */

/* What a target has returned: any result that is not its own is reported. */
int64_t result(enum target target, int64_t rc);
int targets_report(int demand); /* prints the counts; nonzero: one of them was never reached */

/* -------------------------------------------------------------- targets.c */

uint32_t an_index(uint32_t count); /* one that exists, the first that does not, or any */
void enroll(void);                 /* this thread, and before that a fibre of it */

/* ---------------------------------------------------------------- looks.c */

void look_at_names(void);
void look_at_slots(void);
void look_at_events(void);
void observe(int fd); /* as `pylocks top` does: without attaching */

/* ---------------------------------------------------------------- waits.c */

void choose_ways(void); /* how this process waits, as pylocks/ops.py would decide it */
void forget_the_locks(void);
void use_a_lock(void);
void look_after_a_lock(void); /* as one that waits for it */
void about_to_wait(const struct plk_lock *lock); /* before a call that may: then it ends, in time */
uint64_t soon(void);

/* ---------------------------------------------------------------- syncs.c */

void use_a_sync(void);
void forget_the_syncs(void);
void let_go_of_syncs(void); /* nobody has a mutex */

#endif
