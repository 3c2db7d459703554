#include "hv/robust.h"

#include <sys/syscall.h>
#include <unistd.h>

#include "recover/life.h"

int plk_robust_init(pthread_mutex_t *mutex)
{
    pthread_mutexattr_t attr;
    int rc = pthread_mutexattr_init(&attr);

    if (rc == 0)
        rc = pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    if (rc == 0)
        rc = pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    if (rc == 0)
        rc = pthread_mutex_init(mutex, &attr);
    pthread_mutexattr_destroy(&attr);
    return -rc;
}

#if defined(__GLIBC__)
/* The kind as this C library writes it; 0, which is none of a robust mutex: not known yet. */
static int plk_robust_kind(void)
{
    static int kind;
    pthread_mutex_t fresh;

    if (PLK_LOAD(&kind) == 0 && plk_robust_init(&fresh) == 0) {
        PLK_STORE(&kind, fresh.__data.__kind);
        pthread_mutex_destroy(&fresh);
    }
    return PLK_LOAD(&kind);
}

int plk_robust_sound(const pthread_mutex_t *mutex)
{
    return PLK_LOAD(&mutex->__data.__kind) == plk_robust_kind();
}

static void plk_robust_mend(pthread_mutex_t *mutex)
{
    uint32_t *word = (uint32_t *)(void *)((char *)mutex + PLK_LIFE_WORD);
    uint32_t tid = (uint32_t)syscall(SYS_gettid);

    if (!plk_robust_sound(mutex))
        PLK_STORE(&mutex->__data.__kind, plk_robust_kind());
    if ((PLK_LOAD(word) & FUTEX_TID_MASK) != tid)
        PLK_STORE(word, tid | FUTEX_WAITERS); /* somebody may have been asleep on the word that was there */
}
#else
int plk_robust_sound(const pthread_mutex_t *mutex)
{
    (void)mutex; /* where the kind lies is known of glibc alone */
    return 1;
}

static void plk_robust_mend(pthread_mutex_t *mutex) { (void)mutex; }
#endif

void plk_robust_unlock(pthread_mutex_t *mutex)
{
    plk_robust_mend(mutex);
    pthread_mutex_unlock(mutex);
}
