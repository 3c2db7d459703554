/* main.c - one configuration: every path, every point.
 *
 * Writes lines of tab-separated fields, which tests/torture/harness.py reads:
 *
 *   path     name, instructions executed, points, kills, distinct instructions
 *            killed at, points missed, hangs, violations, seconds
 *   without  path: there is none such in this configuration
 *   missed   path, address, nth, asleep: no run came to that point again
 *   finding  path, kind, address, nth, asleep, problem; lines of the state follow,
 *            each beginning with |
 *
 * --list: name and meaning of each path; --probe: why nothing can be traced here, if so.
 *
 * Exit status: 0: nothing found; 1: something was; 2: could not be done. */
#include "trial.h"

#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "hv/futex.h"

#define FINDINGS_MOST 3u /* of one path: each may take all the patience there is */
#define TRIES 8
#define RECORDINGS 4
#define PRIORS 24u      /* deaths before a death: points of the first, */
#define AFTER_PRIOR 40u /* and of the second for each of those */

struct config config = {.slow = "futex", .patched = 1, .barrier = PLK_BARRIER_MEMBARRIER,
                        .patience = 10, .cpu = -1};

struct tally {
    unsigned instructions, points, kills, addresses, room, missed, hangs, violations;
    uint64_t *killed_at; /* distinct addresses */
};

static void on_alarm(int signal_number)
{
    (void)signal_number;
    out_of_patience = 1;
}

static void start_over(void)
{
    int rc;

    dismiss_crew();
    rc = setup_domain();
    if (rc == 0)
        rc = setup_crew();
    if (rc != 0)
        fail("can't set up a domain and a crew: %d", rc);
}

/* Report it, and begin anew. */
static void report(const struct path *path, const struct point *point, const struct verdict *verdict,
                   struct tally *tally)
{
    if (verdict->finding == HUNG)
        tally->hangs++;
    else
        tally->violations++;
    printf("finding\t%s\t%s\t%#llx\t%u\t%u\t%s\n", path->name,
           verdict->finding == HUNG ? "hang" : "violation",
           point != NULL ? (unsigned long long)point->address : 0ull, point != NULL ? point->nth : 0u,
           point != NULL ? point->asleep : 0u, verdict->problem);
    dump(stdout);
    fflush(stdout);
    trial_clear_away();
    start_over();
}

static void note_address(struct tally *tally, uint64_t address)
{
    unsigned i;

    for (i = 0; i < tally->addresses; i++) {
        if (tally->killed_at[i] == address)
            return;
    }
    if (tally->addresses == tally->room) {
        tally->room += 1024;
        tally->killed_at = realloc(tally->killed_at, tally->room * sizeof(address));
        if (tally->killed_at == NULL)
            fail("no memory");
    }
    tally->killed_at[tally->addresses++] = address;
}

static void kill_at(const struct path *path, const struct trace *trace, const struct point *point,
                    struct tally *tally)
{
    struct verdict verdict;
    int try;

    for (try = 0; try < TRIES; try++) {
        trial_kill(path, trace, point, try < TRIES / 2, &verdict); /* then step by step */
        if (verdict.finding != MISSED)
            break;
    }
    if (verdict.finding == MISSED) {
        tally->missed++;
        printf("missed\t%s\t%#llx\t%u\t%u\n", path->name, (unsigned long long)point->address, point->nth,
               point->asleep);
        return;
    }
    tally->kills++;
    if (!point->last)
        note_address(tally, point->address);
    if (verdict.finding != FINE)
        report(path, point, &verdict, tally);
}

/* Of two deaths in a row only those are combined that leave different words behind. */
static int eligible(const struct point *p, int twice)
{
    return worth_killing(p) && (!twice || p->changed);
}

static unsigned count_points(const struct trace *trace, int twice)
{
    unsigned i, points = 0;

    for (i = 0; i < trace->count; i++)
        points += eligible(&trace->points[i], twice) != 0;
    return points;
}

/* With a sample: so many of the points, evenly spread, beginning with another one
 * of each path. */
static int in_sample(unsigned number, unsigned points, unsigned sample, unsigned offset)
{
    unsigned stride;

    if (sample == 0 || points <= sample)
        return 1;
    stride = points / sample;
    return number % stride == offset % stride && number / stride < sample;
}

static unsigned before_event(const struct trace *trace)
{
    unsigned i;

    for (i = 0; i < trace->count && !trace->points[i].after_event; i++)
        ;
    return i;
}

/* Record the path.  On a busy machine a victim may go round once more before it sleeps and the event
 * comes: by the clock, or because others use its channel.  Others that follow it would wait in vain for
 * the points of that round, so of some recordings the shortest counts. */
static void record(const struct path *path, struct trace *trace, struct verdict *verdict)
{
    static struct trace other;
    struct trace longer;
    unsigned i;

    trial_record(path, trace, verdict);
    for (i = 1; i < RECORDINGS && path->moment == ASLEEP && verdict->finding == FINE; i++) {
        trial_record(path, &other, verdict);
        if (verdict->finding == FINE && before_event(&other) < before_event(trace)) {
            longer = *trace;
            *trace = other;
            other = longer;
        }
    }
}

/* Kill at the points of the path, or a sample of them, with the present prior. */
static void go_through(const struct path *path, unsigned sample, unsigned offset, struct tally *tally)
{
    static struct trace trace;
    struct verdict verdict;
    unsigned i, number = 0, points;

    record(path, &trace, &verdict);
    if (verdict.finding != FINE) {
        report(path, NULL, &verdict, tally);
        return;
    }
    points = count_points(&trace, path->prior != NULL);
    tally->points += points;
    tally->instructions = trace.count > tally->instructions ? trace.count : tally->instructions;
    for (i = 0; i < trace.count && tally->hangs + tally->violations < FINDINGS_MOST; i++) {
        if (eligible(&trace.points[i], path->prior != NULL) &&
            in_sample(number++, points, sample, offset))
            kill_at(path, &trace, &trace.points[i], tally);
    }
}

static const struct path *path_named(const char *name)
{
    unsigned i;

    for (i = 0; i < path_count; i++) {
        if (strcmp(paths[i].name, name) == 0)
            return &paths[i];
    }
    fail("there is no path %s", name);
}

/* Twice dead: for some points of the prior path, some of this one. */
static void go_through_after(const struct path *path, unsigned sample, struct tally *tally)
{
    static struct trace trace;
    const struct path *before = path_named(path->prior);
    struct verdict verdict;
    unsigned i, number = 0, points;

    record(before, &trace, &verdict);
    if (verdict.finding != FINE) {
        report(before, NULL, &verdict, tally);
        return;
    }
    points = count_points(&trace, 1);
    for (i = 0; i < trace.count; i++) {
        if (!eligible(&trace.points[i], 1) ||
            !in_sample(number++, points, sample != 0 ? 2 : PRIORS, (unsigned)(path - paths)))
            continue;
        trial_after(before, &trace, &trace.points[i]);
        go_through(path, sample != 0 ? (sample + 1) / 2 : AFTER_PRIOR, number, tally);
    }
    trial_after(NULL, NULL, NULL);
}

static int torture(const struct path *path, unsigned sample)
{
    struct tally tally = {0};
    uint64_t began = plk_now();

    if (path->prior != NULL)
        go_through_after(path, sample, &tally);
    else
        go_through(path, sample, (unsigned)(path - paths), &tally);
    printf("path\t%s\t%u\t%u\t%u\t%u\t%u\t%u\t%u\t%.2f\n", path->name, tally.instructions,
           tally.points, tally.kills, tally.addresses, tally.missed, tally.hangs, tally.violations,
           (double)(plk_now() - began) / 1e9);
    fflush(stdout);
    free(tally.killed_at);
    return tally.hangs + tally.violations + tally.missed != 0;
}

/* Every name in it is that of a path. */
static void check_list(const char *list)
{
    char *copy = list != NULL ? strdup(list) : NULL, *name;

    for (name = copy != NULL ? strtok(copy, ",") : NULL; name != NULL; name = strtok(NULL, ","))
        path_named(name);
    free(copy);
}

static int chosen(const char *list, const char *name)
{
    size_t length = strlen(name);
    const char *at = list;

    if (list == NULL)
        return 1;
    while ((at = strstr(at, name)) != NULL) {
        if ((at == list || at[-1] == ',') && (at[length] == ',' || at[length] == '\0'))
            return 1;
        at += length;
    }
    return 0;
}

/* Natively nobody is woken, so there are no bounded locks; and the first in their queue
 * is looked after by the clock, which a rescue does without. */
static int possible(const struct path *path)
{
    return path->policy == PLK_FIFO || !(config.native || config.rescue);
}

static int probe(void)
{
    const char *reason = victim_why_not();

    if (reason != NULL)
        printf("%s\n", reason);
    return 0;
}

static enum breakage breakage_named(const char *name)
{
    static const char *const names[] = {[BLIND] = "blind", [HELD] = "held", [OWNER] = "owner"};
    unsigned i;

    for (i = BLIND; i <= OWNER; i++) {
        if (strcmp(names[i], name) == 0)
            return (enum breakage)i;
    }
    fail("nothing to break is called %s", name);
}

static void list_paths(void)
{
    unsigned i;

    for (i = 0; i < path_count; i++)
        printf("%s\t%s\n", paths[i].name, paths[i].meaning);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"slow", 1, NULL, 's'},    {"unpatched", 0, NULL, 'u'}, {"fence", 0, NULL, 'f'},
        {"cpu", 1, NULL, 'c'},     {"patience", 1, NULL, 'p'},  {"sample", 1, NULL, 'n'},
        {"paths", 1, NULL, 'P'},   {"list", 0, NULL, 'l'},      {"thread-exit", 1, NULL, 't'},
        {"break", 1, NULL, 'b'},   {"probe", 0, NULL, 'q'},     {"rescue", 0, NULL, 'r'},
        {NULL, 0, NULL, 0}};
    struct sigaction alarm_action = {.sa_handler = on_alarm};
    const char *list = NULL;
    unsigned sample = 0, i;
    int option, rc, found = 0;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 's': config.slow = optarg; break;
        case 'u': config.patched = 0; break;
        case 'f': config.barrier = PLK_BARRIER_FENCE; break;
        case 'c': config.cpu = atoi(optarg); break;
        case 'p': config.patience = atof(optarg); break;
        case 'n': sample = (unsigned)atoi(optarg); break;
        case 'P': list = optarg; break;
        case 't': thread_exit_at = strtoull(optarg, NULL, 0); break;
        case 'r': config.rescue = 1; break;
        case 'b': config.breakage = breakage_named(optarg); break;
        case 'l': list_paths(); return 0;
        case 'q': return probe();
        default: return 2;
        }
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* and all others die with this process */
    sigaction(SIGALRM, &alarm_action, NULL);
    rc = setup_ops();
    if (rc != 0)
        fail("can't make the configuration: %d", rc);
    check_list(list);
    start_over();
    for (i = 0; i < path_count; i++) {
        if (!chosen(list, paths[i].name))
            continue;
        if (!possible(&paths[i])) {
            printf("without\t%s\n", paths[i].name);
            continue;
        }
        if (paths[i].policy != config.policy) {
            config.policy = paths[i].policy;
            start_over();
        }
        found |= torture(&paths[i], sample);
    }
    dismiss_crew();
    return found;
}
