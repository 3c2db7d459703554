/* chaos.c - see chaos.h for what the marks mean and what follows from them. */
#include "probe/chaos.h"

#define LOAD(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define STORE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

enum { MAX_LIVES = 1 << 24 };

uint64_t plk_chaos_size(uint64_t workers, uint64_t locks, uint64_t lives, uint64_t reports)
{
    uint64_t size = plk_probe_size(workers, locks);

    if (size == 0 || lives > MAX_LIVES || reports > MAX_LIVES)
        return 0;
    return size + sizeof(struct plk_chaos) + lives * sizeof(struct plk_chaos_life) +
           locks * sizeof(struct plk_chaos_lock) + reports * sizeof(struct plk_chaos_report);
}

struct plk_chaos *plk_chaos_at(struct plk_probe_control *c)
{
    return (struct plk_chaos *)((char *)c + plk_probe_size(c->workers, c->locks));
}

struct plk_chaos_life *plk_chaos_life_at(struct plk_probe_control *c, uint64_t number)
{
    return (struct plk_chaos_life *)(plk_chaos_at(c) + 1) + number;
}

struct plk_chaos_lock *plk_chaos_lock_at(struct plk_probe_control *c, uint64_t index)
{
    return (struct plk_chaos_lock *)plk_chaos_life_at(c, plk_chaos_at(c)->lives) + index;
}

struct plk_chaos_report *plk_chaos_report_at(struct plk_probe_control *c, uint64_t index)
{
    return (struct plk_chaos_report *)plk_chaos_lock_at(c, c->locks) + index;
}

void plk_chaos_init(struct plk_probe_control *c, uint64_t lives, uint64_t reports)
{
    struct plk_chaos *chaos = plk_chaos_at(c);

    chaos->lives = lives;
    chaos->reports = reports;
}

/* What a step works on. */
struct scene {
    struct plk_chaos_claim *claim;
    struct plk_probe_worker *worker;
    struct plk_probe_lock *lock;
    struct plk_chaos_lock *marks;
};

static struct scene scene_of(struct plk_probe_control *c, uint64_t life, uint64_t level)
{
    struct plk_chaos_life *me = plk_chaos_life_at(c, life);
    struct scene s;

    s.claim = &me->claims[level];
    s.worker = plk_probe_worker_at(c, me->seat);
    s.lock = plk_probe_lock_at(c, s.claim->lock);
    s.marks = plk_chaos_lock_at(c, s.claim->lock);
    s.worker->lock = s.claim->lock; /* what a violation is about */
    return s;
}

void plk_chaos_wait(struct plk_probe_control *c, uint64_t life, uint64_t level, uint64_t lock)
{
    struct plk_chaos_claim *claim = &plk_chaos_life_at(c, life)->claims[level];

    claim->lock = lock;
    claim->since = plk_probe_now();
    STORE(&claim->phase, PLK_CHAOS_WAITING);
}

static int is_condemned(struct plk_probe_control *c, uint64_t mark)
{
    return mark <= plk_chaos_at(c)->lives && LOAD(&plk_chaos_life_at(c, mark - 1)->condemned) != 0;
}

static void report(struct plk_probe_control *c, const struct plk_chaos_report *said)
{
    struct plk_chaos *chaos = plk_chaos_at(c);
    uint64_t index = __atomic_fetch_add(&chaos->reported, 1, __ATOMIC_RELAXED);
    struct plk_chaos_report *room = plk_chaos_report_at(c, index);

    if (index >= chaos->reports)
        return;
    *room = *said;
    STORE(&room->written, 1);
}

/* Where the holder before died in its critical section: as if it had finished. */
static void repair(struct scene *s)
{
    for (int i = 0; i < PLK_PROBE_WORDS; i++)
        s->lock->words[i] = 0;
    s->lock->counter = s->marks->entered;
}

static void remember_grant(struct plk_chaos_lock *marks, const struct plk_chaos_grant *new)
{
    struct plk_chaos_grant *grant = &marks->grants[marks->entered % PLK_CHAOS_GRANTS];

    STORE(&grant->at, 0); /* whoever reads it meanwhile knows */
    STORE(&grant->since, new->since);
    STORE(&grant->life, new->life);
    STORE(&grant->freed, new->freed);
    STORE(&grant->at, new->at);
}

static void check_ticket(struct plk_probe_control *c, struct scene *s, uint64_t ticket)
{
    uint64_t last = s->lock->last_ticket; /* + 1 is 0 if there was none: tickets begin there */

    STORE(&s->lock->last_ticket, ticket); /* first: whoever dies here must not have it counted twice */
    if (last != PLK_PROBE_NO_TICKET && ticket <= last)
        plk_probe_violated(c, s->worker, PLK_PROBE_ticket_order, ticket, last + 1);
    else
        s->marks->skipped += ticket - (last + 1);
}

void plk_chaos_enter(struct plk_probe_control *c, uint64_t life, uint64_t level, uint64_t ticket, int told)
{
    struct scene s = scene_of(c, life, level);
    struct plk_chaos_lock *marks = s.marks;
    uint64_t left, now = plk_probe_now(), open, entered, counted;

    if (LOAD(&c->closed) != 0)
        return;
    left = __atomic_exchange_n(&marks->mark, life + 1, __ATOMIC_ACQ_REL);
    open = marks->open;
    entered = marks->entered;
    if (told) {
        const struct plk_chaos_grant *last = &marks->grants[(entered - 1) % PLK_CHAOS_GRANTS];

        plk_chaos_life_at(c, life)->told++;
        report(c, &(struct plk_chaos_report){.life = life, .lock = s.claim->lock, .ticket = ticket, .at = now,
                                             .left = left, .previous = entered != 0 ? last->at : 0,
                                             .sticky = open != PLK_CHAOS_MENDED});
    }
    if (left != 0 && !is_condemned(c, left))
        plk_probe_violated(c, s.worker, PLK_PROBE_occupied, left, life + 1);
    else if (left != 0 && !told)
        plk_probe_violated(c, s.worker, PLK_PROBE_silent_death, left, life + 1);
    else if (open == PLK_CHAOS_TOLD && !told)
        plk_probe_violated(c, s.worker, PLK_PROBE_forgotten_death, 0, 1);
    marks->open = told ? PLK_CHAOS_TOLD : PLK_CHAOS_MENDED;
    check_ticket(c, &s, ticket);
    if (left != 0) {
        repair(&s);
    } else {
        counted = s.lock->counter;
        plk_probe_check_line(c, s.worker, s.lock);
        if (counted != entered)
            plk_probe_violated(c, s.worker, PLK_PROBE_lost_increment, counted, entered);
        s.lock->counter = entered; /* so that one loss is found once */
    }
    remember_grant(marks, &(struct plk_chaos_grant){.at = now, .since = s.claim->since, .life = life,
                                                    .freed = left != 0 ? 0 : marks->freed});
    marks->entered = entered + 1;
    STORE(&s.claim->phase, PLK_CHAOS_INSIDE);
    plk_probe_count(s.worker, now, now - s.claim->since);
}

void plk_chaos_work(struct plk_probe_control *c, uint64_t life, uint64_t level)
{
    struct scene s = scene_of(c, life, level);

    if (LOAD(&c->closed) == 0)
        plk_probe_write(c, s.worker, s.lock, plk_probe_stamp(s.worker));
}

void plk_chaos_mend(struct plk_probe_control *c, uint64_t life, uint64_t level, int done)
{
    struct scene s = scene_of(c, life, level);

    STORE(&s.marks->open, done ? PLK_CHAOS_MENDED : PLK_CHAOS_MENDING);
}

void plk_chaos_leave(struct plk_probe_control *c, uint64_t life, uint64_t level)
{
    struct scene s = scene_of(c, life, level);
    uint64_t mine = life + 1;

    if (s.claim->phase != PLK_CHAOS_INSIDE || LOAD(&c->closed) != 0)
        return;
    s.lock->counter++;
    s.marks->freed = plk_probe_now();
    STORE(&s.claim->phase, PLK_CHAOS_RELEASING);
    if (!__atomic_compare_exchange_n(&s.marks->mark, &mine, 0, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
        plk_probe_violated(c, s.worker, PLK_PROBE_occupied, mine, life + 1);
}

void plk_chaos_out(struct plk_probe_control *c, uint64_t life, uint64_t level)
{
    struct plk_chaos_claim *claim = &plk_chaos_life_at(c, life)->claims[level];

    /* Whoever waited and comes out has not been inside. */
    if (claim->phase == PLK_CHAOS_WAITING)
        __atomic_fetch_add(&plk_chaos_lock_at(c, claim->lock)->excuses, 1, __ATOMIC_RELAXED);
    STORE(&claim->phase, PLK_CHAOS_OUTSIDE);
}

void plk_chaos_violated(struct plk_probe_control *c, uint64_t life, uint64_t level, int kind, uint64_t got,
                        uint64_t expected)
{
    plk_probe_violated(c, scene_of(c, life, level).worker, kind, got, expected);
}

int plk_chaos_first_grant(struct plk_probe_control *c, uint64_t lock, uint64_t from,
                          struct plk_chaos_grant *found)
{
    struct plk_chaos_lock *marks = plk_chaos_lock_at(c, lock);

    found->at = 0;
    for (int i = 0; i < PLK_CHAOS_GRANTS; i++) {
        struct plk_chaos_grant *grant = &marks->grants[i], copy = {.at = LOAD(&grant->at)};

        copy.since = LOAD(&grant->since);
        copy.life = LOAD(&grant->life);
        copy.freed = LOAD(&grant->freed);
        if (copy.at == LOAD(&grant->at) && copy.at >= from && copy.since <= from && copy.at != 0 &&
            (found->at == 0 || copy.at < found->at))
            *found = copy;
    }
    return found->at != 0;
}
