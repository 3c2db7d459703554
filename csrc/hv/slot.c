#include "hv/slot.h"

#include <string.h>

#include "hv/recovery.h"
#include "hv/reserve.h"
#include "hv/robust.h"
#include "recover/life.h"

/* A slot that can be taken: free, or its thread died and left nothing; one that was
 * being taken was so under a holder of the domain mutex that died at it. */
static int plk_slot_takable(const struct plk_vcpu *v)
{
    uint32_t state = PLK_LOAD_ACQUIRE(&v->state);
    enum plk_life life = plk_life_of(v);

    if (state != PLK_VCPU_ONLINE)
        return life != PLK_LIFE_ALIVE; /* else its thread is just letting go */
    return life == PLK_LIFE_DEAD && !plk_vcpu_busy(v);
}

static int plk_slot_search(struct plk_segment *s, int64_t used, uint32_t *found)
{
    for (*found = 0; *found < used; ++*found) {
        if (plk_slot_takable(plk_vcpu_at(s, *found)))
            return 1;
    }
    return 0;
}

/* The table is full: is anybody in it gone of whom the kernel did not tell? */
static int plk_slot_last_resort(struct plk_segment *s, uint64_t pid_ns, int64_t used, uint32_t *found)
{
    if (plk_recover_lapsed(s, pid_ns) == 0)
        return 0;
    plk_recover_dead(s);
    return plk_slot_search(s, used, found);
}

int plk_slot_find(struct plk_segment *s, uint64_t pid_ns, uint32_t *found)
{
    int64_t used = plk_slots_ready(s);
    int rc;

    if (used < 0)
        return (int)used;
    plk_recover_dead(s);
    if (plk_slot_search(s, used, found))
        return 0;
    if (used == s->geometry.vcpus)
        return plk_slot_last_resort(s, pid_ns, used, found) ? 0 : -EUSERS;
    rc = plk_reserve(s, plk_vcpu_at(s, *found), sizeof(struct plk_vcpu));
    if (rc != 0)
        return rc;
    PLK_STORE(&s->header->vcpus_next, *found + 1);
    return 0;
}

int plk_slot_take(struct plk_vcpu *v, const struct plk_identity *who)
{
    unsigned call;
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
    PLK_STORE(&v->nodes_left, PLK_LOAD(&v->nodes_left) | PLK_LOAD(&v->nodes)); /* csrc/sync frees them */
    PLK_STORE(&v->nodes, 0);
    for (call = 0; call < PLK_CALLS; call++) {
        if (call != PLK_CALL_KICK) /* [H1] that is the service's to clear: it may be at it */
            PLK_STORE(&v->hypercall[call], 0);
    }
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
