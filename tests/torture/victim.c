/* victim.c - stepping, breakpoints, and what counts as one instruction.
 *
 * The tracer and its victims are the same image at the same addresses, so it reads
 * the victim's code in its own text.
 *
 * Stepped through: the executable's own text, which is the lock and little else,
 * and those functions of the C library that change shared memory, the mutex calls
 * above all.  Any other library function counts as one instruction, as a system
 * call does: it is run until it returns.
 *
 * A single step costs an exception that a hypervisor may have to look at; an int3
 * does not.  So a path is stepped once, to learn where it goes, and each later run
 * goes to its point by breakpoints. */
#include "victim.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#if !defined(__x86_64__)
#error "stepping is written for x86_64: int3, syscall, ret"
#endif

#define INT3 0xccu

volatile sig_atomic_t out_of_patience;
uint64_t thread_exit_at;

extern const char __executable_start[], etext[];

/* ------------------------------------------------------------- one victim */

struct victim victim;

static int is_own(uint64_t rip) { return rip >= (uint64_t)__executable_start && rip < (uint64_t)etext; }

static unsigned char code_at(uint64_t rip) { return *(const unsigned char *)rip; }

static int is_syscall(uint64_t rip) { return code_at(rip) == 0x0f && code_at(rip + 1) == 0x05; }

static int is_return(uint64_t rip)
{
    return code_at(rip) == 0xc3 || (code_at(rip) == 0xf3 && code_at(rip + 1) == 0xc3);
}

static uint64_t reg(size_t offset)
{
    return (uint64_t)ptrace(PTRACE_PEEKUSER, victim.pid, offset, 0);
}

#define REG(name) reg(offsetof(struct user, regs.name))

void victim_plant(struct breakpoint *b, uint64_t at)
{
    b->at = at;
    b->word = ptrace(PTRACE_PEEKTEXT, victim.pid, at, 0);
    ptrace(PTRACE_POKETEXT, victim.pid, at, (b->word & ~0xffl) | INT3);
}

void victim_lift(const struct breakpoint *b) { ptrace(PTRACE_POKETEXT, victim.pid, b->at, b->word); }

int process_sleeps(pid_t pid)
{
    char path[40], text[256], *at;
    ssize_t got;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    got = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[got > 0 ? got : 0] = '\0';
    at = strrchr(text, ')');
    return at != NULL && at[1] == ' ' && at[2] == 'S';
}

/* Wait until it stops: REACHED, with its rip.  With may_sleep also REACHED, and
 * victim.asleep, once it sleeps in a system call. */
static enum outcome await_stop(int may_sleep)
{
    int status;
    pid_t got;

    for (;;) {
        got = waitpid(victim.pid, &status, __WALL | (may_sleep ? WNOHANG : 0));
        if (got == victim.pid)
            break;
        if (got < 0 && errno != EINTR)
            return GONE;
        if (out_of_patience)
            return STUCK;
        if (got == 0) {
            if (process_sleeps(victim.pid)) {
                victim.asleep = 1;
                return REACHED;
            }
            sched_yield();
        }
    }
    victim.asleep = 0;
    if (!WIFSTOPPED(status)) {
        victim.pid = 0;
        return GONE;
    }
    victim.rip = REG(rip);
    return WSTOPSIG(status) == SIGTRAP ? REACHED : BROKEN;
}

static enum outcome resume(int how, int may_sleep)
{
    if (ptrace(how, victim.pid, 0, 0) != 0)
        return GONE;
    return await_stop(may_sleep);
}

/* It has just arrived in a library function: come back to code that is stepped. */
static enum outcome run_out(int by_return)
{
    static void *const *through;
    static void *functions[8];
    struct breakpoint back = {0, 0}, callback = {0, 0};
    enum outcome got;
    unsigned i;

    if (through == NULL) {
        static const char *const names[] = {"pthread_mutex_lock", "pthread_mutex_timedlock",
                                            "pthread_mutex_trylock", "pthread_mutex_unlock",
                                            "pthread_mutex_consistent", "syscall"};

        for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
            functions[i] = dlsym(RTLD_DEFAULT, names[i]);
        through = functions;
    }
    if (!by_return) {
        uint64_t to = (uint64_t)ptrace(PTRACE_PEEKDATA, victim.pid, REG(rsp), 0);

        for (i = 0; through[i] != NULL; i++) {
            if ((uint64_t)through[i] == victim.rip) {
                victim.through = to;
                return REACHED;
            }
        }
        victim_plant(&back, to);
    }
    if (thread_exit_at != 0)
        victim_plant(&callback, thread_exit_at);
    got = resume(PTRACE_CONT, 0);
    if (got == GONE)
        return GONE;
    if (thread_exit_at != 0)
        victim_lift(&callback);
    if (!by_return)
        victim_lift(&back);
    if (got != REACHED)
        return got;
    if (victim.rip - 1 != back.at && victim.rip - 1 != callback.at)
        return BROKEN;
    victim_set_back();
    victim.through = 0;
    return is_own(victim.rip) ? REACHED : run_out(1); /* after a tail call of a callback's */
}

enum outcome victim_continue(void) { return resume(PTRACE_CONT, 0); }

void victim_set_back(void)
{
    victim.rip--;
    ptrace(PTRACE_POKEUSER, victim.pid, offsetof(struct user, regs.rip), victim.rip);
    if (is_own(victim.rip))
        victim.through = 0;
    else if (victim.through == 0)
        victim.through = UINT64_MAX; /* stepped through, as it was when it was recorded */
}

enum outcome victim_step(void)
{
    uint64_t from = victim.rip;
    int futex = !victim.asleep && is_syscall(from) && REG(rax) == SYS_futex;
    enum outcome got = victim.asleep ? await_stop(0) : resume(PTRACE_SINGLESTEP, futex);

    if (got != REACHED || victim.asleep)
        return got;
    if (is_own(victim.rip))
        victim.through = 0;
    else if (victim.through == 0)
        return run_out(is_return(from));
    return REACHED;
}

const char *victim_why_not(void)
{
    pid_t pid = fork();
    int status;

    if (pid == 0)
        _exit(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0 && raise(SIGTRAP) == 0 ? 0 : 1);
    if (pid < 0 || waitpid(pid, &status, __WALL) != pid)
        return "no child could be forked";
    if (!WIFSTOPPED(status))
        return "a child may not be traced (PTRACE_TRACEME is refused)";
    ptrace(PTRACE_SINGLESTEP, pid, 0, 0);
    if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status))
        return "a child can't be stepped through (PTRACE_SINGLESTEP is refused)";
    kill(pid, SIGKILL);
    waitpid(pid, &status, __WALL);
    return NULL;
}

int victim_at_end(void) { return is_own(victim.rip) && code_at(victim.rip) == INT3; }

enum outcome victim_begin(void)
{
    enum outcome got;

    victim.pid = stage->parties[VICTIM].pid;
    victim.through = 0;
    victim.asleep = 0;
    got = await_stop(0);
    if (got == REACHED)
        ptrace(PTRACE_SETOPTIONS, victim.pid, 0, PTRACE_O_EXITKILL);
    return got;
}

void victim_let_go(void)
{
    ptrace(PTRACE_POKEUSER, victim.pid, offsetof(struct user, regs.rip), victim.rip + 1); /* past it */
    ptrace(PTRACE_CONT, victim.pid, 0, 0);
}

enum outcome victim_reap(int *status)
{
    while (waitpid(victim.pid, status, __WALL) < 0) {
        if (errno != EINTR || out_of_patience)
            return STUCK;
    }
    if (WIFSTOPPED(*status))
        return BROKEN;
    victim.pid = 0;
    return GONE;
}

void victim_kill(void)
{
    int status;

    if (victim.pid == 0)
        return;
    kill(victim.pid, SIGKILL);
    do {
        while (waitpid(victim.pid, &status, __WALL) < 0 && errno == EINTR)
            ;
    } while (WIFSTOPPED(status));
    victim.pid = 0;
}

struct plk_vcpu *victim_vcpu(void)
{
    uint32_t used = PLK_LOAD(&segment->header->vcpus_next), i;

    for (i = 0; i < used; i++) {
        struct plk_vcpu *v = plk_vcpu_at(segment, i);

        if (PLK_LOAD(&v->state) == PLK_VCPU_ONLINE && PLK_LOAD(&v->pid) == stage->parties[VICTIM].pid) {
            stage->parties[VICTIM].slot = i;
            return v;
        }
    }
    return NULL;
}

/* It died on its way into a lock, and held another one, so nobody can tell whether it
 * was inside: then it counts as if it were (hv/recovery.c). */
static int in_doubt(const struct plk_vcpu *v)
{
    return PLK_LOAD(&v->ticket) == PLK_NO_TICKET && PLK_LOAD(&v->held) > PLK_LOAD(&v->depth) + 1;
}

unsigned party_inside(int who, const struct plk_vcpu *v)
{
    unsigned inside = 0;
    uint32_t lock;

    for (lock = 0; v != NULL && lock < LOCKS; lock++) {
        const struct plk_cell *cell = locks[lock].cell;
        uint64_t head = PLK_LOAD(&cell->head);

        if (PLK_LOAD(&cell->owner) == PLK_OWNER(head, stage->parties[who].slot + 1) &&
            head != PLK_LOAD(&cell->tail) &&
            (PLK_LOAD(&v->pending) != locks[lock].id || (in_doubt(v) && locks[lock].policy == PLK_FIFO)))
            inside |= 1u << lock;
    }
    return inside;
}
