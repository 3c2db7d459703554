/* subjects.h - the table of C subjects: one row, one file of that name. */
#ifndef BENCH_SUBJECTS_H
#define BENCH_SUBJECTS_H

#define BENCH_SUBJECTS(X) \
    X(pylocks)            \
    X(unrecorded)         \
    X(pthread_mutex)      \
    X(pthread_robust)     \
    X(pthread_pi)         \
    X(sem_t)              \
    X(adaptive)           \
    X(ttas)               \
    X(ticket_spin)        \
    X(ticket_yield)       \
    X(empty)

#endif
