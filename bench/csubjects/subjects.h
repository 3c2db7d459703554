/* subjects.h - the table of C subjects: one row, one file of that name. */
#ifndef BENCH_SUBJECTS_H
#define BENCH_SUBJECTS_H

#define BENCH_SUBJECTS(X) \
    X(pylocks)            \
    X(unrecorded)         \
    X(pthread_mutex)      \
    X(pthread_robust)     \
    X(sem_t)              \
    X(empty)

#endif
