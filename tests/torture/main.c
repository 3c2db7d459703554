/* main.c - one configuration: every path, every point.
 *
 * Writes lines of tab-separated fields, which tests/torture/harness.py reads:
 *
 *   path     name, instructions, addresses, points, kills, addresses killed at,
 *            missed, hangs, violations, seconds
 *   finding  path, kind, address, nth, asleep, problem; lines of the state follow,
 *            each beginning with |
 *
 * Exit status: 0: nothing found; 1: something was; 2: could not be done. */
#include "trial.h"

#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hv/futex.h"

#define FINDINGS_MOST 3u /* of one path: each may take all the patience there is */
#define TRIES 4

struct config config = {.name = "", .slow = "futex", .patched = 1, .barrier = PLK_BARRIER_MEMBARRIER,
                        .patience = 10, .cpu = -1};

struct tally {
    unsigned points, kills, addresses, missed, hangs, violations;
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

static unsigned count_points(const struct trace *trace)
{
    unsigned i, points = 0;

    for (i = 0; i < trace->count; i++)
        points += worth_killing(&trace->points[i]) != 0;
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

static int torture(const struct path *path, unsigned sample)
{
    static struct trace trace;
    struct tally tally = {0};
    struct verdict verdict;
    uint64_t began = plk_now();
    unsigned i, number = 0;

    trial_record(path, &trace, &verdict);
    if (verdict.finding != FINE)
        report(path, NULL, &verdict, &tally);
    tally.points = verdict.finding == FINE ? count_points(&trace) : 0;
    tally.killed_at = calloc(trace.count + 1, sizeof(uint64_t));
    if (tally.killed_at == NULL)
        fail("no memory");
    for (i = 0; tally.points != 0 && i < trace.count; i++) {
        if (tally.hangs + tally.violations == FINDINGS_MOST)
            break;
        if (worth_killing(&trace.points[i]) &&
            in_sample(number++, tally.points, sample, (unsigned)(path - paths)))
            kill_at(path, &trace, &trace.points[i], &tally);
    }
    printf("path\t%s\t%u\t%u\t%u\t%u\t%u\t%u\t%u\t%u\t%.2f\n", path->name, trace.count, trace.addresses,
           tally.points, tally.kills, tally.addresses, tally.missed, tally.hangs, tally.violations,
           (double)(plk_now() - began) / 1e9);
    fflush(stdout);
    free(tally.killed_at);
    return tally.hangs + tally.violations + tally.missed != 0;
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
        {"blind", 0, NULL, 'b'},   {"amnesia", 0, NULL, 'a'},   {NULL, 0, NULL, 0}};
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
        case 'b': config.blind = 1; break;
        case 'a': config.amnesia = 1; break;
        case 'l': list_paths(); return 0;
        default: return 2;
        }
    }
    sigaction(SIGALRM, &alarm_action, NULL);
    rc = setup_ops();
    if (rc != 0)
        fail("can't make the configuration: %d", rc);
    start_over();
    for (i = 0; i < path_count; i++) {
        if (chosen(list, paths[i].name))
            found |= torture(&paths[i], sample);
    }
    dismiss_crew();
    return found;
}
