/* trial.c - the course of one run: the others take their places, the victim comes
 * to its point, those who are to wait for it come up, it dies, all get on. */
#include "trial.h"

#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hv/futex.h"
#include "scripts.h"

/* While a victim is stepped through the whole path, which takes long, nobody should
 * come and do part of it; who waits for one to be recovered should not wait long. */
#define RECORD_WATCHDOG_NS 200000000u
#define CREW_WATCHDOG_NS 1000000u
#define RECORD_S 60u /* more patience than otherwise with a victim that is stepped */
#define NEVER_NS 3600000000000u

void blame(struct verdict *verdict, enum finding finding, const char *format, ...)
{
    va_list rest;

    if (verdict->finding == HUNG || verdict->finding == VIOLATED)
        return; /* the first is what matters */
    verdict->finding = finding;
    va_start(rest, format);
    vsnprintf(verdict->problem, sizeof(verdict->problem), format, rest);
    va_end(rest);
}

/* ------------------------------------------------------------ before and after */

/* As if nobody but the crew had ever been a vCPU: what a slot's first use does is the same
 * in each run. */
static void forget_slots(void)
{
    uint32_t *used = &segment->header->vcpus_next;

    while (*used > CREW) {
        --*used;
        memset(plk_vcpu_at(segment, *used), 0, sizeof(struct plk_vcpu));
    }
}

/* A fresh log, and tickets that begin anew, so that every run of a path finds the
 * same channels and the same places for tombstones. */
static void reset(const struct path *path)
{
    int who;
    uint32_t i;

    forget_slots();
    for (i = 0; i < LOCKS; i++) {
        struct plk_cell *cell = locks[i].cell;

        cell->head = cell->tail = (uint64_t)(path - paths) * 100 + i;
        cell->owner = 0;
    }
    if (config.policy == PLK_BOUNDED) {
        struct plk_cell *queue = plk_queue_cell(locks[L].cell);

        queue->head = queue->tail = (uint64_t)(path - paths) * 100 + LOCKS;
        queue->owner = 0;
        *plk_gate_of(locks[L].cell) = (struct plk_gate){
            .promoted_ns = plk_now(), .window = (uint32_t)locks[L].cell->head, /* no CPU is idle yet */
        };
    }

    stage->entries = stage->faults = 0;
    stage->fault[0] = '\0';
    stage->victim_rc = 0;
    memset(stage->inside, 0, sizeof(stage->inside));
    for (who = A; who < CREW; who++) {
        doing[who] = IDLE;
        stage->parties[who].entries = 0;
    }
    corpse_of_run = (struct corpse){0, 0};
}

static void set_watchdog(uint64_t ns)
{
    crew_watchdog_ns = config.rescue || config.breakage == BLIND ? NEVER_NS : ns;
}

static void be_patient(unsigned more)
{
    out_of_patience = 0;
    alarm((unsigned)config.patience + 1 + more);
}

static const struct path *path_of_victim;

static void victim_body(void) { be_victim_of(path_of_victim); }

static struct {
    const struct path *path; /* NULL: nobody died before */
    const struct trace *trace;
    const struct point *point;
} prior;

void trial_after(const struct path *path, const struct trace *trace, const struct point *point)
{
    prior.path = path;
    prior.trace = trace;
    prior.point = point;
}

static enum outcome bring_forth(const struct path *path)
{
    path_of_victim = path;
    fork_party(VICTIM, victim_body);
    return victim_begin();
}

/* Another victim dies at its point of another path, and nobody has noticed yet. */
static int play_prior(void)
{
    enum outcome got;

    if (prior.path == NULL)
        return 0;
    if (play(prior.path->before) != 0 || bring_forth(prior.path) != REACHED ||
        play(prior.path->begin) != 0)
        return -EPROTO;
    PLK_STORE(&segment->header->looked_ns, 0);
    got = trace_to(prior.path, prior.trace, prior.point, 1);
    victim_kill();
    return got == REACHED || got == ENDED ? 0 : -EPROTO;
}

/* All take their places and the victim stands at the beginning of its path. */
static int set_the_stage(const struct path *path, struct verdict *verdict)
{
    int rc;

    reset(path);
    be_patient(0);
    rc = play_prior();
    if (rc == 0)
        rc = play(path->before);
    if (rc == 0) {
        if (bring_forth(path) != REACHED) {
            blame(verdict, HUNG, "the victim did not come as far as its path: %d", stage->victim_rc);
            victim_kill();
            return -1;
        }
        rc = play(path->begin);
    }
    if (rc != 0) {
        blame(verdict, HUNG, "the others did not take their places: %d", rc);
        victim_kill();
        return -1;
    }
    PLK_STORE(&segment->header->looked_ns, 0); /* whoever looks after the dead now may do so */
    return 0;
}

/* Those who are to wait for the victim come up; returns when they do, or have got on. */
static int gather(const struct path *path)
{
    uint64_t until = plk_now() + SETTLE_NS;
    int who, calm = 0;

    for (who = B; who < CREW; who++) {
        thaw(who);
        if (doing[who] == IDLE)
            start(who, DO_ENTER, who == C && path->c_wants_m ? M : L);
    }
    if (path->linger_ms != 0)
        usleep((useconds_t)path->linger_ms * 1000);
    while (!calm && plk_now() < until) {
        for (calm = 1, who = A; who < CREW; who++)
            calm &= doing[who] != BUSY || answered(who) || waits(who) ||
                    (config.rescue && config.sleeps && parked(who)); /* till it is rescued */
        if (!calm)
            sched_yield();
    }
    return calm;
}

static struct witness look_around(int calm, int dies)
{
    struct witness seen = {.settled = calm, .entries = PLK_LOAD_ACQUIRE(&stage->entries),
                           .corpse_died_at = corpse_of_run.died_at, .corpse_inside = corpse_of_run.inside};
    unsigned lock;

    if (corpse_of_run.died_at != 0)
        seen.expected = party_inside(CORPSE, vcpu_of(CORPSE));
    seen.inside = party_inside(VICTIM, victim_vcpu());
    if (dies)
        seen.expected |= seen.inside;
    for (lock = 0; lock < LOCKS; lock++) {
        if (PLK_LOAD(&locks[lock].cell->flags) & PLK_CELL_OWNER_DIED)
            seen.expected |= 1u << lock;
    }
    return seen;
}

/* Spoil what recovery goes by. */
static void spoil(unsigned inside)
{
    struct plk_vcpu *v = victim_vcpu();

    if (v != NULL && config.breakage == HELD)
        PLK_STORE(&v->held, 0);
    if ((inside >> L & 1) != 0 && config.breakage == OWNER)
        PLK_STORE(&locks[L].cell->owner, 0);
}

/* Who was stopped goes on, who holds a lock releases it. */
static void let_go(struct verdict *verdict)
{
    int who, rc;

    be_patient(0);
    for (who = A; who < CREW; who++) {
        thaw(who);
        rc = doing[who] == HOLDING ? release(who) : 0;
        if (rc != 0)
            blame(verdict, rc == -ETIMEDOUT ? HUNG : VIOLATED, "%c could not release its lock: %d",
                  'A' + who, rc);
    }
}

/* A, which waits for nothing, recovers all the dead.  Whoever sleeps then must be woken,
 * for no watchdog will. */
static void rescue(struct verdict *verdict)
{
    int rc;

    be_patient(0);
    rc = do_now(A, DO_RECOVER, L);
    if (rc != 0)
        blame(verdict, rc == -ETIMEDOUT ? HUNG : VIOLATED, "A could not recover the dead: %d", rc);
}

static void await_crew(struct verdict *verdict)
{
    int who;

    for (who = A; who < CREW && verdict->finding != HUNG; who++) {
        if (doing[who] == BUSY && await(who) != 0)
            blame(verdict, HUNG, "%c waits and nobody serves it", 'A' + who);
        else if (doing[who] == BUSY && stage->parties[who].rc < 0)
            blame(verdict, VIOLATED, "%c could not acquire and release: %d", 'A' + who,
                  stage->parties[who].rc);
        doing[who] = IDLE;
    }
}

/* Everybody in the crew ends what it is at, then gets every lock once more. */
static void get_on(struct verdict *verdict)
{
    int who;

    let_go(verdict);
    await_crew(verdict);
    for (who = A; who < CREW && verdict->finding != HUNG; who++)
        start(who, DO_BOTH, L);
    await_crew(verdict);
}

/* late: where there is a rescue, holders release before it. */
static void conclude(const struct witness *seen, int late, struct verdict *verdict)
{
    int rc;

    if (config.rescue && late)
        let_go(verdict);
    if (config.rescue && verdict->finding != HUNG)
        rescue(verdict);
    get_on(verdict);
    if (verdict->finding == HUNG)
        return;
    if (corpse_of_run.died_at == 0)
        bury_corpse();
    judge_log(seen, verdict);
    judge_recovered(verdict);
    rc = do_now(B, DO_RECOVER, L);
    if (rc == 0)
        rc = do_now(B, DO_BOTH, L); /* an unlock without anybody waiting takes down `slow` */
    if (rc != 0)
        blame(verdict, rc == -ETIMEDOUT ? HUNG : VIOLATED, "B's look at everything failed: %d", rc);
    else
        judge_words(verdict);
    alarm(0);
}

static const char *const outcomes[] = {"reached", "ended", "gone", "stuck", "broken"};

void trial_record(const struct path *path, struct trace *trace, struct verdict *verdict)
{
    struct witness seen;
    enum outcome got;
    uint32_t entries;
    int status = 0;

    *verdict = (struct verdict){.finding = FINE};
    set_watchdog(RECORD_WATCHDOG_NS);
    if (set_the_stage(path, verdict) != 0)
        return;
    entries = stage->entries;
    be_patient(RECORD_S);
    got = trace_record(path, trace);
    seen = look_around(1, 0);
    if (got == GONE) { /* by itself, and others may have noticed */
        seen.expected |= trace->points[trace->count - 1].inside;
        seen.entries = entries;
    }
    if (got == ENDED) {
        victim_let_go();
        let_go(verdict); /* it may still wait for them, or for the corpse */
        if (config.rescue)
            rescue(verdict);
        got = victim_reap(&status) == GONE ? ENDED : STUCK;
    }
    if (got != (path->rc == REFUSES ? GONE : ENDED)) {
        blame(verdict, HUNG, "the victim did not get through its path: %s after %u instructions",
              outcomes[got], trace->count);
        victim_kill();
    } else if (path->rc != REFUSES && (stage->victim_rc != path->rc || status != 0))
        blame(verdict, VIOLATED, "the path returned %d, and the victim ended with status %#x",
              stage->victim_rc, (unsigned)status);
    else if ((trace->points[0].inside >> L & 1) != path->inside_first ||
             (trace->points[trace->count - 1].inside >> L & 1) != path->inside_last)
        blame(verdict, VIOLATED, "the path begins inside %#x and ends inside %#x",
              trace->points[0].inside, trace->points[trace->count - 1].inside);
    else if (path->moment != NEVER && !trace->has_event)
        blame(verdict, VIOLATED, "the moment of the path's event never came");
    seen.killed_at = got == GONE ? plk_now() : PLK_FOREVER;
    conclude(&seen, 0, verdict);
}

void trial_kill(const struct path *path, const struct trace *trace, const struct point *point,
                int quickly, struct verdict *verdict)
{
    struct witness seen;
    enum outcome got;

    *verdict = (struct verdict){.finding = FINE};
    set_watchdog(CREW_WATCHDOG_NS);
    if (set_the_stage(path, verdict) != 0)
        return;
    be_patient(quickly ? 0 : RECORD_S);
    got = trace_to(path, trace, point, quickly);
    if (got == ENDED && point->last)
        got = REACHED;
    if (got == STUCK || got == BROKEN)
        blame(verdict, HUNG, "the victim was %s on its way", outcomes[got]);
    else if (got != REACHED)
        verdict->finding = MISSED;
    /* Where there is a rescue, every other point of a path is left alone until it comes. */
    seen = look_around(config.rescue && (point->nth + point->address / 2) % 2 ? 1 : gather(path), 1);
    /* It went round more often than the recorded one: this is not the point that was meant.  If it never
     * is, that is found. */
    if (got == REACHED && seen.inside != point->inside)
        verdict->finding = MISSED;
    spoil(seen.inside);
    seen.killed_at = plk_now();
    victim_kill();
    conclude(&seen, (int)(point->address + point->nth) & 1, verdict);
}

void trial_clear_away(void)
{
    victim_kill();
    bury_corpse();
    alarm(0);
}
