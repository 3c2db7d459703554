#include "hv/view.h"

#include "hv/reserve.h"
#include "recover/life.h"

#define PLK_VIEW_TRIES 100

static const char *const plk_event_names[] = {
#define X(name, meaning) #name,
    PLK_EVENTS(X)
#undef X
};

static const char *const plk_event_meanings[] = {
#define X(name, meaning) meaning,
    PLK_EVENTS(X)
#undef X
};

uint32_t plk_event_count(void) { return PLK_EV_COUNT; }

const char *plk_event_name(uint32_t event)
{
    return event < PLK_EV_COUNT ? plk_event_names[event] : NULL;
}

const char *plk_event_meaning(uint32_t event)
{
    return event < PLK_EV_COUNT ? plk_event_meanings[event] : NULL;
}

uint32_t plk_vcpus_used(struct plk_segment *s)
{
    int64_t used = plk_slots_ready(s);

    return used < 0 ? PLK_LOAD(&s->slots_ready) : (uint32_t)used;
}

int plk_vcpu_view(struct plk_segment *s, uint32_t index, struct plk_vcpu_view *view)
{
    const struct plk_vcpu *v = plk_vcpu_at(s, index);
    uint32_t i;

    if (v == NULL || index >= plk_vcpus_used(s))
        return -EINVAL;
    view->index = index;
    view->state = PLK_LOAD_ACQUIRE(&v->state);
    view->life = (uint32_t)plk_life_of(v);
    view->generation = PLK_LOAD(&v->generation);
    view->held = PLK_LOAD(&v->held);
    view->depth = PLK_LOAD_ACQUIRE(&v->depth);
    for (i = 0; i < PLK_PEND_DEPTH; i++)
        view->outer[i] = (struct plk_pend){PLK_LOAD(&v->outer[i].cell), PLK_LOAD(&v->outer[i].ticket)};
    view->cpu = PLK_LOAD(&v->cpu);
    view->parked = PLK_LOAD(&v->channel) != 0;
    view->pid = PLK_LOAD(&v->pid);
    view->tid = PLK_LOAD(&v->tid);
    view->start_time = PLK_LOAD(&v->start_time);
    view->pid_ns = PLK_LOAD(&v->pid_ns);
    view->pending = PLK_LOAD_ACQUIRE(&v->pending);
    view->ticket = PLK_LOAD(&v->ticket);
    view->wait_since = PLK_LOAD_ACQUIRE(&v->wait_since);
    view->shifts = PLK_LOAD_ACQUIRE(&v->shifts); /* after wait_since: see plk_unnest */
    view->wanted = PLK_LOAD(&v->wanted);
    for (i = 0; i < 16; i++)
        view->events[i] = PLK_LOAD(&v->events[i]);
    return 0;
}

int plk_cell_view(struct plk_segment *s, uint32_t index, struct plk_cell_view *view)
{
    struct plk_cell *cell;
    uint64_t owner;
    int tries = 0;
    int rc = plk_reserve_cell(s, index, &cell);

    if (rc != 0)
        return rc;
    /* head and owner of one instant, if the lock holds still for as long; and
     * head before tail, so that head <= tail holds in the copy. */
    do {
        view->head = PLK_LOAD_ACQUIRE(&cell->head);
        owner = PLK_LOAD_ACQUIRE(&cell->owner);
    } while (PLK_LOAD_ACQUIRE(&cell->head) != view->head && ++tries < PLK_VIEW_TRIES);
    view->tail = PLK_LOAD_ACQUIRE(&cell->tail);
    view->owned = view->head != view->tail && PLK_OWNER_VALID(owner, view->head);
    view->owner_vcpu = PLK_OWNER_VCPU(owner);
    view->owner_ticket = owner >> 16;
    view->slow = PLK_LOAD(&cell->slow);
    view->flags = PLK_LOAD(&cell->flags);
    view->generation = PLK_GENERATION_OF(view->flags);
    return 0;
}

void plk_residue(uint64_t domain, struct plk_residue *residue)
{
    const struct plk_segment *s = plk_segment_of((struct plk_domain *)(uintptr_t)domain);
    const struct plk_header *h = s->header;
    uint32_t i, word;

    *residue = (struct plk_residue){.tombs_live = PLK_LOAD(&h->tombs_live)};
    for (i = 0; i < s->geometry.tombs; i++)
        residue->tombs += PLK_LOAD(&plk_tombs(s)[i]) != 0;
    for (i = 0; i < s->geometry.channels; i++)
        residue->parked += PLK_PARKED(PLK_LOAD(&plk_channels(s)[i].parked));
    word = PLK_LOAD((const uint32_t *)(const void *)(h->guard.bytes + PLK_LIFE_WORD));
    residue->guard_tid = (int32_t)(word & FUTEX_TID_MASK);
}

uint64_t plk_segment_address(struct plk_segment *s) { return (uint64_t)(uintptr_t)&s->face; }

int plk_segment_fd(struct plk_segment *s) { return s->fd; }

void plk_segment_spin(struct plk_segment *s, uint32_t turns, uint32_t near)
{
    s->face.spin_turns = turns;
    s->face.spin_near = near;
}

void plk_segment_crowd(struct plk_segment *s, uint32_t crowd, uint32_t ahead, uint32_t cpus)
{
    s->face.cpus = cpus;
    s->face.crowd = crowd;
    s->face.ahead = ahead;
}

void plk_segment_learn(struct plk_segment *s, uint32_t spin_ns, double ns_per_turn)
{
    s->face.turn_ps = (uint32_t)(ns_per_turn * 1000);
    s->face.spin_ns = s->face.turn_ps != 0 ? spin_ns : 0;
    s->face.wake_ns = spin_ns;
}
