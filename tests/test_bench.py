"""The benchmark suite measures what it says: tables, a tiny run of each scenario, results, bad input.

Nothing here depends on how fast anything is.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import run as runs
from support.wait import until

import pylocks
from pylocks import cli
from pylocks.bench import bars, compare, report, results, run, scenarios, targets, warnings
from pylocks.bench.arena import Arena, Crew, Slice, figures, lead
from pylocks.bench.csubjects import library
from pylocks.bench.csubjects import subjects as c_subjects
from pylocks.bench.lineup import C_LINEUP, PYTHON_LINEUP, contenders
from pylocks.bench.options import Options
from pylocks.bench.process import Process, ProcessError
from pylocks.bench.results import Found, Spread
from pylocks.bench.sample import Sample, jain, percentile
from pylocks.bench.scenarios import SCENARIOS, Cell, Scenario, Speed
from pylocks.bench.settings import SETTINGS, Setting
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
            for sample in rounds:
                check(one, name, sample)
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


def result(cells: dict[str, dict[str, list[dict[str, Any]]]], name: str = "overcommit") -> dict[str, Any]:
    """A run that found these."""
    one = scenarios.scenario(name)
    loads = {cell.name: asdict(cell) for cell in one.cells if cell.name in cells}
    facts: dict[str, dict[str, Any]] = {subject: {} for samples in cells.values() for subject in samples}
    return {"scenarios": {name: {"cells": cells, "loads": loads, "facts": facts}}}


def sample(**figures: Any) -> dict[str, Any]:
    return {**asdict(Sample(seconds=1, acquisitions=1, rate=1)), **figures}


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


# ------------------------------------------------------------------ command

SMALL = (
    "bench",
    "fairness",
    "--quick",
    "--rounds",
    "2",
    "--seconds",
    "0.02",
    "--cells",
    "8",
    "--no-progress",
)
SUBJECTS_OF_SMALL = ("--subjects", "pylocks,ticket_yield,pthread_mutex")


def command(*words: str | Path) -> int:
    return cli.main([str(word) for word in words])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run, as --json writes it."""
    path = tmp_path_factory.mktemp("bench") / "saved.json"
    assert command(*SMALL, *SUBJECTS_OF_SMALL, "--json", path) == 0
    return path


def test_a_run_is_saved_with_samples_host_and_warnings(saved: Path) -> None:
    told = json.loads(saved.read_text())
    assert told["schema"] == results.SCHEMA and told["pylocks"] == pylocks.__version__
    assert told["host"]["cpus"] == os.cpu_count() and told["compiler"]
    assert isinstance(told["warnings"], list) and told["options"]["rounds"] == 2
    cells = told["scenarios"]["fairness"]["cells"]
    assert set(cells["8:greedy"]) == {"pylocks", "ticket_yield", "pthread_mutex"}
    assert all(len(samples) == 2 for samples in cells["8:greedy"].values())


def test_a_run_is_compared_with_a_saved_one(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*SMALL, "--subjects", "pylocks,ticket_yield", "--compare", saved) == 0
    shown = capsys.readouterr().out
    assert "this run against saved.json" in shown


def test_rates_are_compared_as_they_are_and_by_the_reference() -> None:
    """Twice as fast as before on a machine that is twice as fast is the same."""
    now = result({"8:S": {"pylocks": [sample(rate=8.0, max=3.0)], "ticket_yield": [sample(rate=4.0)]}})
    then = result({"8:S": {"pylocks": [sample(rate=4.0, max=2.0)], "ticket_yield": [sample(rate=2.0)]}})
    (table,) = compare.tables(now, then, "before")
    assert table.rows[0] == ("8:S pylocks", "8", "4", "2.00", "1.00", "1.50")


def test_two_installations_are_measured_in_the_same_rounds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other one by a path of its own, here a link to this one."""
    checkout = tmp_path / "other"
    checkout.mkdir()
    (checkout / "pylocks").symlink_to(Path(pylocks.__file__).parent)
    (checkout / "csrc").symlink_to(Path(pylocks.get_include()).parent)
    out = tmp_path / "ab.json"
    words = (*SMALL, "--subjects", "pylocks,ticket_yield", "--against", checkout, "--json", out)
    assert command(*words) == 0
    assert "here / other" in capsys.readouterr().out
    cells = json.loads(out.read_text())["scenarios"]["fairness"]["cells"]["8:greedy"]
    assert set(cells) == {"pylocks", "pylocks@other", "ticket_yield"}
    assert len(cells["pylocks"]) == len(cells["pylocks@other"]) == 2


def test_an_interpreter_is_a_target() -> None:
    """Which finds its pylocks by itself: where there is none, that is said."""
    try:
        target = targets.other(sys.executable)
    except targets.BadTargetError as error:
        assert "can't be imported" in str(error)
    else:
        assert target.interpreter == sys.executable and not target.path


DRAW = """
import json, sys
from pylocks.bench import charts
told = json.load(open(sys.argv[1]))
for name in sys.argv[2:]:
    charts.save(told, name)
print(json.dumps(charts.lines(*charts.merged(told), "S", "rate")))
"""


def test_pictures_show_every_subject(saved: Path, tmp_path: Path) -> None:
    """In a process of its own: matplotlib keeps its fonts open."""
    pytest.importorskip("matplotlib")
    told = json.loads(saved.read_text())
    cell = {name: [sample(rate=5.0, max=1e6)] for name in ("pylocks", "ticket_yield", "sem_t")}
    told["scenarios"] = result({"8:S": cell, "64:S": cell})["scenarios"]
    run_file = saved_as(tmp_path, json.dumps(told))
    pictures = {"p.png": b"\x89PNG", "p.svg": b"<?xml"}
    lines = json.loads(runs.python("-c", DRAW, run_file, *(tmp_path / name for name in pictures)).check())
    for name, start in pictures.items():
        assert (tmp_path / name).read_bytes().startswith(start)
    assert {name: counts for name, (counts, _) in lines.items()} == {name: [8, 64] for name in cell}


def test_the_figures_stand_together_in_every_row(saved: Path) -> None:
    told = json.loads(saved.read_text())
    (table,) = report.tables(told)
    assert table.header[1:9] == ("acq/s", "Jain", "p50", "p99", "p99.9", "max", "CPUs", "switches")
    assert all(all(row[:9]) for row in table.rows) and len(table.rows) == 3


def test_what_pylocks_counted_is_shown() -> None:
    """Only events that somebody had."""
    counted = [sample(events={"kicks": 1.0, "parks": 0.0})]
    run_of = result({"8": {"pylocks:counted": counted, "sem_t": [sample()]}}, "parked")
    *_, events = report.tables({**run_of, "options": {"against": None}})
    assert (events.header, events.rows) == (("", "kicks"), (("8 pylocks:counted", "1"),))


def test_bars_are_shown_with_what_became_of_them() -> None:
    """Met, missed, and those that could not be judged."""
    cell = {"pylocks": [sample(rate=2.0, jain=0.5)], "ticket_yield": [sample(rate=1.0)]}
    verdicts = [asdict(verdict) for verdict in bars.judge(result({"8:S": cell}))]
    shown = {row[0]: (row[1], row[3], row[4]) for row in report.bars(verdicts).rows}
    assert shown["overcommit 8:S pylocks: rate / ticket_yield"] == ("2", "≥ 1", "met")
    assert shown["overcommit 8:S pylocks: jain"] == ("0.5", "≥ 0.99", "MISSED")
    assert shown["overcommit 8:S pylocks: rate / the best peer"] == ("", "≥ 0.95", "not measured")


def test_tables_are_plain_without_rich(saved: Path) -> None:
    """The same text, from a process that can't import rich."""
    script = (
        "import json, sys\nsys.modules['rich'] = None\nfrom pylocks.bench import report\n"
        "report.show(json.load(open(sys.argv[1])), sys.stdout)"
    )
    shown = runs.python("-c", script, saved).check()
    for word in ("acq/s", "Jain", "ticket_yield", "pthread_mutex"):
        assert word in shown


def test_json_on_standard_output_is_alone_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*SMALL, "--subjects", "ticket_yield", "--rounds", "1", "--json", "-") == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["schema"] == results.SCHEMA and "Jain" in told.err


def test_a_missed_bar_is_a_failure_only_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    impossible = bars.Bar("fairness", "8:greedy", "ticket_yield", "rate", at_least=1e12)
    monkeypatch.setattr(bars, "BARS", (impossible,))
    words = (*SMALL, "--subjects", "ticket_yield", "--rounds", "1")
    assert command(*words) == 0
    assert command(*words, "--check") == 1


def test_the_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("bench", "--list") == 0
    shown = capsys.readouterr().out
    for one in SCENARIOS:
        assert one.meaning in shown and all(name in shown for name in one.lineup)


def saved_as(folder: Path, text: str) -> Path:
    (folder / "run.json").write_text(text)
    return folder / "run.json"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "no scenario 'nonsense'; there are uncontended"),
        (["two", "--subjects", "nonsense"], "no subject 'nonsense'"),
        (["two", "--subjects", "flock"], "flock takes no part in two"),
        (["two", "--subjects", "ttas,,"], "a name is missing between commas"),
        (["two", "--cells", "9:S"], "there is no 9:S in 2:S"),
        (["two", "--rounds", "0"], "--rounds: 0 is not between"),
        (["two", "--rounds", "many"], "invalid int value"),
        (["two", "--seconds", "0"], "--seconds: 0 is not between"),
        (["two", "--seconds", "nan"], "--seconds: nan is not between"),
        (["two", "--json", "/no/such/place/out.json"], "there is no directory /no/such/place"),
        (["two", "--json", "/"], "is a directory"),
        (["two", "--plot", "out.gif"], "must end in .png or .svg"),
        (["death", "--plot", "out.png"], "--plot draws"),
        (["two", "--compare", "/no/such/file"], "No such file"),
        (["two", "--against", "/no/such/place"], "neither a checkout"),
        (["two", "--against", "/etc/passwd"], "neither a checkout"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_are_refused(words: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command("bench", *words)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[]", "was not written by pylocks bench"),
        ('{"schema": 1}', "was not written by pylocks bench"),
        ('{"schema": 99, "scenarios": {}, "options": {}, "host": {}}', "has format 99"),
    ],
)
def test_a_bad_saved_run_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(compare.BadFileError, match=said):
        compare.load(saved_as(tmp_path, text))


def test_a_checkout_that_was_not_built_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pylocks").mkdir()
    (tmp_path / "pylocks" / "__init__.py").write_text("from pylocks import _lock\n")
    with pytest.raises(targets.BadTargetError, match=r"can't be imported.*build it first"):
        targets.other(str(tmp_path))


def test_another_interpreter_without_pylocks_is_refused(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho no module >&2\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(targets.BadTargetError, match=r"no module.*install pylocks"):
        targets.other(str(fake))


def test_ctrl_c_ends_a_run_and_leaves_nobody() -> None:
    """Neither the processes of the subjects nor their workers."""
    words = ("-m", "pylocks", "bench", "fairness", "--rounds", "1000", "--cells", "8", "--no-progress")
    with runs.Interactive(*words) as process:
        us = psutil.Process(process.pid)
        until(lambda: len(us.children(recursive=True)) > len(us.children()) > 0, "workers of a subject")
        os.kill(process.pid, signal.SIGINT)
        assert process.wait() == 130
        assert not runs.end_session(process.pid), "somebody stayed"


def test_settings_are_told_apart() -> None:
    """Each process is told its own, and nothing that this one is told about pylocks."""
    for setting in SETTINGS:
        told = {name: value for name, value in setting.environment().items() if name.startswith("PYLOCKS_")}
        assert told == setting.variables
