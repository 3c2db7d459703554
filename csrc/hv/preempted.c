/* hv/preempted.c - from a monitor's socket to its marks.
 *
 * One view a process, for all its domains: marks are by thread, whatever it holds.
 * It is looked for at attach and then, seldom, by waiters who miss it.  Those must
 * not wait for a monitor that is short of CPU time, so each look is one step
 * (connect; take the answer) of calls that return at once.
 *
 * The monitor's life word says whether the marks mean anything.  The kernel marks
 * it when the monitor dies, however it dies, so there is no time of a heartbeat in
 * which marks that nobody clears any more would be believed, and a monitor that is
 * stopped or starved goes on being believed, rightly: the program in the kernel runs.
 *
 * Nobody can tell when the last reader has left a view, so none is unmapped; one
 * that is replaced becomes empty memory, which says that all run. */
#include "hv/preempted.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "hv/futex.h"
#include "recover/life.h"

#define PLK_LOOK_SOON 1000000u     /* ns: an answer comes when the monitor gets a CPU */
#define PLK_LOOK_AGAIN 1000000000u /* ns: between attempts; so long one waits for its answer */
#define PLK_LOOK_TURNS 16u         /* questions without a monitor between looks at the clock */

static struct {
    const unsigned char *view; /* page with the life word, then the marks; NULL: never had one */
    uint32_t looker;           /* pid of the process that is at what follows; 0: nobody */
    uint32_t state;            /* enum plk_monitor_state: what came of the last look */
    uint32_t turns;
    int asked;                 /* the connected socket, if state is ASKED */
    dev_t device;              /* of asked: its number may become another's, if the */
    ino_t inode;               /* program closes descriptors that it does not know */
    uint64_t give_up, next;
} plk_sight;

static size_t plk_page(void) { return (size_t)sysconf(_SC_PAGESIZE); }

static uint32_t plk_view_word(const unsigned char *view, size_t offset)
{
    return PLK_LOAD((const uint32_t *)(const void *)(view + offset));
}

static int plk_view_alive(const unsigned char *view)
{
    uint32_t word = plk_view_word(view, plk_page() - PLK_LIFE_SHOWN + PLK_LIFE_WORD);

    return (word & FUTEX_TID_MASK) != 0 && (word & FUTEX_OWNER_DIED) == 0;
}

uint32_t plk_monitor_state(void)
{
    const unsigned char *view = PLK_LOAD_ACQUIRE(&plk_sight.view);
    uint32_t state = PLK_LOAD(&plk_sight.state);

    if (view != NULL && plk_view_alive(view))
        return PLK_MONITOR_SEEN;
    if (view != NULL && (state == PLK_MONITOR_SEEN || state == PLK_MONITOR_NONE))
        return PLK_MONITOR_ENDED;
    return state;
}

int plk_thread_out(uint32_t tid)
{
    const unsigned char *view = PLK_LOAD_ACQUIRE(&plk_sight.view); /* pairs with its publication */

    if (view == NULL || !plk_view_alive(view))
        return -1;
    return tid != 0 && plk_view_word(view, plk_page() + 4 * (size_t)plk_mark_at(tid)) == tid;
}

/* ------------------------------------------------------------------ mapping */

/* Map both behind one another and publish.  0 or a negative errno. */
static int plk_view_map(int life, int marks)
{
    const unsigned char *old = plk_sight.view;
    size_t page = plk_page();
    struct stat st;
    unsigned char *view;

    /* Short, or shortened later, they would fault; the kernel's maps can't be. */
    if (fstat(life, &st) != 0 || st.st_size < (off_t)page ||
        (fcntl(life, F_GET_SEALS) & F_SEAL_SHRINK) == 0 || fstat(marks, &st) != 0 ||
        S_ISREG(st.st_mode))
        return -EPROTO;
    view = mmap(NULL, page + PLK_MARKS_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (view == MAP_FAILED)
        return -errno;
    if (mmap(view, page, PROT_READ, MAP_SHARED | MAP_FIXED, life, 0) == MAP_FAILED ||
        mmap(view + page, PLK_MARKS_BYTES, PROT_READ, MAP_SHARED | MAP_FIXED, marks, 0) ==
            MAP_FAILED) {
        int error = errno;

        munmap(view, page + PLK_MARKS_BYTES);
        return -error;
    }
    PLK_STORE_RELEASE(&plk_sight.view, view);
    if (old != NULL)
        mmap((void *)(uintptr_t)old, page + PLK_MARKS_BYTES, PROT_READ,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return 0;
}

/* ------------------------------------------------------------------- asking */

static uint32_t plk_hang_up(uint32_t state)
{
    close(plk_sight.asked);
    return state;
}

static uint32_t plk_ask(uint64_t now)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int length = snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, PLK_MARKS_SOCKET "%u",
                          (unsigned)geteuid());
    struct ucred who;
    socklen_t size = sizeof(who);
    struct stat st;

    plk_sight.asked = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (plk_sight.asked < 0)
        return PLK_MONITOR_FAILED;
    if (connect(plk_sight.asked, (struct sockaddr *)&name,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length)) != 0)
        return plk_hang_up(PLK_MONITOR_NONE);
    /* Abstract names are anybody's to take: believe root and oneself. */
    if (getsockopt(plk_sight.asked, SOL_SOCKET, SO_PEERCRED, &who, &size) != 0 ||
        fstat(plk_sight.asked, &st) != 0)
        return plk_hang_up(PLK_MONITOR_FAILED);
    if (who.uid != 0 && who.uid != geteuid())
        return plk_hang_up(PLK_MONITOR_STRANGER);
    plk_sight.device = st.st_dev;
    plk_sight.inode = st.st_ino;
    plk_sight.give_up = now + PLK_LOOK_AGAIN;
    return PLK_MONITOR_ASKED;
}

static uint32_t plk_take_view(const struct plk_greeting *greeting, ssize_t got, const int *fds,
                              size_t count)
{
    int rc;

    if (got != (ssize_t)sizeof(*greeting) || count != 2 || greeting->magic != PLK_MARKS_MAGIC ||
        greeting->marks != PLK_MARKS || greeting->uid != geteuid())
        return PLK_MONITOR_UNLIKE;
    rc = plk_view_map(fds[0], fds[1]);
    if (rc == 0)
        return PLK_MONITOR_SEEN;
    return rc == -EPROTO || rc == -EINVAL ? PLK_MONITOR_UNLIKE : PLK_MONITOR_FAILED;
}

static uint32_t plk_answer(uint64_t now)
{
    struct plk_greeting greeting;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } control;
    struct iovec into = {&greeting, sizeof(greeting)};
    struct msghdr message = {.msg_iov = &into, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    struct cmsghdr *part;
    size_t count = 0, i;
    uint32_t state;
    struct stat st;
    ssize_t got;
    int fds[2];

    if (fstat(plk_sight.asked, &st) != 0 || st.st_dev != plk_sight.device ||
        st.st_ino != plk_sight.inode)
        return PLK_MONITOR_NONE; /* closed by others, and not ours to close any more */
    got = recvmsg(plk_sight.asked, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return now < plk_sight.give_up ? PLK_MONITOR_ASKED : plk_hang_up(PLK_MONITOR_NONE);
    if (got <= 0)
        return plk_hang_up(got == 0 ? PLK_MONITOR_REFUSED : PLK_MONITOR_NONE);
    part = CMSG_FIRSTHDR(&message);
    if (part != NULL && part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS) {
        count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(fds, CMSG_DATA(part), count * sizeof(int)); /* no more than `control` has room for */
    }
    state = plk_take_view(&greeting, got, fds, count);
    for (i = 0; i < count; i++)
        close(fds[i]); /* mappings do not need them */
    return plk_hang_up(state);
}

uint32_t plk_monitor_look(void)
{
    uint32_t me = (uint32_t)getpid(), was = PLK_LOAD(&plk_sight.looker), state;
    int saved = errno;
    uint64_t now;

    /* Another thread, or the frame below this signal handler, is at it.  A pid that is
     * not this process's was left by a thread that a fork did not take along. */
    if (was == me || plk_monitor_state() == PLK_MONITOR_SEEN ||
        !__atomic_compare_exchange_n(&plk_sight.looker, &was, me, 0, __ATOMIC_ACQUIRE,
                                     __ATOMIC_RELAXED))
        return plk_monitor_state();
    now = plk_now();
    state = plk_sight.state == PLK_MONITOR_ASKED ? plk_answer(now) : plk_ask(now);
    PLK_STORE(&plk_sight.state, state);
    PLK_STORE(&plk_sight.next, now + (state == PLK_MONITOR_ASKED ? PLK_LOOK_SOON : PLK_LOOK_AGAIN));
    PLK_STORE_RELEASE(&plk_sight.looker, 0); /* pairs with the exchange of the next looker */
    errno = saved;
    return plk_monitor_state();
}

int plk_holder_out(const struct plk_wait *w, uint64_t head)
{
    const struct plk_segment *s = plk_segment_of(w->lock->domain);
    uint64_t owner = PLK_LOAD(&w->lock->cell->owner);
    uint32_t index = PLK_OWNER_VCPU(owner);
    const struct plk_vcpu *v;
    int out;

    if (index >= plk_slots(s) || !PLK_OWNER_VALID(owner, head))
        return 0;
    v = plk_vcpu_at(s, index);
    out = plk_thread_out((uint32_t)PLK_LOAD(&v->tid));
    if (out >= 0)
        return PLK_LOAD(&v->pid_ns) == PLK_FIRST_PID_NS ? out : -1;
    PLK_STORE(&plk_sight.turns, PLK_LOAD(&plk_sight.turns) + 1);
    if (PLK_LOAD(&plk_sight.turns) % PLK_LOOK_TURNS == 0 && plk_now() >= PLK_LOAD(&plk_sight.next))
        plk_monitor_look();
    return -1;
}
