/* targets.c - an execution: a segment is attached, used, written over and let go. */
#include "targets.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "hv/attach.h"
#include "hv/directory.h"
#include "hv/fibre.h"
#include "hv/leave.h"
#include "hv/policy.h"
#include "hv/quick.h"
#include "hv/recovery.h"
#include "hv/reserve.h"
#include "hv/service.h"
#include "hv/vcpu.h"
#include "hv/view.h"

/* With a larger table and a tail that was overwritten, recovery takes the missing
 * tickets one by one for so long that nothing else would be tried. */
#define MANY_TOMBS 2048u

struct plk_segment *segment;

uint32_t an_index(uint32_t count)
{
    switch (below(8)) {
    case 1: return count;
    case 2: return count - 1;
    case 3: return (uint32_t)take(4);
    case 4: return UINT32_MAX - below(2);
    default: return below(count);
    }
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

void note_the_seat(void)
{
    struct plk_seat *seat = segment != NULL ? plk_seat_even_closed(&segment->face) : NULL;

    world.enrolled = seat != NULL;
    if (seat != NULL)
        world.slot = (uint32_t)(seat->tag - 1);
}

/* A slot that is said to hold something is left to recovery, and the segment stays mapped for as
 * long as its thread lives: nothing but the slot's words could tell that it is not so. */
static void holds_nothing(const struct plk_seat *seat)
{
    seat->vcpu->held = seat->vcpu->depth = 0;
    seat->vcpu->pending = 0;
}

void enroll(void)
{
    struct plk_seat *seat;

    /* Not beside the thread's own: that may be written over to look dead, and would be taken again,
     * with its mutex in the C library's list. */
    if (!world.enrolled && one_in(8) && result(T_enroll, plk_fibre_enroll(&segment->face, &seat)) == 0) {
        holds_nothing(seat);
        plk_fibre_drop(seat);
    }
    if (result(T_enroll, plk_enroll(&segment->face, &seat)) == 0 &&
        (seat->vcpu == NULL || seat->tag == 0 || seat->tag > segment->geometry.vcpus))
        fail("a seat with tag %llu", (unsigned long long)seat->tag);
    note_the_seat();
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

static void detach(int close_first)
{
    struct plk_seat *seat = plk_seat_even_closed(&segment->face);
    int fd = segment->fd, lost = !plk_fd_is_ours(segment);

    world.hostile = 0;
    world.fault = FAULT_NONE;
    world_call(UINT64_MAX, NULL);
    if (seat != NULL) {
        holds_nothing(seat);
        seat->nodes = 0;
        let_go_of_syncs();
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

static void call_something(void)
{
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
    case 9: look_after_a_lock(); break;
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
    forget_the_locks();
    forget_the_syncs();
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
