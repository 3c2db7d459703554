/* shop_parts.c - the part of shop.c that uses the lock in a loop; compiled by
 * itself, or included there. */
#include <pylocks.h>

int shop_sell(struct plk_lock *lock, volatile unsigned long *stock, unsigned long n);

int shop_sell(struct plk_lock *lock, volatile unsigned long *stock, unsigned long n)
{
    int rc = 0;

    while (n-- != 0 && rc == 0) {
        rc = plk_acquire(lock);
        if (rc == 0) {
            *stock = *stock - 1; /* a load and a store: lost updates show */
            rc = plk_unlock(lock);
        }
    }
    return rc;
}
