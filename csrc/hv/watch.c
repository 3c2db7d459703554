#include "hv/watch.h"

#include "hv/futex.h"
#include "hv/guard.h"
#include "hv/identity.h"
#include "hv/leave.h"
#include "hv/park.h"
#include "hv/recovery.h"
#include "hv/reserve.h"
#include "recover/claims.h"
#include "recover/life.h"

/* Has nobody in the domain looked for a while?  Then it is up to this thread. */
static int plk_look_due(struct plk_segment *s)
{
    uint64_t *looked = &s->header->looked_ns, last = PLK_LOAD(looked), now = plk_now();

    return now - last >= plk_watchdog() / 3 &&
           __atomic_compare_exchange_n(looked, &last, now, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

static int plk_anybody_dirty(struct plk_segment *s)
{
    int64_t used = plk_slots_ready(s);
    uint32_t i;

    for (i = 0; i < used; i++) {
        if (plk_vcpu_dirty(plk_vcpu_at(s, i)))
            return 1;
    }
    return 0;
}

enum plk_inside {
    PLK_INSIDE_NOBODY,   /* the record is of another ticket */
    PLK_INSIDE_SOMEBODY, /* it is of head's, and of a slot that is somebody's */
    PLK_INSIDE_GHOST,    /* of head's, and of a slot that is nobody's */
};

/* What one look at the owner record, the slot that it names, and head tells; *head:
 * which it was.  Only in this order, and each once: else a living owner could come, or
 * release and leave its slot, in between. */
static enum plk_inside plk_who_is_inside(const struct plk_segment *s, const struct plk_cell *cell,
                                         uint64_t *head)
{
    uint64_t owner = PLK_LOAD_ACQUIRE(&cell->owner);
    uint32_t index = PLK_OWNER_VCPU(owner);
    int online = index < plk_slots(s) &&
                 PLK_LOAD_ACQUIRE(&plk_vcpu_at(s, index)->state) == PLK_VCPU_ONLINE;

    *head = PLK_LOAD_ACQUIRE(&cell->head);
    if (!PLK_OWNER_VALID(owner, *head))
        return PLK_INSIDE_NOBODY;
    return online ? PLK_INSIDE_SOMEBODY : PLK_INSIDE_GHOST;
}

/* Head is a ticket that nobody has entered with: somebody's that is about to, or
 * nobody's.  With the domain mutex held, so that no slot is just being taken. */
static void plk_look_after_head(struct plk_segment *s, struct plk_wait *w)
{
    struct plk_cell *cell = w->lock->cell;
    uint64_t head, ticket;
    enum plk_inside inside = plk_who_is_inside(s, cell, &head);

    if (inside == PLK_INSIDE_SOMEBODY || head >= PLK_LOAD_ACQUIRE(&cell->tail))
        return;
    /* No recovery leaves a ghost behind, and no living thread is one: a slot comes free
     * only when its thread holds nothing.  If there is one, somebody wrote it there. */
    if (inside == PLK_INSIDE_GHOST) {
        __atomic_fetch_or(&cell->flags, PLK_CELL_OWNER_DIED, __ATOMIC_SEQ_CST); /* [D2] */
        plk_release_for(s, w->seat->vcpu, cell, w->lock->id, head);
        return;
    }
    if (plk_orphan(s, cell, w->lock->id, head, head + 1, &ticket) == 1)
        plk_leave_for(s, w->seat->vcpu, cell, w->lock->id, ticket);
}

/* Somebody holds the lock, or is about to, whose word looks alive: ask the kernel. */
static int plk_head_lapsed(struct plk_segment *s, const struct plk_wait *w)
{
    const struct plk_cell *cell = w->lock->cell;
    uint64_t owner = PLK_LOAD_ACQUIRE(&cell->owner), pid_ns = PLK_LOAD(&w->seat->vcpu->pid_ns);
    uint32_t index = PLK_OWNER_VCPU(owner);

    if (PLK_OWNER_VALID(owner, PLK_LOAD_ACQUIRE(&cell->head)))
        return index < plk_slots(s) && plk_life_lapsed(plk_vcpu_at(s, index), pid_ns);
    for (index = 0; index < plk_slots(s); index++) {
        const struct plk_vcpu *v = plk_vcpu_at(s, index);

        if (PLK_LOAD(&v->pending) == w->lock->id && plk_life_lapsed(v, pid_ns))
            return 1;
    }
    return 0;
}

/* due: nobody else has looked at all vCPUs for a while. */
static void plk_look_for_dead(struct plk_segment *s, struct plk_wait *w, int due)
{
    int lapsed = due && plk_head_lapsed(s, w);
    uint64_t head;

    if (!lapsed && !(due && plk_anybody_dirty(s)) &&
        plk_who_is_inside(s, w->lock->cell, &head) == PLK_INSIDE_SOMEBODY)
        return;
    if (plk_guard_trylock(s) != 0)
        return; /* who has it recovers, or will be done soon; or died, and the next look gets it */
    if (plk_slots_ready(s) >= 0) {
        if (lapsed)
            plk_recover_lapsed(s, PLK_LOAD(&w->seat->vcpu->pid_ns));
        if (due)
            plk_recover_dead(s);
        plk_look_after_head(s, w);
    }
    plk_guard_unlock(s);
}

/* The lock is held by one who lives. */
static int plk_holder_lives(struct plk_segment *s, const struct plk_cell *cell, uint64_t head)
{
    uint64_t owner = PLK_LOAD(&cell->owner);
    uint32_t index = PLK_OWNER_VCPU(owner);

    return PLK_OWNER_VALID(owner, head) && index < plk_slots(s) &&
           plk_life_of(plk_vcpu_at(s, index)) == PLK_LIFE_ALIVE;
}

int plk_held_elsewhere(const struct plk_lock *lock, const struct plk_seat *seat)
{
    struct plk_segment *s = plk_segment_of(lock->domain);
    uint64_t owner = PLK_LOAD_ACQUIRE(&lock->cell->owner);
    uint32_t index = PLK_OWNER_VCPU(owner);

    return index < plk_slots(s) && PLK_LOAD(&plk_vcpu_at(s, index)->pid) != PLK_LOAD(&seat->vcpu->pid) &&
           plk_holder_lives(s, lock->cell, PLK_LOAD_ACQUIRE(&lock->cell->head));
}

void plk_watch(struct plk_wait *w)
{
    struct plk_segment *s = plk_segment_of(w->lock->domain);
    struct plk_cell *cell = w->lock->cell;
    uint64_t head = PLK_LOAD_ACQUIRE(&cell->head);
    int waits = w->ticket != PLK_NO_TICKET, sleeps = waits && s->face.protocol != PLK_NATIVE;
    int due;

    if (head == w->ticket)
        return;
    due = plk_look_due(s);
    if (!waits && !due && plk_holder_lives(s, cell, head))
        return;
    if (due || sleeps) /* its own queue a sleeper looks after in any case, as it looks so rarely */
        plk_look_for_dead(s, w, due);
    head = PLK_LOAD_ACQUIRE(&cell->head);
    /* Among sleepers it kicks again even if there is no tombstone: that costs
     * one look at the channel and mends a kick whose sender died before it. */
    if (head != w->ticket && (sleeps || PLK_LOAD(&s->header->tombs_live) != 0))
        plk_serve(s, w->seat->vcpu, cell, w->lock->id, head);
}
