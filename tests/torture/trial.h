/* trial.h - one victim, one death, and the verdict on what it left. */
#ifndef TORTURE_TRIAL_H
#define TORTURE_TRIAL_H

#include "trace.h"

#define PROBLEM_ROOM 400

enum finding { FINE, MISSED, HUNG, VIOLATED };

/* What was seen at the moment of the kill. */
struct witness {
    uint64_t killed_at;      /* CLOCK_MONOTONIC ns; PLK_FOREVER: it lived on */
    uint64_t corpse_died_at; /* 0: it did not */
    uint32_t entries;  /* in the log by then */
    unsigned inside;   /* locks that the victim was inside of, */
    unsigned corpse_inside; /* and the corpse when it died */
    unsigned expected; /* locks whose next acquirer must be told of a death */
    int settled;       /* nobody was moving, so that `expected` is of one instant */
};

struct verdict {
    enum finding finding;
    char problem[PROBLEM_ROOM];
};

/* Follow a victim through the whole path and let it live: into *trace. */
void trial_record(const struct path *path, struct trace *trace, struct verdict *verdict);

/* Kill one at the point. */
void trial_kill(const struct path *path, const struct trace *trace, const struct point *point,
                int quickly, struct verdict *verdict);

/* From now on another victim dies at this point of another path before each run; NULL:
 * none does. */
void trial_after(const struct path *path, const struct trace *trace, const struct point *point);

/* End victim and corpse, however far they are. */
void trial_clear_away(void);

/* verdict.c: what is wrong now that the crew has got on; VIOLATED or FINE.  All parties
 * are idle or dead. */
void judge_log(const struct witness *seen, struct verdict *verdict);
void judge_words(struct verdict *verdict);
void judge_recovered(struct verdict *verdict); /* before plk_recover mends what it can */
void dump(FILE *out);

void blame(struct verdict *verdict, enum finding finding, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
