/* trace.c - the way of a victim through its path: once step by step, to learn where
 * it goes, then, each time with another victim, straight to a point of it. */
#include "trace.h"

#include <stdlib.h>
#include <string.h>

#include "scripts.h"
#include "victim.h"

#define SEEN_ROOM (1u << 16)
#define STEPS_MOST 2000000u

/* ------------------------------------------------- one run, step by step */

/* How often each address has been executed in this run. */
static struct {
    uint64_t address;
    uint32_t count;
} seen[SEEN_ROOM];
static unsigned seen_addresses;

static uint32_t count(uint64_t address, uint32_t more)
{
    unsigned at = (unsigned)(address * 0x9e3779b97f4a7c15ull >> 48);

    while (seen[at].address != 0 && seen[at].address != address)
        at = (at + 1) % SEEN_ROOM;
    seen_addresses += seen[at].address == 0;
    seen[at].address = address;
    return seen[at].count += more;
}

static unsigned char *snapshot;

/* Has a word of the domain changed since the last look? */
static int domain_changed(void)
{
    uint64_t size = segment->geometry.size;

    if (snapshot == NULL)
        snapshot = malloc(size);
    if (snapshot == NULL)
        fail("no memory");
    if (memcmp(snapshot, segment->base, size) == 0)
        return 0;
    memcpy(snapshot, segment->base, size);
    return 1;
}

static int a_tomb_stands(void)
{
    uint32_t i;

    for (i = 0; i < segment->geometry.tombs; i++) {
        if (PLK_LOAD(&plk_tombs(segment)[i]) != 0)
            return 1;
    }
    return 0;
}

static int moment_has_come(enum moment moment, uint32_t nth)
{
    const struct plk_vcpu *v = victim_vcpu();
    uint32_t spinner = config.policy == PLK_BOUNDED ? PLK_LOAD(&plk_gate_of(locks[L].cell)->spinner) : 0;
    int waiting = v != NULL && PLK_LOAD(&v->wait_since) != 0, queues = waiting;

    if (waiting && config.policy == PLK_BOUNDED) /* its wait begins before it queues */
        queues = spinner == 0 && PLK_LOAD(&v->pending) != 0 && PLK_LOAD(&v->ticket) != PLK_NO_TICKET;

    switch (moment) {
    case ASLEEP:
        return victim.asleep || (queues && !config.sleeps && nth > EXECUTIONS);
    case SPINNING:
        return nth == 2 && (config.policy == PLK_BOUNDED ? spinner > PLK_SPINNER(0) + 2 * PLK_SPINNER_OLD : waiting);
    case BURYING:
        return a_tomb_stands();
    case NEVER:
        break;
    }
    return 0;
}

static void append(struct trace *t, const struct point *p)
{
    if (t->count == t->room) {
        t->room = t->room ? 2 * t->room : 1024;
        t->points = realloc(t->points, t->room * sizeof(*p));
        if (t->points == NULL)
            fail("no memory");
    }
    t->points[t->count++] = *p;
}

/* All library calls share one syscall instruction, and how often it has been
 * executed before the victim sleeps there depends on the others. */
static int same(const struct point *a, const struct point *b)
{
    return a->address == b->address && a->asleep == b->asleep && a->last == b->last &&
           (a->asleep || a->nth == b->nth);
}

/* Follow the victim to `target`, or, recording, to the end. */
static enum outcome follow(const struct path *path, struct trace *record, const struct trace *known,
                           const struct point *target)
{
    enum outcome got = REACHED;
    int happened = 0;
    unsigned steps;

    memset(seen, 0, sizeof(seen));
    seen_addresses = 0;
    domain_changed();
    for (steps = 0; got == REACHED; steps++) {
        struct point here = {.address = victim.rip, .asleep = victim.asleep != 0,
                             .last = (uint8_t)victim_at_end(), .changed = (uint8_t)domain_changed(),
                             .inside = (uint8_t)party_inside(VICTIM, victim_vcpu()),
                             .after_event = (uint8_t)happened};

        if (steps == STEPS_MOST || out_of_patience)
            return STUCK;
        here.nth = count(victim.rip, !here.asleep); /* asleep at its nth execution */
        if (record != NULL)
            append(record, &here);
        if (target != NULL && same(&here, target))
            return REACHED;
        if (here.last)
            break;
        if (!happened && (record != NULL ? moment_has_come(path->moment, here.nth)
                                         : known->has_event && same(&here, &known->event))) {
            happened = 1;
            if (record != NULL) {
                record->event = here;
                record->has_event = 1;
            }
            if (play(path->event) != 0)
                return STUCK;
        }
        got = victim_step();
    }
    if (record != NULL)
        record->addresses = seen_addresses;
    return got == REACHED ? ENDED : got;
}

enum outcome trace_record(const struct path *path, struct trace *trace)
{
    trace->count = 0;
    trace->has_event = 0;
    return follow(path, trace, NULL, NULL);
}

int worth_killing(const struct point *p)
{
    return p->nth <= EXECUTIONS || (p->changed && p->nth <= CHANGES) || p->asleep || p->last;
}

/* ------------------------------------------------ one run, by breakpoints */

struct goal {
    const struct point *point;
    uint32_t met; /* executions of its instruction so far */
    int due;
    struct breakpoint trap;
};

/* The victim is about to execute the instruction at victim.rip; is it the goal? */
static int arrived(struct goal *g)
{
    return g->due && g->point->address == victim.rip && ++g->met == g->point->nth &&
           !g->point->asleep;
}

/* From one goal's instruction to the next by breakpoints. */
static enum outcome stride(struct goal *goals, int count)
{
    enum outcome got;
    int i;

    for (i = 0; i < count; i++) {
        if (goals[i].due && victim.rip == goals[i].point->address)
            return REACHED;
    }
    for (i = 0; i < count; i++) {
        if (goals[i].due)
            victim_plant(&goals[i].trap, goals[i].point->address);
    }
    got = victim_continue();
    if (got == GONE)
        return GONE;
    for (i = count - 1; i >= 0; i--) {
        if (goals[i].due)
            victim_lift(&goals[i].trap);
    }
    if (got != REACHED)
        return got;
    victim_set_back();
    return REACHED;
}

enum outcome trace_to(const struct path *path, const struct trace *trace, const struct point *point,
                      int quickly)
{
    struct goal goals[2] = {{point, 0, 1, {0, 0}},
                            {&trace->event, 0, trace->has_event && point->after_event, {0, 0}}};
    struct goal *event = &goals[1];
    enum outcome got = REACHED;

    if (!quickly)
        return follow(path, NULL, trace, point);
    while (got == REACHED) {
        int now = arrived(event);

        if (arrived(&goals[0]))
            return REACHED;
        if (victim_at_end())
            return ENDED;
        got = now ? REACHED : victim_step();
        if (got == REACHED && victim.asleep) {
            if (point->asleep)
                return REACHED;
            now = event->due && event->point->asleep;
        }
        if (now) {
            event->due = 0;
            if (play(path->event) != 0)
                return STUCK;
        }
        if (got == REACHED && (now || victim.asleep))
            got = victim_step();
        if (got == REACHED)
            got = stride(goals, 2);
    }
    return got;
}
