/* fuzz.h - a fuzzer of everything that reads a segment, as one deterministic program.
 *
 * An input is a string of bytes.  Every decision (which segment to begin with, what
 * to write over, which call comes next, what happens while it waits) takes some of
 * them, and zeros once they are used up; so an input is all that is needed to
 * see an execution again.
 *
 *   fuzz.c     inputs: new ones, those kept because they reached new code, those that failed
 *   shapes.c   healthy segments in various states, to begin with
 *   fields.c   where every field of them lies
 *   mutate.c   what is done to them, before and after they are attached
 *   world.c    the system calls that the core makes: a clock that moves only when it is
 *              looked at, sleeps that others use to write over the segment, faults
 *   mutexes.c  the part of it that is locked
 *   targets.c  the calls that are made: an execution; looks.c, waits.c, syncs.c: calls by subject
 *   results.c  which results each of them may have (targets.h)
 *
 * What is detected: accesses outside the mapping (it lies between inaccessible
 * ones), in the gaps between its parts and in pages that were never reserved
 * (poisoned), undefined behaviour, results that no caller expects, waits that do
 * not end, and memory, mappings or descriptors that remain.
 *
 * Out of scope, because no check can help: the links in a robust mutex that this
 * thread holds (its life word, its fibres', and the guard while it is held), which the C
 * library follows, and the kind of one between the check and the call: csrc/hv/robust.h.  And
 * who waits in a queue that others have destroyed may wait for ever; after a while the
 * fuzzer lets his turn come.  Which ticket that is, the wait itself tells: whatever else it
 * waits for has an end. */
#ifndef SANITIZE_FUZZ_H
#define SANITIZE_FUZZ_H

#include <stdio.h>

#include <pylocks.h>

#include "recover/segment.h"

#define FUZZ_INPUT_MAX 512u
#define FUZZ_HUGE ((uint64_t)12 << 30) /* longest file that is tried */

/* ------------------------------------------------------------------ inputs */

uint64_t take(unsigned bytes);      /* the next bytes of the input as a number */
uint32_t below(uint32_t n);         /* 0 .. n - 1 */
int one_in(uint32_t n);             /* true once in n, and never at the end of the input */
int input_left(void);               /* some bytes are not used up */
void input_ends(void);              /* none are, from now on */

/* Report what was found: saves the input and ends the program. */
__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...);
extern int verbose;
#define SAY(...) ((void)(verbose && fprintf(stderr, __VA_ARGS__)))

/* ------------------------------------------------------------------ shapes */

struct shape {
    const char *name;
    uint32_t vcpus, cells, stride, channels, tombs, entries, protocol, barrier, array;
    void (*fill)(struct plk_segment *s);
    /* made at the start */
    unsigned char *image;
    uint64_t size;
    uint64_t pages; /* bit n: page n has memory */
};

extern struct shape shapes[];
extern const unsigned shape_count;
void shapes_make(void);

/* A name for the directory, from a small set. */
const char *shape_name(uint32_t n, uint32_t *length);

/* ------------------------------------------------------------------- world */

#define HELD_MAX 64u

struct world {
    int fd;            /* the segment's file, the fuzzer's own descriptor */
    uint64_t size;     /* of the file */
    struct plk_geometry geometry; /* as it was made: where things lie */
    uint64_t now;      /* CLOCK_MONOTONIC, ns */
    uint32_t pauses;   /* sleeps, yields and naps in this call */
    int running;       /* an execution is under way */
    int hostile;       /* others write to the segment during calls */
    int enrolled;      /* this thread is a vCPU of it */
    uint32_t slot;     /* its index */
    int locking;       /* it is just about to lock the domain's mutex */
    uint64_t held[HELD_MAX]; /* where the mutexes lie that this thread holds */
    unsigned held_count;
    int mapped;        /* mappings that exist */
    uint64_t cell;     /* which the present call is about, or UINT64_MAX */
    void (*mend)(void); /* ends a wait that nothing else will */
    uint32_t fault, fault_at; /* enum fault, and how many of its calls still succeed */
};
extern struct world world;

enum fault { FAULT_NONE, FAULT_FALLOCATE, FAULT_MMAP, FAULT_FSTAT, FAULT_PREAD, FAULT_FOPEN, FAULT_COUNT };

void world_start(void);
void world_load(const struct shape *shape);
void world_resize(uint64_t size);
void world_call(uint64_t cell, void (*mend)(void)); /* before each call of the core */
int world_read(uint64_t offset, void *to, size_t size);  /* 0: beyond the end */
int world_write(uint64_t offset, const void *from, size_t size);
uint64_t world_offset(const void *at); /* in the segment; UINT64_MAX: not there */
void world_others_act(void);           /* others have a moment */
int world_holds(uint64_t offset, uint64_t size); /* the links of a mutex that this thread holds lie there */
void world_check_over(void); /* nothing is left of an attachment */

/* ------------------------------------------------------------------ mutate */

void mutate_file(void);   /* before anybody has attached it */
void mutate_living(void); /* while it is attached, and in the middle of a call */
uint32_t nonexistent_tid(void);

/* ----------------------------------------------------------------- targets */

void execute(void); /* one input */
void note_the_seat(void); /* sets world.enrolled and world.slot */

#endif
