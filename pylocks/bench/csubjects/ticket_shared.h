/* ticket_shared.h - a ticket lock and nothing else; how it waits is the including file's. */
#ifndef BENCH_TICKET_SHARED_H
#define BENCH_TICKET_SHARED_H

#include "subject.h"

/* The words apart: who takes a ticket does not disturb those who watch the head. */
struct ticket_lock {
    uint64_t tail;
    char apart[56];
    uint64_t head;
};

/* Once round the waiting loop. */
static inline void wait_turn(void);

static int create(void *place, const struct bench_env *env)
{
    (void)place; /* zeros are a free lock */
    (void)env;
    return 0;
}

static inline int lock(void *place)
{
    struct ticket_lock *l = place;
    uint64_t mine = __atomic_fetch_add(&l->tail, 1, __ATOMIC_ACQUIRE);

    while (__atomic_load_n(&l->head, __ATOMIC_ACQUIRE) != mine)
        wait_turn();
    return 0;
}

static inline int unlock(void *place)
{
    struct ticket_lock *l = place;

    __atomic_store_n(&l->head, __atomic_load_n(&l->head, __ATOMIC_RELAXED) + 1, __ATOMIC_RELEASE);
    return 0;
}

static void destroy(void *place) { (void)place; }

#endif
