"""A sample of `make fuzz`: hostile and broken segments under the address sanitizer; and that it bites."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sanitize import build
from sanitize.build import Plant
from sanitize.sample import LONG, run, skip_unless_made

skip_unless_made(build.FUZZ)
pytestmark = LONG

SAMPLE_S = 8
EXECUTIONS = 400_000
"""At most: a fault that needs more is not found in time."""


def test_no_segment_breaks_who_reads_it(tmp_path: Path) -> None:
    done = run(
        build.program(build.FUZZ), "--seed", 20, "--executions", EXECUTIONS, "--seconds", SAMPLE_S,
        "--save", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert not list(tmp_path.iterdir())
    found = re.match(r"(\d+) executions in .*, seed 20: (\d+) ways through the core", done.stdout)
    assert found is not None, done.stdout
    assert int(found[1]) > 500 and int(found[2]) > 500, done.stdout


def test_the_same_seed_goes_the_same_ways() -> None:
    program = build.program(build.FUZZ)
    first, again, other = (
        run(program, "--seed", seed, "--executions", 600).stdout.splitlines()[1:] for seed in (5, 5, 6)
    )
    assert first == again != other


def test_every_function_that_reads_a_segment_is_a_target() -> None:
    """Of those that others than the core itself can call."""
    targets = "".join((build.HERE / source).read_text() for source in CALLS)
    for header in (build.CSRC / "hv").glob("*.h"):
        text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.DOTALL)
        for name, parameters in re.findall(r"\b(plk_\w+)\(([^)]*)\);", text):
            if re.search(r"\b(fd|struct plk_(segment|wait|domain|lock|cell) \*)", parameters):
                assert name in targets or name in INNER, f"nothing calls {name}"


CALLS = ("looks.c", "waits.c", "syncs.c", "targets.c")

INNER = {
    "plk_retire_all", "plk_segment_publish", "plk_segment_put", "plk_recover_vcpu", "plk_serve",
    "plk_serve_next", "plk_reserve", "plk_reserve_cell", "plk_slots_ready", "plk_entries_ready",
    "plk_cells_next", "plk_resume", "plk_reserve_sync", "plk_reserve_node", "plk_guard_bind",
    "plk_segment_address", "plk_segment_fd", "plk_segment_shut",
    "plk_recover_lapsed", "plk_recover_dead", "plk_leave_for", "plk_release_for",
    "plk_slot_find", "plk_guard_lock", "plk_guard_trylock", "plk_guard_unlock", "plk_guard_clean",
    "plk_barrier_heavy", "plk_slow_raise", "plk_park", "plk_kick", "plk_watch_by_clock", "plk_pass",
    "plk_channel_of", "plk_queue_shown", "plk_queue_promoted", "plk_queue_pass",
    "plk_queue_call", "plk_gate_watch", "plk_queue_called", "plk_queue_arm", "plk_queue_disarm",
    "plk_holder_out", "plk_queue_wake", "plk_held_elsewhere", "plk_service_lives", "plk_service_ring",
    "plk_policy_spin", "plk_policy_trust", "plk_policy_spin_in", "plk_cell_free",
    "plk_service_greet", "plk_service_rouse", "plk_service_index", "plk_service_looks",
    "plk_events_bind", "plk_extent_next", "plk_seat_take", "plk_seat_leave",
    "plk_reserve_tally", "plk_rings", "plk_event_counters", "plk_event_trace", "plk_counters_entered",
    "plk_counters_left", "plk_trace_entered", "plk_trace_left",
}  # fmt: skip
"""Reached through others, or read nothing."""

PLANTS = {
    "geometry that contradicts itself": Plant(
        "hv/attach.c", "memcmp(&g, &h->geometry, sizeof(g)) != 0 || ", ""
    ),
    "a file that is too short": Plant("hv/attach.c", "if (size != g.size)", "if (size > g.size)"),
    "a mapping that is kept when attaching fails": Plant(
        "hv/attach.c", "        munmap(s->base, s->geometry.size);\n", "        (void)0;\n"
    ),
    "a name longer than its place": Plant("hv/directory.c", "*length > PLK_NAME_MAX || ", ""),
    "a name of a cell that is none": Plant(
        "hv/directory.c", "cell < s->geometry.cells ? (int64_t)cell : -PLK_E_CORRUPT", "(int64_t)cell"
    ),
    "a slot that was never used": Plant("hv/view.c", "index >= plk_vcpus_used(s)", "0"),
    "more names than there can be": Plant(
        "hv/reserve.c", "    if (said > most)\n        said = most;\n", "    (void)most;\n"
    ),
    "an owner that is no vCPU": Plant("patch/choices.c", "index < plk_slots(s) && ", ""),
    "a guard of another kind": Plant(
        "hv/guard.c",
        "    if (!plk_robust_sound(&s->header->guard.mutex))\n        return -ENOTRECOVERABLE;\n    clock",
        "    clock",
    ),
    "a recovery that does not end": Plant(
        "hv/recovery.c",
        "from = until - from > PLK_ORPHAN_SPAN ? from + PLK_ORPHAN_SPAN : until;",
        "from += 0;",
    ),
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_it_bites(plant: Plant, tmp_path: Path) -> None:
    """Without one of the checks it fails soon, and what it has found can be seen again."""
    program = build.program(build.FUZZ, (plant,))
    done = run(program, "--executions", EXECUTIONS, "--seconds", 60, "--patience", 3, "--save", tmp_path)
    assert done.returncode != 0, done.stdout
    (failed,) = tmp_path.iterdir()
    assert f"its input is in {failed}" in done.stderr
    again = run(program, "--patience", 3, "--replay", failed)
    assert again.returncode != 0, again.stdout
    healthy = run(build.program(build.FUZZ), "--replay", failed)
    assert healthy.returncode == 0 and "nothing failed" in healthy.stdout, healthy.stderr
