/* targets.c - the calls of an execution.  Each says which results it may have: any
 * other is reported, so that whatever is wrong with a segment has an error of its own. */
#include "fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hv/attach.h"
#include "hv/copy.h"
#include "hv/deadlock.h"
#include "hv/directory.h"
#include "hv/events.h"
#include "hv/fibre.h"
#include "hv/futex.h"
#include "hv/leave.h"
#include "hv/park.h"
#include "hv/policy.h"
#include "hv/quick.h"
#include "hv/recovery.h"
#include "hv/reserve.h"
#include "hv/service.h"
#include "hv/vcpu.h"
#include "hv/view.h"
#include "hv/watch.h"
#include "patch/choices.h"
#include "slow/slow.h"
#include "sync/sync.h"

/* X(function, errors that it may have besides success) */
#define GUARD ETIMEDOUT, ENOTRECOVERABLE, EBADF
#define HEADER PLK_E_FOREIGN, PLK_E_UNFINISHED, PLK_E_TRUNCATED, PLK_E_ABI, PLK_E_BOOT, PLK_E_CORRUPT, EIO
#define WAITS ETIMEDOUT, EDEADLK, ELOOP, EUSERS, ENOSPC, GUARD
#define TARGETS(X)                                                  \
    X(inspect, HEADER)                                              \
    X(extent, HEADER)                                               \
    X(attach, HEADER, ENOSPC, ENOMEM)                               \
    X(reset, GUARD, ENOSPC)                                         \
    X(vcpu_view, EINVAL, ENOSPC)                                    \
    X(cell_view, EINVAL, ENOSPC, EBADF)                             \
    X(name_at, ERANGE, ENOENT, PLK_E_CORRUPT, ENOSPC)               \
    X(name_find, ENOENT, ENAMETOOLONG, ENOSPC, PLK_E_CORRUPT)               \
    X(name_create, ENAMETOOLONG, EUSERS, ENOSPC, EINVAL, EPROTONOSUPPORT, PLK_E_CORRUPT, GUARD) \
    X(cell_new, EUSERS, ENOSPC, EINVAL, EPROTONOSUPPORT, PLK_E_CORRUPT, GUARD)       \
    X(cell_free, EBUSY, EINVAL, GUARD)                              \
    X(cell_bind, EINVAL, ENOENT, EMEDIUMTYPE, EPROTONOSUPPORT, PLK_E_CORRUPT, ENOSPC, EBADF) \
    X(enroll, EUSERS, ENOSPC, GUARD)                                \
    X(trylock, EBUSY, EUSERS, ENOSPC, GUARD)                        \
    X(acquire, WAITS)                                               \
    X(acquire_until, WAITS)                                         \
    X(wait_and_leave, WAITS, EINTR)                                 \
    X(nested_wait, WAITS, EINTR)                                    \
    X(unlock, EPERM)                                                \
    X(watch, 0)                                                     \
    X(search, 0)                                                    \
    X(recover, ENOSPC, GUARD)                                             \
    X(mark_consistent, EPERM)                                       \
    X(vcpu_tally_view, EINVAL, EBADF, EIO)                          \
    X(lock_tally_view, EINVAL, EBADF, EIO)                          \
    X(lock_tallies_next, EBADF)                                     \
    X(tickets_served, EBADF)                                        \
    X(ring_read, EINVAL, EBADF, EIO)                                \
    X(sync_new, EUSERS, ENOSPC, EINVAL, PLK_E_CORRUPT, GUARD)       \
    X(sync_find, ENOENT, ENAMETOOLONG, EUSERS, ENOSPC, EINVAL, PLK_E_CORRUPT, GUARD) \
    X(sync_init, EINVAL, EMEDIUMTYPE, ENOSPC, EBADF, ENOENT, EPROTONOSUPPORT, PLK_E_CORRUPT) \
    X(sync_wait, ETIMEDOUT, EINTR, ENOBUFS, ENOSPC, EBADF, EDEADLK, ELOOP, EALREADY) \
    X(sync_leave, 0)                                                \
    X(sync_act, EPERM, EINVAL, EDEADLK, ELOOP)                      \
    X(sync_look, 0)                                                 \
    X(crowded, 0)                                                   \
    X(service_begin, EBUSY, EUSERS, ENOSPC, GUARD)                  \
    X(service_look, 0)                                              \
    X(retire, EBUSY)                                                \
    X(format, EINVAL, ENOSPC, ENOMEM, EFBIG, EIO)

enum target {
#define X(name, ...) T_##name,
    TARGETS(X)
#undef X
    T_COUNT
};

/* With a larger table and a tail that was overwritten, recovery takes the missing
 * tickets one by one for so long that nothing else would be tried. */
#define MANY_TOMBS 2048u

#define ERRORS_MAX 12
static const struct {
    const char *name;
    int errors[ERRORS_MAX];
} targets[] = {
#define X(name, ...) {#name, {__VA_ARGS__}},
    TARGETS(X)
#undef X
};
static uint64_t calls[T_COUNT], good[T_COUNT], errors[T_COUNT][ERRORS_MAX];

static struct plk_segment *segment;
static int traces; /* lock_event=trace */

static int64_t result(enum target target, int64_t rc)
{
    int i;

    SAY("%s -> %lld\n", targets[target].name, (long long)rc);
    calls[target]++;
    if (rc >= 0) {
        good[target]++;
        return rc;
    }
    for (i = 0; i < ERRORS_MAX && targets[target].errors[i] != 0; i++) {
        if (rc == -targets[target].errors[i]) {
            errors[target][i]++;
            return rc;
        }
    }
    fail("%s has an unexpected result: %lld", targets[target].name, (long long)rc);
}

int targets_report(int demand)
{
    int missed = 0;
    unsigned t, i;

    for (t = 0; t < T_COUNT; t++) {
        printf("  %-15s %10llu calls, %10llu succeeded", targets[t].name, (unsigned long long)calls[t],
               (unsigned long long)good[t]);
        for (i = 0; i < ERRORS_MAX && targets[t].errors[i] != 0; i++)
            printf("%s %s %llu", i == 0 ? ";" : ",",
                   targets[t].errors[i] > 1000 ? "refusal" : strerror(targets[t].errors[i]),
                   (unsigned long long)errors[t][i]);
        printf("\n");
        missed |= good[t] == 0;
    }
    if (missed && demand)
        printf("a target never succeeded: the fuzzer does not reach what it should\n");
    return missed && demand;
}

static void choose(enum plk_op op, const char *name)
{
    const struct plk_choice *c;
    uint32_t i;

    for (i = 0; (c = plk_choice_at(i)) != NULL; i++)
        if (c->op == op && strcmp(c->name, name) == 0)
            plk_module_ops.fn[op] = c->fn;
}

/* How this process waits, as pylocks/ops.py would decide it for the segment's protocol. */
static void choose_ways(void)
{
    int native = segment->face.protocol == PLK_NATIVE;

    choose(PLK_OP_cpu_relax, native ? "yield" : "pause");
    choose(PLK_OP_lock_spinning, native ? "native" : one_in(4) ? "yield" : one_in(3) ? "hosted" : "futex");
    choose(PLK_OP_unlock_kick, native ? "off" : one_in(3) ? "hosted" : "kick");
    choose(PLK_OP_vcpu_preempted, native || one_in(2) ? "off" : one_in(2) ? "bpf" : "same_cpu");
    traces = one_in(4);
    choose(PLK_OP_lock_event, traces ? "trace" : one_in(4) ? "off" : "counters");
    plk_events_start();
    plk_segment_spin(segment, 1 + below(3), below(3));
    plk_segment_crowd(segment, below(4), below(3), 1 + below(3));
    plk_segment_learn(segment, below(3) * 3000, below(3));
}

/* An index: one that exists, the first that does not, or any. */
static uint32_t an_index(uint32_t count)
{
    switch (below(8)) {
    case 1: return count;
    case 2: return count - 1;
    case 3: return (uint32_t)take(4);
    case 4: return UINT32_MAX - below(2);
    default: return below(count);
    }
}

static void look_at_names(void)
{
    char name[PLK_NAME_MAX];
    uint32_t length, i = one_in(2) ? an_index(world.geometry.entries) : 0, n;
    int64_t cell;

    for (n = 0; n < 6; n++, i++) {
        cell = result(T_name_at, plk_name_at(segment, i, name, &length));
        if (cell >= 0 && (length > PLK_NAME_MAX || cell >= segment->geometry.cells))
            fail("a name of %u bytes for cell %lld", length, (long long)cell);
        if (cell == -ERANGE)
            return;
    }
}

static void look_at_slots(void)
{
    struct plk_vcpu_view view;
    uint32_t used = plk_vcpus_used(segment);

    if (used > segment->geometry.vcpus)
        fail("%u slots are used of %u", used, segment->geometry.vcpus);
    result(T_vcpu_view, plk_vcpu_view(segment, an_index(world.geometry.vcpus), &view));
    if (used != 0)
        result(T_vcpu_view, plk_vcpu_view(segment, used - 1, &view));
}

static void look_at_events(void)
{
    static struct plk_record records[PLK_RING_RECORDS];
    struct plk_tally_view view;
    uint64_t at = an_index(world.geometry.cells), end, first;
    int64_t n;

    result(T_vcpu_tally_view, plk_vcpu_tally_view(segment, an_index(world.geometry.vcpus), &view));
    result(T_lock_tally_view, plk_lock_tally_view(segment, an_index(world.geometry.tallied), &view));
    if (result(T_lock_tallies_next, plk_lock_tallies_next(segment, &at, &end)) == 1 &&
        (at >= end || end > segment->geometry.tallied))
        fail("tallies from %llu to %llu", (unsigned long long)at, (unsigned long long)end);
    result(T_tickets_served, plk_tickets_served(segment));
    n = result(T_ring_read, plk_ring_read(segment, an_index(world.geometry.rings), one_in(2) ? 0 : take(8), records,
                                          &first));
    if (n > (int64_t)PLK_RING_RECORDS)
        fail("%lld records of a ring", (long long)n);
}

static uint32_t a_policy(void)
{
    return (one_in(3) ? PLK_BOUNDED : PLK_FIFO) | (one_in(3) ? PLK_RECURSIVE : 0);
}

static void look_for_a_name(enum target target)
{
    uint32_t length;
    const char *name = shape_name(below(7), &length);
    uint32_t said = one_in(16) ? 0 : length;
    int64_t cell = result(target, plk_name_find(segment, name, said, target == T_name_create, a_policy()));

    if (cell >= (int64_t)segment->geometry.cells)
        fail("a name means cell %lld", (long long)cell);
}

/* ----------------------------------------------------------------- waiting */

static struct plk_lock locks[3];
static uint64_t first_ticket, old_ticket;

/* What ends a wait in a queue that others have destroyed: its turn comes. */
static void turn_comes(void)
{
    /* The last, because a ticket PLK_NO_TICKET is taken for none, and the next drawn. */
    const uint64_t turns[] = {first_ticket, old_ticket, first_ticket + 1};
    uint64_t turn = turns[world.pauses % 3];
    uint64_t base = world.geometry.off_cells + world.cell * world.geometry.stride, none = 0;

    world_write(base + offsetof(struct plk_cell, head), &turn, sizeof(turn));
    /* and a tombstone finds room, if that is what it waits for */
    world_write(world.geometry.off_tombs, &none, sizeof(none));
    memset(plk_tombs(segment), 0, segment->geometry.tombs * sizeof(uint64_t));
}

static void about_to_wait(const struct plk_lock *lock)
{
    struct plk_seat *seat = plk_seat_even_closed(lock->domain);
    uint32_t i;

    first_ticket = old_ticket = PLK_LOAD(&lock->cell->tail);
    for (i = 0; seat != NULL && i < seat->left_count; i++)
        if (seat->left[i].cell == lock->id)
            old_ticket = seat->left[i].ticket;
    world_call(lock->id - 1, turn_comes);
}

static uint64_t soon(void) { return plk_now() + (one_in(4) ? 0 : 1000000ull << below(10)); }

/* Give up a wait.  0: its turn has come meanwhile. */
static int wait_is_over(struct plk_wait *w)
{
    int rc;

    if (w->gate == NULL) {
        while ((rc = plk_leave(w)) == -ENOSPC)
            plk_nap(PLK_FOREVER);
        return rc < 0 ? rc : -EINTR;
    }
    w->deadline = 0;
    w->pause = PLK_FOREVER;
    do
        rc = plk_wait_turn(w);
    while (rc == -EINTR);
    return rc;
}

/* As an event loop waits: another thread would sleep now. */
static void keep_vigil(struct plk_wait *w)
{
    struct plk_vigil vigil;

    if (plk_vigil_begin(w, &vigil) && PLK_LOAD(vigil.word) == vigil.seq)
        plk_vigil_look(w);
    plk_vigil_end(w, &vigil);
}

/* As pylocks._lock waits: it looks at signals every so often, and leaves if one says so. */
static int64_t wait_and_leave(struct plk_lock *lock, int depth)
{
    struct plk_wait w;
    int rc = plk_take(lock, &w), nested;

    if (rc <= 0)
        return rc;
    for (;;) {
        w.deadline = soon() + 1000000000;
        w.pause = soon();
        if (w.gate == NULL && one_in(8))
            keep_vigil(&w);
        rc = plk_wait_turn(&w);
        if (rc != -EINTR)
            return rc;
        if (depth > 0) { /* the handler of a signal takes a lock, too */
            nested = plk_nest(&w);
            if (nested == 0) {
                struct plk_lock *other = &locks[below(3)];

                if (other->cell == NULL)
                    other = lock;
                about_to_wait(other);
                rc = (int)wait_and_leave(other, depth - 1);
                if (rc >= 0)
                    result(T_unlock, plk_unlock(other));
                about_to_wait(lock);
                first_ticket = old_ticket = w.ticket;
                if (plk_unnest(&w) != 0)
                    fail("a wait of this process is taken for another's");
            }
        }
        if (one_in(2))
            continue;
        return wait_is_over(&w);
    }
}

void note_the_seat(void)
{
    struct plk_seat *seat = segment != NULL ? plk_seat_even_closed(&segment->face) : NULL;

    world.enrolled = seat != NULL;
    if (seat != NULL)
        world.slot = (uint32_t)(seat->tag - 1);
}

static void enroll(void)
{
    struct plk_seat *seat;

    /* Not beside the thread's own: that may be written over to look dead, and would be taken again,
     * with its mutex in the C library's list. */
    if (!world.enrolled && one_in(8) && result(T_enroll, plk_fibre_enroll(&segment->face, &seat)) == 0)
        plk_fibre_drop(seat);
    if (result(T_enroll, plk_enroll(&segment->face, &seat)) == 0 &&
        (seat->vcpu == NULL || seat->tag == 0 || seat->tag > segment->geometry.vcpus))
        fail("a seat with tag %llu", (unsigned long long)seat->tag);
    note_the_seat();
}

static void use_a_lock(void)
{
    struct plk_lock *lock = &locks[below(3)];
    uint32_t index = an_index(world.geometry.cells);
    uint32_t way = below(8);
    int64_t rc;

    if (way >= 5 && !world.enrolled) /* before its ticket is known, a wait can't be mended */
        enroll();
    if (way >= 5 && !world.enrolled)
        return;
    if (lock->cell == NULL && result(T_cell_bind, plk_cell_bind(lock, &segment->face, index)) != 0)
        return;
    about_to_wait(lock);
    switch (way) {
    case 0: rc = result(T_trylock, plk_trylock(lock)); break;
    case 1: case 2: result(T_unlock, plk_unlock(lock)); return;
    case 5: /* a turn at a gate can't be made to come: nobody knows its ticket before it is drawn */
        rc = lock->policy == PLK_FIFO ? result(T_acquire, plk_acquire(lock))
                                      : result(T_acquire_until, plk_acquire_until(lock, soon()));
        break;
    case 6: rc = result(T_wait_and_leave, wait_and_leave(lock, 0)); break;
    case 7: rc = result(T_nested_wait, wait_and_leave(lock, 2)); break;
    default: rc = result(T_acquire_until, plk_acquire_until(lock, soon())); break;
    }
    if (rc == PLK_OWNER_DIED && one_in(2))
        result(T_mark_consistent, plk_mark_consistent(lock));
    if (rc >= 0 && traces) /* no site is patched here */
        plk_trace_entered(lock, plk_seat_of(lock->domain));
    if (rc >= 0 && !one_in(3)) {
        about_to_wait(lock);
        if (traces)
            plk_trace_left(lock, plk_seat_of(lock->domain));
        result(T_unlock, plk_unlock(lock));
    }
}

/* Its turn comes to this thread, whichever guard it waits for: that of a dead thread's node may be another than
 * that of what it wants.  Which ticket it has is told by its slot, if that was not written over before. */
static void guard_comes(void)
{
    const struct plk_seat *seat = plk_seat_even_closed(&segment->face);
    const struct plk_geometry *g = &segment->geometry;
    uint64_t i, base = g->off_cells, tail;
    uint32_t k, turn = world.pauses % 4;

    for (i = 0; i < g->cells && i < 4096; i++, base += g->stride) {
        if (!world_read(base + offsetof(struct plk_cell, tail), &tail, sizeof(tail)))
            continue;
        tail -= turn == 0 ? 1 : 2; /* a ticket PLK_NO_TICKET is taken for none, and the next drawn */
        for (k = 0; turn == 2 && seat != NULL && k < seat->left_count; k++)
            if (seat->left[k].cell == i + 1)
                tail = seat->left[k].ticket; /* which it has taken back */
        if (turn == 3 && seat != NULL && seat->vcpu->pending == i + 1)
            tail = seat->vcpu->ticket;
        world_write(base + offsetof(struct plk_cell, head), &tail, sizeof(tail));
    }
}

static int64_t a_sync(void)
{
    const struct plk_seed seed = {below(PLK_KIND_COUNT + 1), below(4), below(4)};
    uint32_t length;
    const char *name = shape_name(below(7), &length);

    if (one_in(2))
        return result(T_sync_new, plk_sync_new(segment, &seed));
    return result(T_sync_find, plk_sync_find(segment, name, length, (int)below(2), &seed));
}

/* While it goes on, nobody writes: what the guard's next ticket is would not be known. */
static void use_a_sync(void)
{
    static struct plk_ref ref;
    static struct plk_sync_wait w;
    struct plk_seat *seat;
    int64_t index = a_sync();
    struct plk_cell *cell;

    if (!world.enrolled)
        enroll();
    if (!world.enrolled || index < 0 || plk_reserve_cell(segment, (uint32_t)index, &cell) != 0 ||
        result(T_sync_init, plk_the_sync_api.init(&ref, &segment->face, (uint32_t)index,
                                                  one_in(8) ? below(9) : PLK_KIND_OF(cell->flags))) != 0)
        return;
    world.hostile = 0;
    world_call(ref.guard.id - 1, guard_comes);
    seat = plk_seat_even_closed(&segment->face);
    switch (below(4)) {
    case 0: result(T_sync_act, plk_the_sync_api.act(&ref, seat, below(PLK_ACT_KINDS + 1), below(3))); break;
    case 1: result(T_sync_look, plk_the_sync_api.look(&ref, seat)); break;
    default:
        w = (struct plk_sync_wait){.ref = &ref, .seat = seat, .deadline = one_in(3) ? 0 : soon(), .pause = soon()};
        if (result(T_sync_wait, plk_the_sync_api.wait(&w)) != -EINTR)
            break;
        if (one_in(2)) {
            plk_the_sync_api.aside(&w);
            mutate_living();
            plk_the_sync_api.back(&w);
        }
        result(T_sync_leave, plk_the_sync_api.leave(&w));
    }
}

/* The service, for a moment, or for as long as the segment is attached. */
static void serve(void)
{
    struct plk_service did = {.kicks = 0};

    if (result(T_service_begin, plk_service_begin(segment)) == 0) {
        plk_service_step(segment, &did, 0);
        plk_service_look(segment, &did);
        if (one_in(2))
            plk_policy_publish(segment, one_in(2) ? PLK_SPIN_OWN : 0, PLK_TRUST_MARKS, UINT64_MAX);
        result(T_service_look, 0);
        if (did.waiting > segment->geometry.vcpus)
            fail("%u vCPUs wait", did.waiting);
        if (one_in(2))
            plk_service_end(segment, &did);
    }
    note_the_seat();
}

/* A program closes all descriptors that it does not know, and opens others. */
static void lose_the_descriptor(void)
{
    int other = open("/dev/null", O_RDWR | O_CLOEXEC);

    dup2(other, segment->fd);
    close(other);
}

static void nobody_has_a_mutex(void)
{
    uint64_t i, word, none = 0, at = world.geometry.off_syncs;

    for (i = 0; i < world.geometry.syncs && i < 256; i++, at += sizeof(struct plk_sync))
        if (world_read(at, &word, sizeof(word)) && (word & PLK_SYNC_STATE) != 0)
            world_write(at, &none, sizeof(none));
}

static void detach(int close_first)
{
    struct plk_seat *seat = plk_seat_even_closed(&segment->face);
    int fd = segment->fd, lost = !plk_fd_is_ours(segment);

    world.hostile = 0;
    world.fault = FAULT_NONE;
    world_call(UINT64_MAX, NULL);
    if (seat != NULL) { /* a slot that is said to hold something is left to recovery, and so mapped */
        seat->vcpu->held = seat->vcpu->depth = 0;
        seat->vcpu->pending = 0;
        seat->nodes = 0;
        nobody_has_a_mutex();
    }
    if (close_first && result(T_retire, plk_retire_all(&segment->face)) == 0)
        plk_segment_put(segment);
    plk_segment_discard(&segment);
    world.enrolled = 0;
    world_check_over();
    if (lost)
        close(fd);
    else if (fcntl(fd, F_GETFD) >= 0)
        fail("the descriptor of the segment is open still");
}

static void format(void)
{
    struct plk_format f = {1 + below(70000), 1 + below(3000), 32u << below(2), 1u << below(10),
                           32u << below(10), below(300), 1 + below(2), 1 + below(2), below(2), below(3), "futex"};
    uint32_t *const fields[] = {&f.vcpus, &f.cells, &f.stride, &f.channels, &f.tombs, &f.entries,
                                &f.protocol, &f.barrier};

    if (one_in(2))
        *fields[below(8)] = one_in(2) ? (uint32_t)take(4) : 1u << below(32);
    world_resize(0);
    result(T_format, plk_format(world.fd, &f));
}

/* A copy of records of the file, as observers take it; the caller's to free. */
static void *copied(uint64_t offset, uint64_t size)
{
    void *copy = calloc(1, size);
    ssize_t rc = pread(world.fd, copy, size, (off_t)offset);

    (void)rc; /* what could not be read is empty */
    return copy;
}

#define OBSERVED 16u

/* Cells of any flags as if they were guards, ascending, with the records and nodes as they are. */
static void observe_objects(const struct plk_extent *e, const struct plk_cell_row *cells, uint32_t found)
{
    uint32_t indices[OBSERVED], flags[OBSERVED], guards = 0, count, i;
    uint32_t records = e->syncs < OBSERVED ? e->syncs : OBSERVED, vcpus = e->noded < OBSERVED ? e->noded : OBSERVED;
    struct plk_sync_row objects[OBSERVED];
    struct plk_node_row nodes[OBSERVED * PLK_NODES];
    void *copy;

    for (i = 0; i < found; i++) {
        indices[guards] = cells[i].index;
        flags[guards++] = one_in(3) ? cells[i].flags : cells[i].flags | PLK_KIND_FLAGS(below(PLK_KIND_COUNT + 2));
    }
    copy = copied(e->off_syncs, OBSERVED * PLK_SYNC_BYTES);
    guards = plk_copied_syncs(copy, copy, 0, records, indices, flags, guards, objects);
    free(copy);
    for (i = 0; i < guards; i++) {
        if (objects[i].index >= records || plk_kind_name(objects[i].kind) == NULL || objects[i].changing)
            fail("object %u of kind %u", objects[i].index, objects[i].kind);
    }
    copy = copied(e->off_nodes, (uint64_t)OBSERVED * PLK_NODES * PLK_NODE_BYTES);
    count = plk_copied_nodes(copy, copy, 0, vcpus * PLK_NODES, objects, guards, nodes);
    free(copy);
    for (i = 0; i < count; i++) {
        if (nodes[i].object >= guards || nodes[i].vcpu >= vcpus)
            fail("a node of vCPU %u for object %u of %u", nodes[i].vcpu, nodes[i].object, guards);
    }
}

/* As `pylocks top` does: without attaching. */
static void observe(int fd)
{
    struct plk_vcpu_row vcpus[OBSERVED];
    struct plk_cell_row cells[OBSERVED];
    struct plk_name_row names[OBSERVED];
    uint32_t tombs[OBSERVED], count, i;
    struct plk_extent e;
    struct plk_found found;
    void *copy;

    if (result(T_extent, plk_extent(fd, &e, &found)) != 0)
        return;
    copy = copied(e.off_vcpus, OBSERVED * PLK_VCPU_BYTES);
    count = plk_copied_vcpus(copy, copy, e.vcpus < OBSERVED ? e.vcpus : OBSERVED, vcpus);
    for (i = 0; i < count; i++) {
        if (vcpus[i].claims > PLK_CLAIMS_MOST || vcpus[i].index >= OBSERVED)
            fail("vCPU %u has %u claims", vcpus[i].index, vcpus[i].claims);
    }
    free(copy);
    copy = copied(e.off_cells, OBSERVED * (uint64_t)e.stride);
    count = plk_copied_cells(copy, copy, 0, e.cells < OBSERVED ? e.cells : OBSERVED, e.stride, below(3), cells);
    free(copy);
    observe_objects(&e, cells, count);
    copy = copied(e.off_entries, OBSERVED * PLK_ENTRY_BYTES);
    count = plk_copied_names(copy, e.entries < OBSERVED ? e.entries : OBSERVED, e.cells, names);
    for (i = 0; i < count; i++) {
        if (names[i].length > PLK_NAME_MAX || names[i].cell >= e.cells)
            fail("a name of %u bytes for cell %u", names[i].length, names[i].cell);
    }
    free(copy);
    copy = copied(e.off_tombs, OBSERVED * sizeof(uint64_t));
    plk_copied_tombs(copy, e.tombs < OBSERVED ? e.tombs : OBSERVED, tombs);
    free(copy);
}

static void attach(void)
{
    struct plk_found found;
    int fd = dup(world.fd);
    int64_t rc;

    result(T_inspect, plk_inspect(fd, &found));
    observe(fd);
    rc = result(T_attach, plk_attach(fd, &segment, &found));
    if (rc != 0) {
        close(fd);
        if (segment != NULL)
            fail("a refused segment was handed out");
        world_check_over();
        return;
    }
    if (memchr(found.slow_path, 0, sizeof(found.slow_path)) == NULL)
        fail("the slow path's name does not end");
    world.geometry = segment->geometry;
}

/* Among slots and owners as they happen to be, as one that waits for any lock. */
static void look_for_a_cycle(struct plk_wait *w)
{
    struct plk_vcpu *me = w->seat->vcpu;
    struct plk_member member;
    uint32_t count;
    int found;

    PLK_STORE(&me->wanted, 1 + an_index(world.geometry.cells));
    PLK_STORE(&me->wait_since, 1);
    found = plk_search(w);
    result(T_search, found);
    count = plk_cycle_found(plk_segment_address(segment), 0, &member);
    if (found && (count < 2 || member.vcpu != w->seat->tag - 1))
        fail("a cycle of %u that begins with vCPU %u", count, member.vcpu);
    PLK_STORE(&me->wait_since, 0);
}

static void call_something(void)
{
    static struct plk_wait w;
    struct plk_cell_view view;

    world_call(UINT64_MAX, NULL);
    switch (below(16)) {
    case 0: one_in(2) ? look_at_slots() : look_at_events(); break;
    case 1: result(T_cell_view, plk_cell_view(segment, an_index(world.geometry.cells), &view)); break;
    case 2: look_at_names(); break;
    case 3: look_for_a_name(T_name_find); break;
    case 4: look_for_a_name(T_name_create); break;
    case 5: result(T_cell_new, plk_cell_new(segment, a_policy())); break;
    case 6: result(T_cell_free, plk_cell_give_back(segment, an_index(world.geometry.cells), plk_forks_seen())); break;
    case 7: enroll(); break;
    case 8:
        if (one_in(8))
            result(T_crowded, plk_crowded(&segment->face));
        else
            result(T_recover, plk_recover(segment));
        break;
    case 9:
        if (locks[0].cell != NULL && world.enrolled) {
            w = (struct plk_wait){.lock = &locks[0], .seat = plk_seat_even_closed(&segment->face),
                                  .ticket = PLK_LOAD(&locks[0].cell->tail)};
            about_to_wait(&locks[0]);
            if (one_in(2))
                look_for_a_cycle(&w);
            else {
                plk_watch(&w);
                result(T_watch, 0);
            }
        }
        break;
    case 10:
        if (!world.enrolled) /* nobody uses it: then it may be reset */
            result(T_reset, plk_reset(segment, PLK_NATIVE + below(2), PLK_BARRIER_FENCE + below(2), below(2)));
        choose_ways();
        break;
    case 13: case 14: use_a_sync(); break;
    case 11:
        if (one_in(4))
            lose_the_descriptor();
        break;
    case 12: serve(); break;
    default: use_a_lock(); break;
    }
    note_the_seat();
}

void execute(void)
{
    const struct shape *shape = &shapes[below(shape_count)];
    uint32_t n = below(6), steps = 0, close_first = below(2);

    SAY("shape %s\n", shape->name);
    world_load(shape);
    memset(locks, 0, sizeof(locks));
    while (n-- != 0)
        mutate_file();
    if (one_in(4)) {
        world.fault = below(FAULT_COUNT);
        world.fault_at = below(4);
    }
    if (one_in(64)) {
        format();
        return;
    }
    world.hostile = one_in(3);
    attach();
    if (segment == NULL)
        return;
    choose_ways();
    if (segment->geometry.tombs > MANY_TOMBS)
        input_ends();
    while (input_left() && steps++ < 40) {
        for (n = below(4); n != 0; n--)
            mutate_living();
        call_something();
    }
    detach((int)close_first);
}
