/* What all this is about. */
#include "pylocks_shared.h"

PLK_MODULE("bench.csubjects");

BENCH_SUBJECT(pylocks, 1, "plk_acquire and plk_unlock of <pylocks.h>, inlined");
