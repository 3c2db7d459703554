/* harness.h - what harness.c and conductor.c have in common. */
#ifndef BENCH_HARNESS_H
#define BENCH_HARNESS_H

#include "subject.h"

#define BENCH_EXPORT __attribute__((visibility("default")))

/* The subject's loop: until the slice is over, or a negative errno. */
int bench_contend(struct bench_lock *lock, struct bench_control *control, struct bench_worker *me);

#endif
