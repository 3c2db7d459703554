/* world.c - the system as the core sees it: its calls are linked to the functions
 * __wrap_... below.  Time passes when somebody looks at the clock or sleeps, and
 * while the core sleeps, others act on the segment. */
#include "fuzz.h"

#include <linux/futex.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAVE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN 1
#endif
#endif
#ifdef HAVE_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#endif

#define ARENA ((uint64_t)1 << 40)      /* inaccessible, around every mapping of the segment */
#define WHOLLY_POISONED ((uint64_t)1 << 20) /* longer mappings are not: it takes too long */
#define LITTLE_MEMORY ((uint64_t)4 << 20)   /* of this machine, at once */
#define PATIENCE 300u                   /* pauses before a wait is mended */
#define ENDLESS 4000u                   /* pauses after which it is a hang */
#define LATE_NS 60000000000ull          /* a sleep without a deadline */

struct world world;
static unsigned char *arena;
static unsigned char *mapping; /* of the segment, by the core; NULL: none */
static uint64_t mapped_size;
static uint64_t gaps[9][2]; /* [from, to) between the parts */

void *__real_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t size);
int __real_madvise(void *at, size_t size, int advice);
int __real_posix_fallocate(int fd, off_t offset, off_t size);
int __real_fstat(int fd, struct stat *st);
ssize_t __real_pread(int fd, void *to, size_t size, off_t offset);
long __real_syscall(long number, ...);
int __real_clock_gettime(clockid_t clock, struct timespec *ts);
int __real_sched_yield(void);
FILE *__real_fopen(const char *path, const char *mode);

void world_start(void)
{
    world.fd = memfd_create("fuzz", MFD_CLOEXEC);
    arena = __real_mmap(NULL, ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (world.fd < 0 || arena == MAP_FAILED) {
        perror("fuzz");
        exit(2);
    }
}

void world_resize(uint64_t size)
{
    if (ftruncate(world.fd, (off_t)size) != 0)
        fail("the fuzzer can't make its file %llu bytes long", (unsigned long long)size);
    world.size = size;
}

void world_load(const struct shape *shape)
{
    uint64_t page;

    world_resize(0);
    world_resize(shape->size);
    for (page = 0; page * PLK_PAGE < shape->size; page++)
        if (shape->pages >> page & 1)
            world_write(page * PLK_PAGE, shape->image + page * PLK_PAGE, PLK_PAGE);
    memcpy(&world.geometry, shape->image + offsetof(struct plk_header, geometry), sizeof(world.geometry));
    world.now = 1000000000ull;
    world.enrolled = world.hostile = 0;
    world.fault = FAULT_NONE;
    world.running = 1;
    world_call(UINT64_MAX, NULL);
}

void world_call(uint64_t cell, void (*mend)(void))
{
    world.pauses = 0;
    world.cell = cell;
    world.mend = mend;
}

int world_read(uint64_t offset, void *to, size_t size)
{
    return offset < world.size && size <= world.size - offset &&
           __real_pread(world.fd, to, size, (off_t)offset) == (ssize_t)size;
}

static void poison_gaps(void)
{
    unsigned i;

    for (i = 0; i < 9; i++)
        if (mapped_size <= WHOLLY_POISONED && gaps[i][0] < gaps[i][1])
            ASAN_POISON_MEMORY_REGION(mapping + gaps[i][0], gaps[i][1] - gaps[i][0]);
}

/* The pages of [offset, offset + size) have memory: the core may use them. */
static void has_memory(uint64_t offset, uint64_t size)
{
    uint64_t from = offset / PLK_PAGE * PLK_PAGE;
    uint64_t to = (offset + size + PLK_PAGE - 1) / PLK_PAGE * PLK_PAGE;

    if (mapping == NULL || from >= mapped_size)
        return;
    if (to > mapped_size)
        to = mapped_size;
    ASAN_UNPOISON_MEMORY_REGION(mapping + from, to - from);
    poison_gaps();
}

int world_write(uint64_t offset, const void *from, size_t size)
{
    if (offset >= world.size || size > world.size - offset ||
        pwrite(world.fd, from, size, (off_t)offset) != (ssize_t)size)
        return 0;
    has_memory(offset, size);
    return 1;
}

/* Something of the segment is mapped by the core for the first time. */
static void mapped_now(void)
{
    struct plk_header h;
    const struct plk_geometry *g = &h.geometry;
    off_t from = 0;

    if (!world_read(0, &h, sizeof(h)) || g->size != mapped_size || world.size != mapped_size)
        fail("a segment was mapped whose length was not checked");
    memcpy(gaps, (const uint64_t[9][2]){
        {sizeof(h), g->off_channels},
        {g->off_channels + g->channels * sizeof(struct plk_channel), g->off_tombs},
        {g->off_tombs + g->tombs * sizeof(uint64_t), g->off_entries},
        {g->off_entries + g->entries * sizeof(struct plk_entry), g->off_vcpus},
        {g->off_vcpus + g->vcpus * sizeof(struct plk_vcpu), g->off_cells},
        {g->off_cells + (uint64_t)g->cells * g->stride, g->off_syncs},
        {g->off_syncs + (uint64_t)g->syncs * sizeof(struct plk_sync), g->off_nodes},
        {g->off_nodes + (uint64_t)g->noded * PLK_NODES * sizeof(struct plk_node), g->off_tallies},
        {g->off_tallies + ((uint64_t)g->vcpus + g->tallied) * sizeof(struct plk_tally), g->off_rings},
    }, sizeof(gaps));
    if (mapped_size > WHOLLY_POISONED)
        return;
    ASAN_POISON_MEMORY_REGION(mapping, mapped_size);
    while ((from = lseek(world.fd, from, SEEK_DATA)) >= 0) {
        off_t to = lseek(world.fd, from, SEEK_HOLE);

        ASAN_UNPOISON_MEMORY_REGION(mapping + from, (uint64_t)(to - from));
        from = to;
    }
    poison_gaps();
}

void world_check_over(void)
{
    if (world.mapped != 0)
        fail("%d mappings of the segment remain", world.mapped);
    if (world.held_count != 0)
        fail("%u mutexes of the segment remain locked", world.held_count);
}

uint64_t world_offset(const void *at)
{
    uint64_t offset = (uint64_t)((const unsigned char *)at - mapping);

    return mapping != NULL && offset < mapped_size ? offset : UINT64_MAX;
}

void world_others_act(void)
{
    uint32_t n;

    if (world.hostile && one_in(2))
        for (n = 1 + below(3); n != 0; n--)
            mutate_living();
}

/* This thread lets others run because it waits. */
static void pause_here(uint64_t ns)
{
    world.now += ns;
    world.pauses++;
    if (world.pauses >= ENDLESS)
        fail("a call does not return: %u pauses, %llu s of its time", world.pauses,
             (unsigned long long)(world.now / 1000000000));
    if (world.pauses >= PATIENCE) {
        world.hostile = 0;
        if (world.mend != NULL)
            world.mend();
    } else
        world_others_act();
}

static int faulty(enum fault fault) { return world.fault == fault && world.fault_at-- == 0; }

/* ------------------------------------------------------------------- calls */

void *__wrap_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset)
{
    if ((prot & (PROT_WRITE | PROT_EXEC)) == (PROT_WRITE | PROT_EXEC))
        fail("a mapping is writable and executable");
    if ((flags & MAP_FIXED) != 0) { /* the core puts zeros in the place of what it gives up */
        ASAN_UNPOISON_MEMORY_REGION(at, size <= WHOLLY_POISONED ? size : 0);
        return __real_mmap(at, size, prot, flags, fd, offset);
    }
    if (fd < 0)
        return __real_mmap(at, size, prot, flags, fd, offset);
    if (faulty(FAULT_MMAP)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    if (size == PLK_PAGE) /* by plk_format */
        return __real_mmap(at, size, prot, flags, fd, offset);
    if (size > ARENA / 4)
        fail("a mapping of %zu bytes", size);
    mapping = arena + ARENA / 2;
    if (__real_mmap(mapping, size, prot, flags | MAP_FIXED, fd, offset) != mapping)
        fail("mmap: %m");
    mapped_size = size;
    world.mapped++;
    mapped_now();
    world_others_act();
    return mapping;
}

int __wrap_munmap(void *at, size_t size)
{
    if (at != mapping)
        return __real_munmap(at, size);
    if (size != mapped_size)
        fail("%zu bytes are unmapped of a mapping of %llu", size, (unsigned long long)mapped_size);
    if (size <= WHOLLY_POISONED)
        ASAN_UNPOISON_MEMORY_REGION(mapping, size);
    mapping = NULL;
    world.mapped--;
    at = __real_mmap(at, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return at == MAP_FAILED ? -1 : 0;
}

int __wrap_posix_fallocate(int fd, off_t offset, off_t size)
{
    int rc;

    if (faulty(FAULT_FALLOCATE))
        return one_in(4) ? EINTR : ENOSPC;
    if (size > (off_t)LITTLE_MEMORY)
        return ENOSPC;
    world_others_act();
    rc = __real_posix_fallocate(fd, offset, size);
    if (rc == 0)
        has_memory((uint64_t)offset, (uint64_t)size);
    return rc;
}

int __wrap_madvise(void *at, size_t size, int advice)
{
    int rc;

    if (size > LITTLE_MEMORY) {
        errno = ENOMEM;
        return -1;
    }
    rc = __real_madvise(at, size, advice);
    if (rc == 0 && mapping != NULL)
        has_memory((uint64_t)((unsigned char *)at - mapping), size);
    return rc;
}

int __wrap_fstat(int fd, struct stat *st)
{
    if (faulty(FAULT_FSTAT)) {
        errno = EIO;
        return -1;
    }
    return __real_fstat(fd, st);
}

ssize_t __wrap_pread(int fd, void *to, size_t size, off_t offset)
{
    if (faulty(FAULT_PREAD)) {
        if (one_in(2)) {
            errno = one_in(2) ? EINTR : EIO;
            return -1;
        }
        return __real_pread(fd, to, below((uint32_t)size), offset);
    }
    return __real_pread(fd, to, size, offset);
}

FILE *__wrap_fopen(const char *path, const char *mode)
{
    if (faulty(FAULT_FOPEN)) {
        errno = EMFILE;
        return NULL;
    }
    return __real_fopen(path, mode);
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
    if (clock != CLOCK_MONOTONIC)
        return __real_clock_gettime(clock, ts);
    world.now += 1000;
    *ts = (struct timespec){(time_t)(world.now / 1000000000), (long)(world.now % 1000000000)};
    return 0;
}

int __wrap_clock_nanosleep(clockid_t clock, int flags, const struct timespec *ts, struct timespec *left)
{
    (void)clock, (void)flags, (void)ts, (void)left;
    pause_here(1000000);
    return 0;
}

int __wrap_sched_yield(void)
{
    if (!world.running) /* a runtime that is linked in calls it, too */
        return __real_sched_yield();
    pause_here(1000000);
    return 0;
}

int __wrap_sched_getcpu(void) { return 3; }

static long futex_wait(uint32_t *word, uint32_t value, const struct timespec *until)
{
    uint64_t end = until == NULL ? world.now + LATE_NS
                                 : (uint64_t)until->tv_sec * 1000000000ull + (uint64_t)until->tv_nsec;

    if (until != NULL && (until->tv_nsec < 0 || until->tv_nsec >= 1000000000))
        fail("an impossible time to sleep until");
    errno = EAGAIN;
    if (__atomic_load_n(word, __ATOMIC_SEQ_CST) != value)
        return -1;
    switch (below(4)) {
    case 1: /* woken in the middle */
        pause_here(end > world.now ? (end - world.now) / 2 : 0);
        return 0;
    case 2:
        pause_here(1000);
        errno = EINTR;
        return -1;
    default:
        pause_here(end > world.now ? end - world.now : 1000);
        errno = ETIMEDOUT;
        return -1;
    }
}

/* Callers give as many arguments as their call has. */
__attribute__((no_sanitize("address"))) long __wrap_syscall(long number, ...)
{
    long a[6];
    va_list arguments;
    unsigned i;

    va_start(arguments, number);
    for (i = 0; i < 6; i++)
        a[i] = va_arg(arguments, long);
    va_end(arguments);
    if (number == SYS_membarrier && a[0] != 0) /* nobody else runs */
        return 0;
    if (number != SYS_futex)
        return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    /* plk_futex_works asks with a word of its own; the rest lies in the segment */
    if (world_offset((void *)a[0]) != UINT64_MAX && (a[0] & 3) != 0)
        fail("a futex word that is not aligned");
    if ((a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET)
        return futex_wait((uint32_t *)a[0], (uint32_t)a[2], (const struct timespec *)a[3]);
    return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
