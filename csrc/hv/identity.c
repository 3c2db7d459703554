#include "hv/identity.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "recover/life.h"

static uint64_t plk_process_start(void)
{
    char text[1024], *at;
    FILE *file = fopen("/proc/self/stat", "re");
    unsigned long long start = 0;
    size_t size;
    int field;

    if (file == NULL)
        return 0;
    size = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[size] = '\0';
    at = strrchr(text, ')'); /* the command's name may hold anything */
    for (field = 2; at != NULL && field < 22; field++)
        at = strchr(at + 1, ' ');
    if (at == NULL || sscanf(at, " %llu", &start) != 1)
        return 0;
    return start;
}

static uint64_t plk_pid_namespace(void)
{
    struct stat st;

    return stat("/proc/self/ns/pid", &st) == 0 ? (uint64_t)st.st_ino : 0;
}

struct plk_identity plk_identify(void)
{
    return (struct plk_identity){plk_process_start(), plk_pid_namespace(), (int32_t)getpid(),
                                 (int32_t)syscall(SYS_gettid)};
}

int plk_life_lapsed(const struct plk_vcpu *v, uint64_t pid_ns)
{
    int32_t pid = PLK_LOAD(&v->pid), tid = PLK_LOAD(&v->tid);
    int saved = errno, lapsed;

    if (PLK_LOAD_ACQUIRE(&v->state) != PLK_VCPU_ONLINE || plk_life_of(v) != PLK_LIFE_ALIVE ||
        pid_ns == 0 || PLK_LOAD(&v->pid_ns) != pid_ns || pid <= 0 || tid <= 0)
        return 0;
    lapsed = syscall(SYS_tgkill, pid, tid, 0) != 0 && errno == ESRCH;
    errno = saved;
    return lapsed;
}

int plk_life_settle(struct plk_vcpu *v, uint64_t pid_ns)
{
    if (!plk_life_lapsed(v, pid_ns))
        return 0;
    __atomic_fetch_or((uint32_t *)(void *)(v->life.bytes + PLK_LIFE_WORD), FUTEX_OWNER_DIED,
                      __ATOMIC_SEQ_CST);
    return 1;
}
