#include "hv/monitor.h"

#include <linux/bpf.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hv/robust.h"

#if defined(__GLIBC__)
PLK_STATIC_ASSERT(links, offsetof(pthread_mutex_t, __data.__list) == PLK_LIFE_SHOWN);
#endif

static int plk_bpf(int command, union bpf_attr *attr)
{
    long rc = syscall(SYS_bpf, command, attr, sizeof(*attr));

    return rc < 0 ? -errno : (int)rc;
}

int plk_marks_new(void)
{
    union bpf_attr attr;
    int fd, rc;

    memset(&attr, 0, sizeof(attr));
    attr.map_type = BPF_MAP_TYPE_ARRAY;
    attr.key_size = 4;
    attr.value_size = PLK_MARKS_BYTES; /* one element: the program reaches into it without a call */
    attr.max_entries = 1;
    attr.map_flags = BPF_F_MMAPABLE;
    memcpy(attr.map_name, "pylocks_marks", sizeof("pylocks_marks"));
    fd = plk_bpf(BPF_MAP_CREATE, &attr);
    if (fd < 0)
        return fd;
    /* From now on nobody but programs can write, whoever is given the descriptor. */
    memset(&attr, 0, sizeof(attr));
    attr.map_fd = (uint32_t)fd;
    rc = plk_bpf(BPF_MAP_FREEZE, &attr);
    if (rc < 0)
        close(fd);
    return rc < 0 ? rc : fd;
}

/* --------------------------------------------------------------- the program */

#define INSN(op, to, from, offset, value)                                          \
    ((struct bpf_insn){.code = (op), .dst_reg = (to), .src_reg = (from), .off = (offset), \
                       .imm = (int32_t)(value)})
/* 32 bits, as all arithmetic here but for ADD64; the upper half becomes 0. */
#define MOV(to, from) INSN(BPF_ALU | BPF_MOV | BPF_X, to, from, 0, 0)
#define MOVI(to, value) INSN(BPF_ALU | BPF_MOV | BPF_K, to, 0, 0, value)
#define ALUI(op, to, value) INSN(BPF_ALU | (op) | BPF_K, to, 0, 0, value)
#define OR(to, from) INSN(BPF_ALU | BPF_OR | BPF_X, to, from, 0, 0)
#define ADD64(to, from) INSN(BPF_ALU64 | BPF_ADD | BPF_X, to, from, 0, 0)
#define LOAD32(to, from, at) INSN(BPF_LDX | BPF_MEM | BPF_W, to, from, at, 0)
#define LOAD64(to, from, at) INSN(BPF_LDX | BPF_MEM | BPF_DW, to, from, at, 0)
#define STORE32(to, at, from) INSN(BPF_STX | BPF_MEM | BPF_W, to, from, at, 0)
#define MAP_VALUE(to, fd) \
    INSN(BPF_LD | BPF_DW | BPF_IMM, to, BPF_PSEUDO_MAP_VALUE, 0, fd), INSN(0, 0, 0, 0, 0)
#define IF_ZERO(reg, skip) INSN(BPF_JMP32 | BPF_JEQ | BPF_K, reg, 0, skip, 0)
#define UNLESS_IS(reg, value, skip) INSN(BPF_JMP32 | BPF_JNE | BPF_K, reg, 0, skip, value)
#define UNLESS_EQUAL(a, b, skip) INSN(BPF_JMP32 | BPF_JNE | BPF_X, a, b, skip, 0)
#define CALL(helper) INSN(BPF_JMP | BPF_CALL, 0, 0, 0, helper)
#define EXIT INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

/* r1 = the address of the mark of the thread in `tid`; MARK_LENGTH instructions. */
#define MARK(tid, fd)                                                                    \
    MOV(BPF_REG_2, tid), ALUI(BPF_LSH, BPF_REG_2, 4), MOV(BPF_REG_3, tid),               \
        ALUI(BPF_RSH, BPF_REG_3, 12), ALUI(BPF_AND, BPF_REG_3, 15), OR(BPF_REG_2, BPF_REG_3), \
        ALUI(BPF_AND, BPF_REG_2, PLK_MARKS - 1), ALUI(BPF_LSH, BPF_REG_2, 2),            \
        MAP_VALUE(BPF_REG_1, fd), ADD64(BPF_REG_1, BPF_REG_2)
#define MARK_LENGTH 11

int plk_monitor_load(int marks, uint32_t uid, uint32_t pid_offset, uint32_t tracepoint, char *log,
                     uint32_t log_size)
{
    /* Called with (preempt, prev, next, ...) on the CPU that switches, as prev still. */
    const struct bpf_insn program[] = {
        LOAD64(BPF_REG_2, BPF_REG_1, 16), /* next */
        LOAD64(BPF_REG_1, BPF_REG_1, 8),  /* prev */
        LOAD32(BPF_REG_8, BPF_REG_2, (int16_t)pid_offset),
        LOAD32(BPF_REG_7, BPF_REG_1, (int16_t)pid_offset),

        /* next runs: take its mark away, if it is its own */
        IF_ZERO(BPF_REG_8, MARK_LENGTH + 4), /* the idle thread */
        MARK(BPF_REG_8, marks),
        LOAD32(BPF_REG_3, BPF_REG_1, 0),
        UNLESS_EQUAL(BPF_REG_3, BPF_REG_8, 2),
        MOVI(BPF_REG_3, 0),
        STORE32(BPF_REG_1, 0, BPF_REG_3),

        /* prev does not: mark it, if it is the user's */
        IF_ZERO(BPF_REG_7, 2 + MARK_LENGTH + 1),
        CALL(BPF_FUNC_get_current_uid_gid),
        UNLESS_IS(BPF_REG_0, uid, MARK_LENGTH + 1),
        MARK(BPF_REG_7, marks),
        STORE32(BPF_REG_1, 0, BPF_REG_7),

        MOVI(BPF_REG_0, 0),
        EXIT,
    };
    union bpf_attr attr;

    if (pid_offset > INT16_MAX)
        return -ERANGE;
    memset(&attr, 0, sizeof(attr));
    attr.prog_type = BPF_PROG_TYPE_TRACING;
    attr.expected_attach_type = BPF_TRACE_RAW_TP;
    attr.attach_btf_id = tracepoint;
    attr.insns = (uint64_t)(uintptr_t)program;
    attr.insn_cnt = sizeof(program) / sizeof(program[0]);
    attr.license = (uint64_t)(uintptr_t) "Dual MIT/GPL"; /* the verifier asks for it */
    attr.log_buf = (uint64_t)(uintptr_t)log;
    attr.log_size = log_size;
    attr.log_level = log_size != 0;
    memcpy(attr.prog_name, "pylocks_switch", sizeof("pylocks_switch"));
    return plk_bpf(BPF_PROG_LOAD, &attr);
}

int plk_monitor_attach(int program)
{
    union bpf_attr attr;

    memset(&attr, 0, sizeof(attr));
    attr.raw_tracepoint.prog_fd = (uint32_t)program; /* which knows its tracepoint */
    return plk_bpf(BPF_RAW_TRACEPOINT_OPEN, &attr);
}

/* -------------------------------------------------------------- the life word */

static pthread_mutex_t *plk_monitor_life(void *pages)
{
    return (pthread_mutex_t *)(void *)((char *)pages + sysconf(_SC_PAGESIZE) - PLK_LIFE_SHOWN);
}

int plk_monitor_born(int life, void **pages)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    int rc;

    if (ftruncate(life, (off_t)page) != 0)
        return -errno;
    *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (*pages == MAP_FAILED)
        return -errno;
    if (mmap(*pages, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, life, 0) == MAP_FAILED)
        rc = -errno;
    else
        rc = plk_robust_init(plk_monitor_life(*pages));
    if (rc == 0)
        rc = -pthread_mutex_lock(plk_monitor_life(*pages));
    if (rc != 0)
        munmap(*pages, 2 * page);
    return rc;
}

void plk_monitor_ends(void *pages)
{
    plk_robust_unlock(plk_monitor_life(pages));
    munmap(pages, 2 * (size_t)sysconf(_SC_PAGESIZE));
}
