/* The same lock without the stores that are there for recovery alone: what robustness
 * costs is the difference.  Not to be used where anybody may die, time out or fork. */
#define PLK_RECORD(store) \
    do {                  \
        if (0) {          \
            store;        \
        }                 \
    } while (0)
#include "pylocks_shared.h"

BENCH_SUBJECT(unrecorded, 1, "pylocks without the records that recovery reads");
