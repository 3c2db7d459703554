/* pylocks/recursive.h - a lock that its owner may acquire again.
 *
 * It is an ordinary lock with a count beside its cell, and the owner record says whose
 * count that is: (ticket, vCPU) with the ticket that is served.  Only the thread that
 * finds itself recorded there goes on to read or write the count, so no access to it
 * needs to be atomic, whatever handle of the lock it comes through.  That look can't
 * mistake: the thread's own older record has a ticket that it has itself released, and
 * head never goes back to it.
 *
 * Whoever has newly entered sets the count to 0 before anything else, for a former
 * owner may have died at any depth; so recovery need not know of the count, and the
 * death is told as any other holder's is (hv/recovery.c).
 *
 * For locks made with PLK_RECURSIVE alone: the cell of others may have another cell
 * where the count would lie. */
#ifndef PYLOCKS_RECURSIVE_H
#define PYLOCKS_RECURSIVE_H

#include "fast.h"

#define PLK_DEEPEST (UINT32_MAX - 1)

PLK_INLINE uint32_t *plk_again(const struct plk_lock *lock)
{
    return &((struct plk_depth *)(void *)(lock->cell + 1))->again;
}

PLK_INLINE int plk_is_recursive(const struct plk_lock *lock)
{
    return (PLK_LOAD(&lock->cell->flags) & PLK_CELL_RECURSIVE) != 0;
}

/* This thread is the owner.  One that holds nothing does not even look at the cell, whose
 * line may be another CPU's. */
PLK_INLINE int plk_owns(const struct plk_lock *lock)
{
    struct plk_seat *seat = plk_seat_of(lock->domain);

    return seat != NULL && PLK_LOAD(&seat->vcpu->held) != 0 &&
           PLK_LOAD(&lock->cell->owner) == PLK_OWNER(PLK_LOAD(&lock->cell->head), seat->tag);
}

/* By the owner: once more.  0, or -EOVERFLOW. */
PLK_INLINE int plk_deepen(struct plk_lock *lock)
{
    uint32_t *again = plk_again(lock);

    if (PLK_UNLIKELY(*again >= PLK_DEEPEST))
        return -EOVERFLOW;
    PLK_STORE(again, *again + 1);
    return 0;
}

/* By whoever has newly entered. */
PLK_INLINE void plk_first(struct plk_lock *lock) { PLK_STORE(plk_again(lock), 0); }

/* As plk_unlock, once for each acquisition. */
PLK_INLINE int plk_unlock_recursive(struct plk_lock *lock)
{
    if (plk_owns(lock)) { /* the cell is there only while the domain is open: not before this */
        uint32_t *again = plk_again(lock);

        if (*again != 0) {
            PLK_STORE(again, *again - 1);
            return 0;
        }
    }
    return plk_unlock(lock);
}

#endif
