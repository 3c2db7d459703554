/* hv/directory.h - lock cells and their names. */
#ifndef PLK_HV_DIRECTORY_H
#define PLK_HV_DIRECTORY_H

#include "recover/segment.h"

/* Allocate an unnamed cell; under the bounded policy (enum plk_policy) two, of which this is
 * the gate.  Its index; -EUSERS: all are in use; -ENOSPC: no memory; -EPROTONOSUPPORT: native
 * unlockers promote nobody. */
int64_t plk_cell_new(struct plk_segment *s, uint32_t policy);

/* The same of a guard and its record (pylocks/sync.h), which has in it what the seed says; its kind is
 * in the cell's flags.  plk_sync_find: what is found may be of another kind, or a lock.  As plk_cell_new,
 * plk_name_find; -EINVAL: no such kind. */
int64_t plk_sync_new(struct plk_segment *s, const struct plk_seed *seed);
int64_t plk_sync_find(struct plk_segment *s, const char *name, uint32_t length, int create,
                      const struct plk_seed *seed);
void plk_sync_seed(struct plk_sync *sync, uint64_t initial, uint64_t limit);

/* Give it back.  0; -EBUSY: held or waited for; -EINVAL: not allocated. */
int plk_cell_free(struct plk_segment *s, uint32_t index);

/* The same for whoever is alone with it, unless a fork has begun since plk_forks_seen() was `forks`: then
 * -ECHILD, it is another process's as well. */
int plk_cell_give_back(struct plk_segment *s, uint32_t index, uint32_t forks);

/* The cell of that name, created under the policy if `create` and new.  -ENOENT, -EUSERS (no
 * cell or no entry left), -ENOSPC (no memory), -EPROTONOSUPPORT, -ENAMETOOLONG, -PLK_E_CORRUPT. */
int64_t plk_name_find(struct plk_segment *s, const char *name, uint32_t length, int create, uint32_t policy);

/* Entry i: its cell index, name copied out; -ENOENT: none there; -ERANGE: the end. */
int64_t plk_name_at(struct plk_segment *s, uint32_t i, char name[PLK_NAME_MAX], uint32_t *length);

/* Make *lock name the cell; reserves its page.  0, -EINVAL, -ENOENT (a queue), -EMEDIUMTYPE (a guard),
 * -ENOSPC, -ESHUTDOWN, -EPROTONOSUPPORT (bounded, in a native domain), -PLK_E_CORRUPT. */
int plk_cell_bind(struct plk_lock *lock, struct plk_domain *domain, uint32_t index);

/* The same of a guard. */
int plk_guard_bind(struct plk_ref *ref, struct plk_domain *domain, uint32_t index, uint32_t kind);

#endif
