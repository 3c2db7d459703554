/* games.h - how processes meet over a lock: loops that are compiled with each subject's lock and unlock. */
#ifndef BENCH_GAMES_H
#define BENCH_GAMES_H

#include "pieces.h"

/* A loop of worker `number`: until the slice is over, or a negative errno. */
typedef int (*bench_play)(void *place, struct bench_control *control, uint32_t number);

/* Sleep until another queue is to be formed than the last; its number. */
uint32_t bench_await_generation(struct bench_control *c, uint32_t last);

/* One more is through the queue. */
void bench_through(struct bench_control *c);

/* A relay's holder waits until the other waits, or the slice is over: then 0. */
static inline int bench_await_other(struct bench_control *c, struct bench_worker *me, struct bench_pace *pace,
                                    struct bench_worker *other)
{
    while (BENCH_LOAD(&other->waiting_since) == 0) {
        if (!bench_go_on(c, me, pace))
            return 0;
        bench_pause();
    }
    return 1;
}

/* From now on somebody else may have it. */
static inline void bench_hand_over(struct bench_control *c)
{
    BENCH_STORE(&c->released_at, bench_stamp());
}

/* In a relay before it asks, until the other is inside: barging in would be no handover. */
static inline void bench_await_baton(struct bench_control *c, struct bench_worker *me,
                                     struct bench_pace *pace, uint32_t mine)
{
    while (BENCH_LOAD(&c->baton) == mine && bench_go_on(c, me, pace))
        bench_pause();
}

#define BENCH_GAMES(id)                                                                          \
    static int bench_contend_of_##id(void *place, struct bench_control *c, uint32_t number)      \
    {                                                                                            \
        struct bench_worker *me = bench_worker_at(c, number);                                    \
        struct bench_pace pace = bench_begin(c, me);                                             \
                                                                                                 \
        while (bench_go_on(c, me, &pace)) {                                                      \
            uint64_t asked = bench_ask(me), inside;                                              \
            int rc = lock(place);                                                                \
                                                                                                 \
            inside = bench_stamp();                                                              \
            if (rc < 0)                                                                          \
                return rc;                                                                       \
            bench_enter(c, me);                                                                  \
            if ((rc = unlock(place)) < 0)                                                        \
                return rc;                                                                       \
            bench_note(me, &pace, asked, inside);                                                \
            bench_outside(c, &pace);                                                             \
        }                                                                                        \
        return 0;                                                                                \
    }                                                                                            \
    static int bench_relay_of_##id(void *place, struct bench_control *c, uint32_t number)        \
    {                                                                                            \
        struct bench_worker *me = bench_worker_at(c, number);                                    \
        struct bench_pace pace = bench_begin(c, me);                                             \
        uint64_t handed = 0, inside = 0;                                                         \
        int rc = 0;                                                                              \
                                                                                                 \
        bench_await_baton(c, me, &pace, number);                                                 \
        while (bench_go_on(c, me, &pace)) {                                                      \
            bench_ask(me);                                                                       \
            if ((rc = lock(place)) < 0)                                                          \
                return rc;                                                                       \
            inside = bench_stamp();                                                              \
            handed = BENCH_LOAD(&c->released_at);                                                \
            bench_enter(c, me);                                                                  \
            BENCH_STORE(&c->baton, number);                                                      \
            bench_note(me, &pace, handed != 0 ? handed : inside, inside);                        \
            if (bench_await_other(c, me, &pace, bench_worker_at(c, 1 - number)))                 \
                bench_turns(c->outside_turns);                                                   \
            bench_hand_over(c);                                                                  \
            if ((rc = unlock(place)) < 0)                                                        \
                return rc;                                                                       \
            bench_await_baton(c, me, &pace, number);                                             \
        }                                                                                        \
        return 0;                                                                                \
    }                                                                                            \
    static int bench_queue_of_##id(void *place, struct bench_control *c, uint32_t number)        \
    {                                                                                            \
        struct bench_worker *me = bench_worker_at(c, number);                                    \
        struct bench_pace pace = bench_begin(c, me);                                             \
        uint32_t generation = bench_await_generation(c, 0);                                      \
                                                                                                 \
        while (bench_go_on(c, me, &pace)) {                                                      \
            uint64_t handed, inside;                                                             \
            int rc;                                                                              \
                                                                                                 \
            bench_notice(me, &pace, BENCH_MEASURE);                                              \
            bench_ask(me);                                                                       \
            rc = lock(place);                                                                    \
            inside = bench_stamp();                                                              \
            if (rc < 0)                                                                          \
                return rc;                                                                       \
            handed = BENCH_LOAD(&c->released_at);                                                \
            bench_enter(c, me);                                                                  \
            bench_hand_over(c);                                                                  \
            if ((rc = unlock(place)) < 0)                                                        \
                return rc;                                                                       \
            bench_note(me, &pace, handed, inside);                                               \
            bench_notice(me, &pace, BENCH_OVER);                                                 \
            bench_through(c);                                                                    \
            generation = bench_await_generation(c, generation);                                  \
        }                                                                                        \
        return 0;                                                                                \
    }

#endif
