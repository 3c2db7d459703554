/* harness.h - what harness.c and conductor.c have in common. */
#ifndef BENCH_HARNESS_H
#define BENCH_HARNESS_H

#include "subject.h"

#define BENCH_EXPORT __attribute__((visibility("default")))

/* The subject's loop, and where its lock is. */
bench_play bench_play_of(const struct bench_lock *lock, enum bench_game game);
void *bench_place_of(const struct bench_lock *lock);

#endif
