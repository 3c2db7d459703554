#include "hv/slot.h"

#include <string.h>

#include "hv/recovery.h"
#include "hv/reserve.h"
#include "hv/robust.h"
#include "recover/life.h"

/* A slot that can be taken: free, or its thread died and left nothing, or what it
 * left has been recovered just now. */
static int plk_slot_takable(struct plk_segment *s, uint32_t index)
{
    struct plk_vcpu *v = plk_vcpu_at(s, index);
    uint32_t state = PLK_LOAD(&v->state);

    if (state == PLK_VCPU_FREE)
        return plk_life_of(v) != PLK_LIFE_ALIVE; /* else its thread is just letting go */
    if (state != PLK_VCPU_ONLINE || plk_life_of(v) != PLK_LIFE_DEAD)
        return 0;
    return !plk_vcpu_busy(v) || plk_recover_vcpu(s, index) == 0;
}

static int plk_slot_search(struct plk_segment *s, int64_t used, uint32_t *found)
{
    for (*found = 0; *found < used; ++*found) {
        if (plk_slot_takable(s, *found))
            return 1;
    }
    return 0;
}

int plk_slot_find(struct plk_segment *s, uint64_t pid_ns, uint32_t *found)
{
    int64_t used = plk_slots_ready(s);
    int rc;

    if (used < 0)
        return (int)used;
    if (plk_slot_search(s, used, found))
        return 0;
    if (used == s->geometry.vcpus)
        return plk_recover_lapsed(s, pid_ns) != 0 && plk_slot_search(s, used, found) ? 0 : -EUSERS;
    rc = plk_reserve(s, plk_vcpu_at(s, *found), sizeof(struct plk_vcpu));
    if (rc != 0)
        return rc;
    PLK_STORE(&s->header->vcpus_next, *found + 1);
    return 0;
}

int plk_slot_take(struct plk_vcpu *v, const struct plk_identity *who)
{
    int rc;

    PLK_STORE_RELEASE(&v->state, PLK_VCPU_CLAIMED);
    PLK_STORE(&v->pending, 0);
    PLK_STORE(&v->ticket, PLK_NO_TICKET);
    PLK_STORE(&v->held, 0);
    PLK_STORE(&v->depth, 0);
    PLK_STORE(&v->burying, 0);
    PLK_STORE(&v->channel, 0);
    PLK_STORE(&v->cpu, 0);
    PLK_STORE(&v->wait_since, 0);
    PLK_STORE(&v->generation, PLK_LOAD(&v->generation) + 1);
    PLK_STORE(&v->pid, who->pid);
    PLK_STORE(&v->tid, who->tid);
    PLK_STORE(&v->start_time, who->start_time);
    PLK_STORE(&v->pid_ns, who->pid_ns);
    rc = plk_robust_init(&v->life.mutex);
    if (rc == 0)
        rc = -pthread_mutex_lock(&v->life.mutex);
    PLK_STORE_RELEASE(&v->state, rc == 0 ? PLK_VCPU_ONLINE : PLK_VCPU_FREE);
    return rc;
}
