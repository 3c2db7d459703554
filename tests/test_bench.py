"""The benchmark suite measures what it says: tables, a tiny run of each scenario, results, bad input.

Nothing here depends on how fast anything is.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from support.figures import result, sample
from support.wait import until

import pylocks
from pylocks.bench import bars, results, run, scenarios, warnings
from pylocks.bench.arena import Arena, Crew, Slice, figures, lead
from pylocks.bench.csubjects import library
from pylocks.bench.csubjects import subjects as c_subjects
from pylocks.bench.lineup import C_LINEUP, PYTHON_LINEUP, contenders
from pylocks.bench.options import Options
from pylocks.bench.process import Process, ProcessError
from pylocks.bench.results import Found, Spread
from pylocks.bench.sample import Sample, jain, percentile
from pylocks.bench.scenarios import SCENARIOS, Cell, Scenario, Speed
from pylocks.bench.settings import Setting
from pylocks.bench.subjects import SUBJECTS
from pylocks.bench.uncontended.cases import all_cases

TINY = Options(quick=True, rounds=1, seconds=0.02)
WORK = Speed(turns_per_ns=0.5, loops_per_ns=0.05)
FIGURES = ("rate", "jain", "p50", "p99", "p999", "max", "cpu", "switches")

# ------------------------------------------------------------------- tables


def test_every_scenario_has_a_file_and_a_row() -> None:
    folder = Path(scenarios.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "interface"}
    assert files == {one.name for one in SCENARIOS}
    assert len(SCENARIOS) == len({one.name for one in SCENARIOS})


def test_every_contender_is_of_a_subject_and_takes_part() -> None:
    assert {row.subject for row in C_LINEUP} <= {subject.name for subject in c_subjects()}
    assert {row.subject for row in PYTHON_LINEUP} <= {subject.name for subject in SUBJECTS}
    names = [row.name for row in (*C_LINEUP, *PYTHON_LINEUP)]
    assert len(names) == len(set(names))
    wanted = {name for one in SCENARIOS for name in one.lineup}
    assert wanted == set(names)


def test_every_c_subject_contends_somewhere() -> None:
    """But the one that may not be used where processes are killed."""
    assert {row.subject for row in C_LINEUP} == {subject.name for subject in c_subjects()} - {"unrecorded"}


@pytest.mark.parametrize("one", SCENARIOS, ids=lambda one: one.name)
def test_a_scenario_has_a_reference_that_takes_part(one: Scenario) -> None:
    assert len({cell.name for cell in one.cells}) == len(one.cells)
    if one.measure is None:
        assert one.reference in one.lineup and any(cell.quick for cell in one.cells)
        contenders(one.lineup)


@pytest.mark.parametrize("bar", bars.BARS, ids=lambda bar: f"{bar.scenario} {bar.cell} {bar.measure}")
def test_a_bar_is_about_what_is_measured(bar: bars.Bar) -> None:
    one = scenarios.scenario(bar.scenario)
    if one.measure is not None:
        known = {(case.operation, case.subject) for case in all_cases()}
        assert {(bar.cell, name) for name in (bar.subject, *bar.against)} <= known
        assert bar.measure == "ns"
    else:
        assert {bar.cell, bar.against_cell or bar.cell} <= {cell.name for cell in one.cells}
        assert {bar.subject, *bar.against} <= set(one.lineup)
        name, _, event = bar.measure.partition(".")
        assert name in {field.name for field in fields(Sample)}
        assert not event or event in {field.name for field in fields(pylocks.Stats)}
    assert (bar.at_least is None) is not (bar.at_most is None)


@pytest.mark.parametrize("one", [scenarios.scenario(name) for name in ("overcommit", "python")])
def test_crowds_get_longer_slices(one: Scenario) -> None:
    seconds = {cell.processes: cell.slice(WORK, 0.25, 0).seconds for cell in one.cells}
    assert seconds == {n: 0.75 if n >= 64 else 0.25 for n in seconds} and {8, 64} <= {*seconds}


def test_every_scenario_that_promises_something_has_a_bar() -> None:
    assert {bar.scenario for bar in bars.BARS} >= {"uncontended", "two", "overcommit", "python", "parked"}
    assert len(bars.BARS) == len(set(bars.BARS))


# ---------------------------------------------------------------- tiny runs


def tiny(one: Scenario) -> Scenario:
    """With few processes, and one load of a kind."""
    cells: dict[tuple[str, bool], Cell] = {}
    for cell in one.cells:
        cells.setdefault((cell.game, cell.inside_ns > 0), replace(cell, processes=min(cell.processes, 3)))
    return replace(one, cells=tuple(cells.values()))


@pytest.fixture(scope="module")
def found() -> dict[str, Found]:
    """What was measured so far, by scenario."""
    return {}


def measured(one: Scenario, found: dict[str, Found]) -> Found:
    """A tiny run of it, once."""
    if one.name not in found:
        if one.measure is not None:
            found[one.name] = one.measure(TINY, lambda text: None)
        else:
            found[one.name] = run.measure(tiny(one), TINY, WORK, lambda text: None)
    return found[one.name]


@pytest.mark.parametrize("one", SCENARIOS, ids=lambda one: one.name)
def test_a_tiny_run_measures_everybody(one: Scenario, found: dict[str, Found]) -> None:
    got = measured(one, found)
    missing = {name for name, facts in got.facts.items() if "unavailable" in facts}
    for name in missing:
        assert got.facts[name]["unavailable"], f"{name} is not available, and nobody says why"
    assert got.cells and got.cells.keys() == got.loads.keys()
    for cell, samples in got.cells.items():
        if one.measure is None:
            assert set(samples) == set(one.lineup) - missing
        for name, rounds in samples.items():
            assert rounds, f"{name} was not measured in {cell}"
            for each in rounds:
                check(one, name, each)
            if one.measure is None and not contenders([name])[0].collapses and not rounds[0]["acquisitions"]:
                until(lambda cell=cell, name=name: again(one, cell, name), f"{name} to be had in {cell}")


def again(one: Scenario, cell: str, name: str) -> int:
    """Acquisitions in another run: on a busy machine nobody may have had a turn in the first."""
    options = replace(TINY, cells=(cell,), subjects=(name,), seconds=0.2)
    acquisitions: int = run.measure(tiny(one), options, WORK, print).cells[cell][name][0]["acquisitions"]
    return acquisitions


def check(one: Scenario, name: str, sample: dict[str, Any]) -> None:
    """A sample is complete and can be true."""
    assert {field.name for field in fields(Sample)} <= sample.keys()
    if one.measure is not None:
        assert sample["ns"] > 0
        return
    row = contenders([name])[0]
    assert name == "empty" or sample["violations"] == 0
    assert row.collapses or sample["killed"] == 0
    assert sample["rate"] == pytest.approx(sample["acquisitions"] / sample["seconds"])
    if sample["acquisitions"] and sample["p50"] is not None:
        assert 0 <= sample["p50"] <= sample["p99"] <= sample["p999"] <= sample["max"]
    if one.name != "death":
        assert sample["cpu"] >= 0 and sample["others"] >= 0
        assert sample["jain"] is None or 0 < sample["jain"] <= 1 + 1e-9


@pytest.mark.parametrize("name", ["pylocks", "TicketLock"])
def test_figures_come_from_what_the_workers_wrote(name: str, found: dict[str, Found]) -> None:
    """Everything that is in a table is there for a lock of C and for one of Python."""
    one = scenarios.scenario("overcommit" if name == "pylocks" else "python")
    for samples in measured(one, found).cells.values():
        if samples[name][0]["acquisitions"]:
            assert all(samples[name][0][figure] is not None for figure in FIGURES)


def test_a_lock_is_measured_under_the_slow_path_that_its_row_names(found: dict[str, Found]) -> None:
    facts = measured(scenarios.scenario("overcommit"), found).facts
    assert facts["pylocks:native"]["protocol"] == "native"
    for slow_path in ("yield", "futex"):
        assert facts[f"pylocks:{slow_path}"]["slow_path"] == slow_path
        assert facts[f"pylocks:{slow_path}"]["protocol"] == "enlightened"


def test_what_can_not_be_had_is_said_and_does_not_stop_the_others() -> None:
    with Process("host", Setting("nobody", {})) as process:
        facts = process.ask({"subject": "pylocks", "policy": "random", "locks": 1})
    assert "random" in facts["unavailable"]


def test_a_queue_wakes_one_for_each_release(found: dict[str, Found]) -> None:
    (samples,) = measured(scenarios.scenario("parked"), found).cells.values()
    (counted,) = samples["pylocks:counted"]
    assert 0 < counted["events"]["kicks"] <= 1
    assert counted["acquisitions"] % 3 == 0 and counted["jain"] == 1


def test_no_exclusion_is_found_out() -> None:
    """`empty` lets everybody in: the counter shows it, wherever that is a fault."""
    plan = Slice("contend", 2, 2000, 0, 0.5, 0.05, 0.1)
    arena = Arena(plan)
    lib = library()
    subject = next(subject for subject in c_subjects() if subject.name == "empty")
    with (
        subject.open() as lock,
        Crew(plan, arena, lambda n: lib.bench_work(lock.raw, arena.control, n, lib.BENCH_CONTEND)) as crew,
    ):
        killed = lead(arena, plan)
    # Where the two never ran at once, their wrong order was made: another's increment is lost.
    arena.control.counter += 1
    assert figures(arena, crew.used, killed, 1.0).violations > 0


def test_a_worker_that_fails_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    """And nobody waits for it."""
    plan = Slice("contend", 2, 0, 0, 1, 1, 0.05)
    arena = Arena(plan)

    def work(number: int) -> None:
        raise RuntimeError(f"worker {number} has had enough")

    with pytest.raises(OSError), Crew(plan, arena, work):
        lead(arena, plan)
    assert "has had enough" in capfd.readouterr().err


def test_who_is_stuck_is_killed_and_counted() -> None:
    """A lock that is held by nobody who will release it: its waiters' waits count as far as they went."""
    plan = Slice("contend", 2, 0, 0, 1, 1, 0.05, warm_ms=1, collapses=True)
    arena, lib = Arena(plan), library()
    subject = next(subject for subject in c_subjects() if subject.name == "pthread_mutex")
    with subject.open() as lock, lock:
        with Crew(
            plan, arena, lambda n: lib.bench_work(lock.raw, arena.control, n, lib.BENCH_CONTEND)
        ) as crew:
            killed = lead(arena, plan)
        sample = figures(arena, crew.used, killed, lib.bench_ticks_per_ns())
    assert (sample.killed, sample.acquisitions, sample.jain, sample.p50) == (2, 0, None, None)
    assert sample.max is not None and sample.max >= plan.seconds * 1e9 * 0.9


def test_a_process_that_dies_is_told() -> None:
    with (
        pytest.raises(ProcessError, match="'nobody' ended with status 1"),
        Process("host", Setting("nobody", {})) as process,
    ):
        process.ask({"subject": "no such lock", "policy": "fifo", "locks": 1})


# ------------------------------------------------------------------ figures


def test_buckets_are_narrow_and_in_order() -> None:
    lib = library()
    floors = [lib.bench_bucket_floor(bucket) for bucket in range(lib.BENCH_BUCKETS)]
    assert floors == sorted(set(floors)) and floors[0] == 0
    for bucket, floor in enumerate(floors):
        last = floors[bucket + 1] - 1 if bucket + 1 < len(floors) else 2**64 - 1
        assert lib.bench_bucket(floor) == lib.bench_bucket(last) == bucket
        assert last - floor <= max(0, floor / 16)


def test_percentiles_are_those_of_the_waits() -> None:
    waits = [0] * library().BENCH_BUCKETS
    for wait, times in ((10, 50), (100, 49), (1000, 1)):
        waits[library().bench_bucket(wait)] += times
    assert percentile(waits, 0.5, 1.0) == 10
    assert percentile(waits, 0.51, 1.0) == pytest.approx(100, rel=0.07)
    assert percentile(waits, 1.0, 2.0) == pytest.approx(500, rel=0.07)
    assert percentile([0] * len(waits), 0.5, 1.0) is None


def test_jain() -> None:
    assert jain([5, 5, 5]) == 1
    assert jain([9, 0, 0]) == pytest.approx(1 / 3)
    assert jain([0, 0]) is None


def test_ratios_are_of_the_same_round() -> None:
    """A machine that is half as fast in one round changes no ratio."""
    mine = [{"rate": 20.0}, {"rate": 10.0}, {"rate": 4.0}]
    other = [{"rate": 10.0}, {"rate": 5.0}, {"rate": 2.0}]
    assert results.ratio(mine, other, "rate") == Spread(2, 2, 2)
    assert results.ratio(mine, [{"rate": 0.0}] * 3, "rate") is None
    assert results.typical([{"events": {"kicks": 2}}, {"events": {}}], "events.kicks") == Spread(2, 2, 2)


def test_bars_are_met_and_missed() -> None:
    """Against the best of the peers, each round against the same."""
    cell = {
        "pylocks": [sample(rate=99.0, cpu=1.0, jain=1.0), sample(rate=210.0, cpu=2.0, jain=0.99)],
        "ticket_yield": [sample(rate=100.0, cpu=2.0), sample(rate=200.0, cpu=2.0)],
        "pylocks:bounded": [sample(rate=90.0, jain=0.97, max=13.3e6)] * 2,
        "adaptive": [sample(rate=80.0)] * 2,
        "sem_t": [sample(rate=100.0)] * 2,
    }
    found = {
        (verdict.bar.subject, verdict.bar.measure, verdict.peer): verdict
        for verdict in bars.judge(result({"8:S": cell}))
        if verdict.bar.against != bars.EXPLICIT
    }
    assert {key: verdict.met for key, verdict in found.items()} == {
        ("pylocks", "rate", "ticket_yield"): True,  # 0.99 and 1.05
        ("pylocks", "cpu", "ticket_yield"): True,
        ("pylocks", "jain", None): True,
        ("pylocks:bounded", "rate", "sem_t"): False,
        ("pylocks:bounded", "jain", None): True,
        ("pylocks:bounded", "max", None): False,
    }
    figure = found["pylocks", "rate", "ticket_yield"].figure
    assert figure is not None and figure.median == pytest.approx(1.02)


def test_a_bar_without_its_peers_is_not_judged() -> None:
    (verdict,) = (
        verdict
        for verdict in bars.judge(result({"8:S": {"pylocks": [sample(jain=1.0)]}}))
        if verdict.bar.against == ("ticket_yield",) and verdict.bar.measure == "rate"
    )
    assert verdict.met is None and verdict.figure is None


def test_a_bar_across_loads_is_judged_round_by_round() -> None:
    cells = {
        name: {"pylocks:futex": [sample(rate=rate), sample(rate=rate / 2)]}
        for name, rate in (("8", 1300.0), ("1000", 1001.0))
    }
    (verdict,) = bars.judge(result(cells, "parked"))
    assert verdict.met and verdict.peer == "pylocks:futex"


def test_what_may_have_spoilt_a_run_is_said(tmp_path: Path) -> None:
    broken = [sample(others=0.5, violations=3)]
    run_of = result({"8:S": {"pylocks": broken, "empty": broken}})
    run_of["scenarios"]["overcommit"]["facts"] = {
        "pylocks": {"sites": 9, "patched": 2},
        "filelock": {"unavailable": "it is not installed"},
    }
    said = "\n".join(warnings.after(run_of))
    for part in ("8:S (0.5)", "pylocks did not exclude: 3", "2 of 9", "no filelock in overcommit: it is not"):
        assert part in said
    assert "empty" not in said

    governor = tmp_path / "cpu0" / "cpufreq" / "scaling_governor"
    governor.parent.mkdir(parents=True)
    governor.write_text("powersave\n")
    assert any("powersave" in text for text in warnings.before(tmp_path))
    governor.write_text("performance\n")
    assert not any("governor" in text for text in warnings.before(tmp_path))
