#include "hv/service.h"

#include "hv/futex.h"
#include "hv/guard.h"
#include "hv/leave.h"
#include "hv/reserve.h"
#include "hv/vcpu.h"
#include "recover/life.h"

#define PLK_ALL_BELLS UINT32_MAX

int64_t plk_service_index(struct plk_segment *s)
{
    uint64_t word = PLK_LOAD_ACQUIRE(&s->header->service_vcpu);
    uint32_t index = PLK_SERVICE_VCPU(word);
    const struct plk_vcpu *v;

    /* It may have come after this process last looked how many slots there are. */
    if (word == 0 || (index >= plk_slots(s) && (int64_t)index >= plk_slots_ready(s)))
        return -1;
    v = plk_vcpu_at(s, index);
    /* Generation last: who takes the slot changes it before the life word. */
    return plk_life_of(v) == PLK_LIFE_ALIVE && PLK_LOAD(&v->state) == PLK_VCPU_ONLINE &&
                   PLK_SERVICE(index, PLK_LOAD(&v->generation)) == word
               ? (int64_t)index
               : -1;
}

int plk_service_lives(struct plk_segment *s)
{
    return plk_service_index(s) >= 0;
}

static void plk_bell(struct plk_segment *s, uint32_t bells)
{
    /* [H1] after the page was written; pairs with the exchange in plk_service_step.  A full
     * fence: see plk_kick_hosted. */
    __atomic_fetch_or(&s->header->doorbell, bells, __ATOMIC_SEQ_CST);
    plk_futex_wake(&s->header->doorbell, UINT32_MAX);
}

void plk_service_ring(struct plk_segment *s, uint32_t index) { plk_bell(s, PLK_BELL(index)); }

void plk_service_rouse(struct plk_segment *s) { plk_bell(s, PLK_ALL_BELLS); }

void plk_service_greet(struct plk_segment *s, struct plk_vcpu *v, uint32_t index)
{
    if (!plk_service_lives(s))
        return;
    PLK_STORE_RELEASE(&v->hypercall[PLK_CALL_HELLO], 1);
    plk_service_ring(s, index);
}

uint32_t plk_service_looks(struct plk_segment *s) { return PLK_LOAD_ACQUIRE(&s->header->service_looks); }

/* This thread's slot, which is the service's. */
static struct plk_vcpu *plk_service_me(struct plk_segment *s)
{
    struct plk_seat *seat = plk_seat_even_closed(&s->face);

    return seat != NULL ? seat->vcpu : NULL;
}

int plk_service_begin(struct plk_segment *s)
{
    struct plk_seat *seat;
    int rc = plk_enroll(&s->face, &seat);

    if (rc == 0)
        rc = plk_guard_lock(s);
    if (rc != 0)
        return rc;
    if (plk_service_lives(s))
        rc = -EBUSY;
    else {
        PLK_STORE(&s->header->policy_until, 0); /* what the one before has decided went with it */
        PLK_STORE_RELEASE(&s->header->service_vcpu,
                          PLK_SERVICE(seat->tag - 1, PLK_LOAD(&seat->vcpu->generation)));
        plk_service_rouse(s); /* [H1] take over what the one before has left: a look at every page */
    }
    plk_guard_unlock(s);
    return rc;
}

/* A cell that a page names; NULL: there is none. */
static struct plk_cell *plk_called_cell(struct plk_segment *s, uint64_t id)
{
    struct plk_cell *cell;

    if (id == 0 || id > s->geometry.cells || plk_reserve_cell(s, (uint32_t)(id - 1), &cell) != 0)
        return NULL;
    return cell;
}

/* Head is read here, after the request: it is where the caller left it, or further, and then
 * whoever has moved it on has asked again. */
static void plk_called_serve(struct plk_segment *s, struct plk_vcpu *me, struct plk_cell *cell, uint64_t id)
{
    PLK_FENCE(); /* [K1] before the look at parked; pairs with the fence of plk_slow_raise */
    plk_serve(s, me, cell, id, PLK_LOAD_ACQUIRE(&cell->head));
}

static int plk_owner_dead(struct plk_segment *s, const struct plk_cell *cell)
{
    uint64_t owner = PLK_LOAD_ACQUIRE(&cell->owner);
    uint32_t index = PLK_OWNER_VCPU(owner);

    return PLK_OWNER_VALID(owner, PLK_LOAD_ACQUIRE(&cell->head)) && index < plk_slots(s) &&
           plk_vcpu_dirty(plk_vcpu_at(s, index));
}

static unsigned plk_serve_page(struct plk_segment *s, struct plk_vcpu *me, struct plk_vcpu *v,
                               struct plk_service *did)
{
    uint64_t kick = PLK_LOAD_ACQUIRE(&v->hypercall[PLK_CALL_KICK]);
    uint64_t wait = PLK_LOAD_ACQUIRE(&v->hypercall[PLK_CALL_WAIT]);
    struct plk_cell *cell;
    unsigned news = 0;

    if (kick != 0) {
        did->kicks++;
        if ((cell = plk_called_cell(s, kick)) != NULL)
            plk_called_serve(s, me, cell, kick);
        /* [H1] Not before: who takes over finds it.  Nobody else writes it meanwhile. */
        PLK_STORE_RELEASE(&v->hypercall[PLK_CALL_KICK], 0);
    }
    if (wait != 0) {
        did->waits++;
        __atomic_compare_exchange_n(&v->hypercall[PLK_CALL_WAIT], &wait, 0, 0, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED);
        if ((cell = plk_called_cell(s, wait)) != NULL && plk_owner_dead(s, cell))
            news |= PLK_SERVICE_DEATH;
    }
    if (PLK_LOAD_ACQUIRE(&v->hypercall[PLK_CALL_HELLO]) != 0) {
        PLK_STORE(&v->hypercall[PLK_CALL_HELLO], 0);
        news |= PLK_SERVICE_NEWCOMER;
    }
    return news;
}

static unsigned plk_serve_pages(struct plk_segment *s, struct plk_service *did, uint32_t bells)
{
    struct plk_vcpu *me = plk_service_me(s);
    int64_t used = plk_slots_ready(s), i;
    unsigned news = 0;

    for (i = 0; me != NULL && i < used; i++) {
        if ((bells & PLK_BELL(i)) != 0)
            news |= plk_serve_page(s, me, plk_vcpu_at(s, (uint64_t)i), did);
    }
    return news;
}

unsigned plk_service_step(struct plk_segment *s, struct plk_service *did, uint64_t until)
{
    uint32_t *doorbell = &s->header->doorbell, bells;
    unsigned news = 0;

    PLK_SITE_FRAME();
    while (news == 0) {
        /* [H1] Bells first, then pages: what is written into a page after the look at it is
         * followed by a bell that stays.  Pairs with plk_bell. */
        bells = __atomic_exchange_n(doorbell, 0, __ATOMIC_SEQ_CST);
        if (bells != 0)
            news = plk_serve_pages(s, did, bells);
        if (bells == PLK_ALL_BELLS || plk_now() >= until)
            break;
        if (bells == 0 && plk_futex_wait(doorbell, 0, UINT32_MAX, until) == PLK_SLEEP_UNSUPPORTED)
            plk_nap(until);
    }
    return news;
}

/* Served, and asleep: that is so for a moment after each kick.  If it was so for the same ticket
 * at the last look, the kick is lost, with its sender, or the waiter has no CPU. */
static int plk_sleeps_on(struct plk_segment *s, struct plk_vcpu *v, const struct plk_pend *wait)
{
    uint64_t *late = &v->hypercall[PLK_CALL_LATE], before = PLK_LOAD(late);
    const struct plk_cell *cell = plk_called_cell(s, wait->cell);
    int now = cell != NULL && PLK_LOAD(&v->channel) != 0 && PLK_LOAD_ACQUIRE(&cell->head) == wait->ticket;

    PLK_STORE(late, now ? wait->ticket + 1 : 0);
    return now && before == wait->ticket + 1;
}

unsigned plk_service_look(struct plk_segment *s, struct plk_service *did)
{
    struct plk_vcpu *me = plk_service_me(s);
    int64_t used = plk_slots_ready(s), i;
    unsigned news = plk_serve_pages(s, did, PLK_ALL_BELLS); /* whose callers died before they rang, too */

    PLK_SITE_FRAME();
    did->waiting = 0;
    for (i = 0; me != NULL && i < used; i++) {
        struct plk_vcpu *v = plk_vcpu_at(s, (uint64_t)i);
        struct plk_pend wait = {PLK_LOAD_ACQUIRE(&v->pending), PLK_LOAD(&v->ticket)};

        if (PLK_LOAD_ACQUIRE(&v->state) != PLK_VCPU_ONLINE)
            continue;
        if (plk_vcpu_dirty(v)) {
            news |= PLK_SERVICE_DEATH;
            continue;
        }
        if (wait.cell == 0 || wait.ticket == PLK_NO_TICKET)
            continue;
        did->waiting++;
        if (plk_sleeps_on(s, v, &wait)) {
            did->mended++;
            plk_called_serve(s, me, plk_cell_at(s, wait.cell - 1), wait.cell);
        }
    }
    __atomic_fetch_add(&s->header->service_looks, 1, __ATOMIC_RELEASE);
    return news;
}

void plk_service_end(struct plk_segment *s, struct plk_service *did)
{
    struct plk_seat *seat = plk_seat_even_closed(&s->face);
    uint64_t mine;

    if (seat == NULL)
        return;
    mine = PLK_SERVICE(seat->tag - 1, PLK_LOAD(&seat->vcpu->generation));
    /* With the mutex, so that no successor looks at the pages meanwhile: it would take a kick
     * that is asked for anew for the one that this thread has just served. */
    if (plk_guard_lock(s) != 0) { /* the pages are kept for the next one */
        __atomic_compare_exchange_n(&s->header->service_vcpu, &mine, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
        return;
    }
    if (__atomic_compare_exchange_n(&s->header->service_vcpu, &mine, 0, 0, __ATOMIC_SEQ_CST,
                                    __ATOMIC_RELAXED)) {
        PLK_FENCE(); /* [H1] gone, then a last look at the pages; pairs with the bell in plk_kick_hosted */
        plk_serve_pages(s, did, PLK_ALL_BELLS);
    }
    plk_guard_unlock(s);
}
