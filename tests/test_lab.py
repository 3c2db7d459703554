"""The laboratory: its table, whom the thief stops, what is made of the figures, and its report.

Nothing here depends on how fast anything is, or on what the slow paths make of it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from support import run as runs
from support.page import self_contained
from support.wait import until

import pylocks
from pylocks import cli
from pylocks.bench.arena import Arena, child
from pylocks.bench.csubjects import library, subject
from pylocks.bench.results import Found
from pylocks.bench.sample import Sample
from pylocks.lab import host, quota, report, results, run, scenarios
from pylocks.lab.plan import AIMS, StolenSlice
from pylocks.lab.scenarios import EXPERIMENTS, LINEUP, Experiment, Setup
from pylocks.lab.thief import STOPPED, Heist, Loot, Scene, VCpu, events

pytestmark = pytest.mark.timeout(300)
PATIENCE_S = 250.0
"""Many processes are started and measured one after another, each of them at the mercy of the machine."""

TWO = Setup(cpus=(0, 1), thief_cpus=(0, 1))

# ------------------------------------------------------------------- table


def test_every_aim_has_an_experiment_and_every_experiment_a_name() -> None:
    assert {one.aim for one in EXPERIMENTS} == set(AIMS)
    names = [one.name for one in EXPERIMENTS]
    assert len(names) == len(set(names))
    assert [scenarios.experiment(name) for name in names] == list(EXPERIMENTS)
    with pytest.raises(LookupError, match="there are no-steal"):
        scenarios.experiment("daylight-robbery")


@pytest.mark.parametrize("one", EXPERIMENTS, ids=lambda one: one.name)
def test_an_experiment_says_what_it_expects_and_can_check_it(one: Experiment) -> None:
    assert one.meaning and one.source and one.expected.endswith(".") and one.claims
    scenario = one.scenario(TWO)
    assert any(cell.quick for cell in scenario.cells)
    measures = {figure for figure, *_ in report.COLUMNS}
    for claim in one.claims:
        bar = claim.bar
        assert bar.scenario == one.name and bar.cell in {cell.name for cell in scenario.cells}
        assert {bar.subject, *bar.against} <= set(LINEUP) and bar.measure in measures
        assert (bar.at_least is None) is not (bar.at_most is None)
    assert len({(claim.bar.cell, claim.text) for claim in one.claims}) == len(one.claims)


def test_figures_are_those_of_a_sample_and_of_the_loot() -> None:
    known = {field.name for kind in (Sample, Loot) for field in fields(kind)} | {"cost", "waiting"}
    assert {figure for figure, *_ in report.COLUMNS} <= known


def test_one_cpu_has_only_loads_in_which_somebody_contends() -> None:
    alone = Setup(cpus=(0,), thief_cpus=(0,))
    for one in EXPERIMENTS:
        assert all(cell.processes > 1 for cell in one.scenario(alone).cells)
    assert scenarios.experiment("no-steal").scenario(alone).cells == ()


def test_steal_and_period_are_those_that_are_asked_for() -> None:
    setup = Setup((0, 1), (0, 1), steal=0.3, period_ns=5_000_000)
    for one in EXPERIMENTS:
        for cell in one.scenario(setup).cells:
            assert (cell.steal, cell.period_ns) == (0.3 if one.steals else 0.0, 5_000_000)


# ------------------------------------------------------------------- thief


def plan(aim: str, processes: int = 2, steal: float = 0.5) -> StolenSlice:
    return StolenSlice(
        *("contend", processes, 0, 0, 1, 1, 1.0), aim=aim, steal=steal, period_ns=20_000_000, thief_cpus=()
    )


@dataclass
class Stage:
    """One holds the lock and the other waits for it."""

    heist: Heist
    holder: VCpu
    waiter: VCpu
    release: int
    """Write a byte, and the holder releases."""


@contextmanager
def stage(aim: str, policy: str = "fifo") -> Iterator[Stage]:
    told, tell = os.pipe()
    children: list[int] = []
    arena = Arena(plan(aim))
    arena.control.phase = library().BENCH_MEASURE
    with pylocks.Domain(vcpus=8, locks=16, protocol="enlightened") as domain:
        lock = pylocks.TicketLock(domain=domain, policy=policy)

        def hold() -> None:
            lock.acquire()
            os.read(told, 1)
            lock.release()
            signal.pause()

        def wait() -> None:
            lock.acquire()
            signal.pause()

        heist = Heist(Scene(plan(aim), arena, lock))
        try:
            children.append(child(hold))
            until(lambda: domain.owner(lock.index) is not None, "a holder")
            children.append(child(wait))
            until(lambda: [v for v in domain.vcpus() if v.waiting_for is not None], "a waiter")
            heist.vcpus = [VCpu(number, pid) for number, pid in enumerate(children)]
            yield Stage(heist, *heist.vcpus, tell)
        finally:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            for vcpu in heist.vcpus:
                vcpu.close()
            os.close(told)
            os.close(tell)


def stopped(vcpu: VCpu) -> bool:
    return vcpu.state() in STOPPED


@pytest.mark.parametrize("policy", ["fifo", "bounded"])
def test_exactly_the_holder_is_stopped_and_goes_on(policy: str) -> None:
    with stage("holder", policy) as on:
        assert on.heist.hunt(on.heist.holder, on.heist.is_holder) is on.holder
        assert stopped(on.holder) and not stopped(on.waiter)
        on.heist.release(on.holder)
        until(lambda: not stopped(on.holder), "the holder to go on")
        assert on.heist.loot.missed == 0


def test_who_is_not_meant_goes_on_at_once() -> None:
    """Between the look and the stop the lock may have gone to another."""
    with stage("holder") as on:
        seen = iter([on.waiter, None, on.holder])
        on.heist.going()  # the window is open
        assert on.heist.hunt(lambda: next(seen), on.heist.is_holder) is on.holder
        assert on.heist.loot.missed == 1
        until(lambda: not stopped(on.waiter), "the waiter to go on")


def test_the_next_in_line_is_stopped_until_its_turn_has_come() -> None:
    with stage("next") as on:

        def open_up() -> None:
            until(lambda: stopped(on.waiter), "the waiter to be stopped")
            os.write(on.release, b"x")

        helper = threading.Thread(target=open_up)
        helper.start()
        found = on.heist.hunt(on.heist.next_in_line, on.heist.is_next)
        helper.join()
        assert found is on.waiter and stopped(on.waiter) and not stopped(on.holder)
        assert on.heist.holder() is None, "its turn has come, and it has not entered"
        on.heist.release(on.waiter)
        until(lambda: on.heist.holder() is on.waiter, "the waiter to enter")


def test_the_next_in_line_of_a_bounded_lock_is_who_holds_its_queue() -> None:
    with stage("next", "bounded") as on:
        until(lambda: on.heist.next_in_line() is on.waiter, "the waiter to stand by")
        assert on.heist.hunt(on.heist.next_in_line, on.heist.is_next) is on.waiter


def test_a_holder_is_no_next_in_line() -> None:
    """It was next when it was seen, and had entered when it was stopped."""
    with stage("next") as on:
        assert not on.heist.is_next(on.holder)


@pytest.mark.parametrize("aim", ["independent", "gang"])
def test_everybody_is_stopped_for_a_slice_of_each_period(aim: str) -> None:
    stolen = plan(aim, steal=0.3)
    for seed in range(50):
        happens = events(random.Random(seed), stolen, 3)
        assert happens == events(random.Random(seed), stolen, 3) == sorted(happens)
        begin, end = ({who: at for at, begins, who in happens if begins is kind} for kind in (True, False))
        assert set(begin) == set(end) == {0, 1, 2}
        assert all(end[who] - begin[who] == 6_000_000 for who in begin)
        assert min(begin.values()) >= 0 and max(end.values()) <= stolen.period_ns
        assert (len(set(begin.values())) == 1) == (aim == "gang")


def test_a_vcpu_that_fails_ends_the_slice(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """And the thief with it, who never gets to work."""

    def refuse(_: int) -> None:
        raise PermissionError("no niceness here")

    monkeypatch.setattr("pylocks.lab.host.os.nice", refuse)
    with pytest.raises(OSError):
        host.play(subject("pylocks"), "fifo", plan("gang"), 1.0)
    capfd.readouterr()


# ----------------------------------------------------------------- figures


def sample(**figures: Any) -> dict[str, Any]:
    base = {"rate": 100.0, "cpu": 1.0, "others": 0.0, "killed": 0, "violations": 0}
    return {**base, "loot": {"stops": [[0, 0.0, 0.1]], "cpu": 0.1, "burnt": None}, **figures}


def found(**subjects: list[dict[str, Any]]) -> Found:
    named = {{"empty": "empty"}.get(name, f"pylocks:{name}"): rounds for name, rounds in subjects.items()}
    loads: dict[str, dict[str, Any]] = {"2x": {"steal": 0.5}}
    return Found({"2x": named}, loads, {name: {} for name in named})


def test_waiting_is_what_an_acquisition_costs_beyond_the_work() -> None:
    got = found(
        native=[sample(cpu=2.0, rate=50.0), sample(rate=0.0)],
        futex=[sample(cpu=0.9, rate=100.0)],
        empty=[sample(cpu=1.0, rate=100.0), sample(cpu=1.0, rate=100.0)],
    )
    results.derive(got)
    (first, stuck), (futex,) = got.cells["2x"]["pylocks:native"], got.cells["2x"]["pylocks:futex"]
    assert first["cost"] == 40e6 and first["waiting"] == pytest.approx(0.75)
    assert stuck["cost"] is None and stuck["waiting"] == 1.0
    assert futex["waiting"] == 0.0, "noise is no negative waiting"
    assert first["thief"] == 0.1 and first["cpu"] == 2.0
    assert first["stops"] and not stuck["stops"]
    assert got.cells["2x"]["empty"][0]["waiting"] is None


def verdicts(
    name: str, steal: float = 0.5, others: float = 0.0, **subjects: dict[str, Any]
) -> dict[str, Any]:
    """text of each claim at 2x -> what became of it."""
    got = found(**{key: [{**sample(), "others": others, **one}] for key, one in subjects.items()})
    got.loads["2x"]["steal"] = steal
    rows = results.judged({"scenarios": {name: {"cells": got.cells, "loads": got.loads, "facts": got.facts}}})
    return {row["text"]: row for row in rows if row["bar"]["cell"] == "2x"}


NEXT = "next-ticket-preempted"
SPINS = "native spends at least 90% of its CPU time waiting"
GIVES = "futex takes at most 0.25 of native's CPU time for an acquisition"
GOES_ON = "bounded goes on meanwhile: others pass, a thousand times a second at least"


def test_claims_are_judged() -> None:
    native = {"waiting": 0.99, "cost": 1000.0}
    got = verdicts(NEXT, native=native, futex={"cost": 300.0}, bounded={"passed": 2000.0})
    assert [got[text]["met"] for text in (SPINS, GIVES, GOES_ON)] == [True, False, True]
    assert got[GIVES]["figure"]["median"] == pytest.approx(0.3)
    (row,) = report.shape_rows([got[GIVES]])
    assert row == (f"2x: {GIVES}", "0.3 of native's", "≤ 0.25", "NOT AS EXPECTED")


def test_a_thief_who_catches_hardly_anybody_is_told_of() -> None:
    def warned(aim: str, slices: int) -> str:
        cells = {"2x": {"pylocks:futex": [{"slices": slices}], "empty": [{"slices": 0}]}}
        return " ".join(run.idle_thieves({"x": {"cells": cells, "loads": {"2x": {"aim": aim}}}}))

    assert "x 2x: pylocks:futex was stopped 2 times only in 1 rounds" in warned("holder", 2)
    assert "used up its quota 0 times only" in warned("quota", 0)
    assert warned("next", 3) == warned("nobody", 0) == ""


def test_what_can_not_be_told_is_not_judged() -> None:
    subjects: dict[str, dict[str, Any]] = {
        "native": {"waiting": 0.99, "cost": 1000.0},
        "futex": {"cost": None},
        "bounded": {"passed": 2000.0},
    }
    busy = verdicts(NEXT, others=1.0, **subjects)
    assert busy[GOES_ON]["met"] is None and busy[GOES_ON]["why"] == "other programs used 1.0 CPUs"
    assert busy[SPINS]["met"] is True
    assert busy[GIVES]["met"] is None and busy[GIVES]["why"] == "not measured"
    little = verdicts(NEXT, steal=0.1, **subjects)
    assert {row["met"] for row in little.values()} == {None}
    assert "stated for a steal between" in little[SPINS]["why"]


# --------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny run of a stop at somebody, and one at random, with all that it writes."""
    out = tmp_path_factory.mktemp("lab")
    tiny = ("--quick", "--rounds", "1", "--seconds", "0.15", "--no-progress", "--period", "10ms")
    files = ("--json", str(out / "o.json"), "--html", str(out / "o.html"))
    given = ("holder-preempted", "steal-gang", "--steal", "0.4", "--seed", "7", *tiny, *files)
    runs.python("-m", "pylocks", "lab", *given, limit=PATIENCE_S).check()
    return {
        "result": json.loads((out / "o.json").read_text()),
        "html": (out / "o.html").read_text(encoding="utf-8"),
        "path": out / "o.html",
    }


def test_everybody_is_measured_under_the_slow_path_that_is_named(quick: dict[str, Any]) -> None:
    scenarios = quick["result"]["scenarios"]
    assert list(scenarios) == ["holder-preempted", "steal-gang"]
    for one in scenarios.values():
        assert one["facts"]["pylocks:native"]["protocol"] == "native"
        assert one["facts"]["pylocks:futex"]["slow_path"] == "futex"
        for cell, samples in one["cells"].items():
            assert set(samples) == set(LINEUP)
            assert (one["loads"][cell]["steal"], one["loads"][cell]["period_ns"]) == (0.4, 10_000_000)
            for (got,) in samples.values():
                assert {"cost", "waiting", "burnt", "stolen", "slices", "missed", "thief"} <= got.keys()
    gang = scenarios["steal-gang"]["cells"]["1x"]["pylocks:futex"][0]
    assert gang["stops"] and {who for who, *_ in gang["stops"]} == set(range(gang_size(scenarios)))
    assert all(begin <= end for _, begin, end in gang["stops"]) and 0 < gang["stolen"] <= 1


def gang_size(scenarios: dict[str, Any]) -> int:
    size: int = scenarios["steal-gang"]["loads"]["1x"]["processes"]
    return size


def test_nothing_is_stolen_from_what_has_no_holder(quick: dict[str, Any]) -> None:
    (without,) = quick["result"]["scenarios"]["holder-preempted"]["cells"]["1x"]["empty"]
    assert without["slices"] == 0 and without["stolen"] == 0


def test_a_run_can_be_made_again(quick: dict[str, Any]) -> None:
    command = quick["result"]["command"]
    assert command.startswith("pylocks lab holder-preempted steal-gang --cpus ")
    for option in ("--steal 0.4", "--period 10ms", "--rounds 1", "--seconds 0.15", "--seed 7", "--quick"):
        assert option in command


def test_the_page_is_well_formed_and_needs_nothing_but_itself(quick: dict[str, Any]) -> None:
    html, result = quick["html"], quick["result"]
    page = self_contained(html)
    cells = sum(len(one["cells"]) for one in result["scenarios"].values())
    # Three overviews; what became of the CPUs, in each cell; the stops, where there were any.
    stops = sum(
        bool(samples[name][0]["stops"])
        for one in result["scenarios"].values()
        for samples in one["cells"].values()
        for name in ("pylocks:native", "pylocks:futex")
    )
    assert stops and page.tags.count("svg") == 3 + cells + stops
    assert html.count('<td class="name">') == cells * len(LINEUP)
    assert page.tags.count("li") >= len(result["shape"])
    assert "Friebel" in html and "--seed 7" in html and result["host"]["kernel"] in html
    drawings = html[html.index("<svg") : html.rindex("</svg>")]
    assert "var(--native)" in drawings and "var(--no-lock)" in drawings and "#1c1d21" not in drawings


def test_the_tables_say_what_was_expected(quick: dict[str, Any], tmp_path: Path) -> None:
    with (tmp_path / "tables").open("w+") as file:
        report.show(quick["result"], file)
        file.seek(0)
        shown = file.read()
    assert "holder-preempted 1x:" in shown and "CPU/acq" in shown and report.summary(quick["result"]) in shown
    for row in quick["result"]["shape"]:
        assert row["text"][:20] in shown


def test_the_list_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lab", "--list"]) == 0
    shown = capsys.readouterr().out
    for one in EXPERIMENTS:
        assert f"{one.name}: {one.meaning}" in shown and one.source in shown and one.expected in shown


def test_check_tells_by_its_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ran(met: bool) -> dict[str, Any]:
        return {"shape": [{"met": met}], "scenarios": {}, "warnings": []}

    monkeypatch.setattr(report, "show", lambda result, to: None)
    for met, given, status in ((True, ["--check"], 0), (False, ["--check"], 1), (False, [], 0)):
        monkeypatch.setattr(run, "run", lambda options, tell, met=met: ran(met))
        assert cli.main(["lab", "no-steal", *given]) == status


# --------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("heist",), "no scenario 'heist'"),
        (("--steal", "1.5"), "'1.5' is not a part between 0.05 and 0.95"),
        (("--steal", "nan"), "'nan' is not a part"),
        (("--steal", "half"), "'half' is not a part"),
        (("overcommit", "--steal", "0.5"), "nothing is stolen in overcommit"),
        (("--period", "1us"), "'1us' is not between 2ms and 1s"),
        (("--period", "often"), "'often' is not a duration"),
        (("--cpus", "0"), "--cpus: 0 is not between 1 and"),
        (("--cpus", "100000"), "which this process may use"),
        (("no-steal", "--cpus", "1"), "would have one vCPU"),
        (("--rounds", "0"), "--rounds: 0 is not between"),
        (("--seconds", "0"), "--seconds: 0 is not between"),
        (("--seconds", "nan"), "--seconds: nan is not between"),
        (("--json", "/"), "is a directory"),
        (("--html", "/nowhere/o.html"), "there is no directory"),
    ],
)
def test_bad_input_is_refused(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["lab", *arguments])
    assert raised.value.code == 2
    assert complaint in " ".join(capsys.readouterr().err.split())


def test_where_no_quota_can_be_set_it_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quota, "refusal", lambda: "not delegated")
    with pytest.raises(SystemExit):
        cli.main(["lab", "steal-quota"])
    assert "no quota can be set here: not delegated" in capsys.readouterr().err
