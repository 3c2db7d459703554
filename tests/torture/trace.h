/* trace.h - the victim, instruction by instruction. */
#ifndef TORTURE_TRACE_H
#define TORTURE_TRACE_H

#include "paths.h"
#include "victim.h"

/* A place to kill at: before the nth execution of the instruction at `address`, or,
 * asleep, during it. */
struct point {
    uint64_t address;
    uint32_t nth;
    uint8_t asleep;
    uint8_t last;    /* behind the last instruction */
    uint8_t changed; /* a shared word was changed by the instruction before */
    uint8_t inside;  /* locks that the victim is inside of, as a set of bits */
    uint8_t after_event;
};

struct trace {
    struct point *points; /* every instruction of one run, in order */
    unsigned count, room;
    struct point event;   /* where the path's event took place */
    int has_event;
    unsigned addresses;   /* distinct instructions */
};

/* Instructions of loops: the first so many executions of each are killed; later
 * ones only if something shared has changed just before, and of those no more
 * than the second figure. */
#define EXECUTIONS 3u
#define CHANGES 16u

/* Follow the victim, which stands at its first trap, through the whole path. */
enum outcome trace_record(const struct path *path, struct trace *trace);

/* Follow it to the point, in the same way; or quickly, with breakpoints. */
enum outcome trace_to(const struct path *path, const struct trace *trace, const struct point *point,
                      int quickly);

/* Whether a run kills there; nth and changed have been noted. */
int worth_killing(const struct point *point);

#endif
