"""What a hypervisor service decides for its domain: published, honoured, and gone with the service."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import POLICIES
from support import monitored, run

import pylocks
from pylocks._core import lib
from pylocks.errors import MonitorError, MonitorPermissionError
from pylocks.observe import snapshot
from pylocks.policy import (
    LOOKS_CALM,
    LOOKS_MOST,
    LOOKS_SHORT,
    Accounts,
    Auto,
    Load,
    Policy,
    spin_of,
    spin_text,
)
from pylocks.service import live_segment


def play(scenario: str, *more: str) -> str:
    ops = "lock_spinning=futex,vcpu_preempted=same_cpu,lock_event=counters"
    if scenario in ("none_spins", "they_spin"):
        ops = ops.replace("same_cpu", "off")  # by nothing but the budget
    return run.python(
        "-m", "support.decided", scenario, *more, environment=run.settings(PYLOCKS_OPS=ops)
    ).check()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("scenario", ("none_spins", "they_spin", "who_had_better_not"))
def test_a_spin_budget_is_honoured(scenario: str, policy: str) -> None:
    said = play(scenario, policy)
    if said:
        pytest.skip(said.strip())


def test_who_is_taken_for_preempted_is_honoured() -> None:
    play("by_the_cpu")


@pytest.mark.skipif(bool(monitored.missing()), reason=monitored.missing() or "nothing is missing")
def test_its_monitor_is_believed() -> None:
    play("by_the_marks")


@pytest.mark.parametrize(
    "scenario", ("until_it_is_killed", "until_it_ends", "while_it_runs", "the_next_one_decides")
)
def test_it_holds_while_the_service_does(scenario: str) -> None:
    play(scenario)


def test_words_that_nobody_writes_do_no_harm() -> None:
    play("words_that_nobody_writes")


# ------------------------------------------------------------------------ auto

SHORT = Load(queued=2.0, steal=0.0, waiting=3)
STOLEN = Load(queued=0.0, steal=0.3, waiting=3)
CALM = Load(queued=0.0, steal=0.0, waiting=3)
BETWEEN = Load(queued=0.3, steal=0.0, waiting=3)


def looks(auto: Auto, load: Load, count: int) -> bool:
    """The same so many times; what it says then."""
    for _ in range(count):
        auto.decide(load)
    return auto.off


@pytest.mark.parametrize("load", (SHORT, STOLEN), ids=("queued", "stolen"))
def test_it_takes_the_budget_away_and_gives_it_back(load: Load) -> None:
    auto = Auto()
    assert not looks(auto, load, LOOKS_SHORT - 1)
    assert looks(auto, load, 1)
    assert looks(auto, CALM, LOOKS_CALM - 1)
    assert not looks(auto, CALM, 1)


@pytest.mark.parametrize(
    "load",
    (
        CALM,
        BETWEEN,
        Load(queued=5.0, steal=0.5, waiting=0),
        Load(queued=5.0, steal=0.5, waiting=3, waits=1000, spin_grants=900),
    ),
    ids=("calm", "between", "nobody waits", "spins are worth it"),
)
def test_it_leaves_alone_what_does_no_harm(load: Load) -> None:
    assert not looks(Auto(), load, 100)


def test_spins_that_end_in_vain_are_waste() -> None:
    assert looks(Auto(), Load(queued=1.0, steal=0.0, waiting=0, waits=1000, spin_grants=100), LOOKS_SHORT)


def test_a_moment_changes_nothing() -> None:
    """Neither a moment's load, nor a moment's calm, nor what lies between the two."""
    auto = Auto()
    for load in (SHORT, CALM, SHORT, BETWEEN) * 20:
        assert not auto.decide(load)
    looks(auto, SHORT, LOOKS_SHORT)
    for load in (*[CALM] * (LOOKS_CALM - 1), BETWEEN) * 20:
        assert not auto.decide(load)


def test_who_gave_back_too_early_waits_longer() -> None:
    """Up to a bound; and after a long time in which it did no harm, not any more."""
    auto, took = Auto(), []
    for _ in range(8):
        looks(auto, SHORT, LOOKS_SHORT)
        assert auto.off
        took.append(next(n for n in itertools.count(1) if auto.decide(CALM)))
    assert took[0] == LOOKS_CALM and took[-1] == LOOKS_MOST and took == sorted(took)
    assert took[1] == 2 * took[0]
    looks(auto, CALM, 4 * LOOKS_MOST)
    looks(auto, SHORT, LOOKS_SHORT)
    assert next(n for n in itertools.count(1) if auto.decide(CALM)) == LOOKS_CALM


def test_it_goes_by_the_kernels_accounts(tmp_path: Path) -> None:
    with pylocks.Domain() as domain, pylocks.TicketLock(domain=domain):
        (me,) = domain.vcpus()
        thread = tmp_path / f"{me.pid}/task/{me.tid}"
        thread.mkdir(parents=True)
        accounts = Accounts(domain, tmp_path)
        (thread / "schedstat").write_text("5 1000 7\n")
        (tmp_path / "stat").write_text("cpu  10 0 10 80 0 0 0 0 0 0\ncpu0 1\n")
        assert accounts.look() is None
        (thread / "schedstat").write_text("5 3600000001000 7\n")
        (tmp_path / "stat").write_text("cpu  10 0 10 155 0 0 0 25 0 0\ncpu0 1\n")
        load = accounts.look()
        assert load is not None and load.steal == 0.25 and load.queued > 1 and load.waiting == 0
        assert "threads queue for a CPU, 25% of their time is stolen" in str(load)
        for path in (thread / "schedstat", tmp_path / "stat"):
            path.unlink()
        load = accounts.look()
        assert load is not None and (load.queued, load.steal) == (0.0, 0.0)


# ----------------------------------------------------------------- what it is told


@pytest.mark.parametrize(
    ("text", "ns"),
    [("off", 0), ("0us", 0), ("50us", 50_000), ("0.5us", 500), ("700ns", 700), ("10ms", 10_000_000)],
)
def test_a_budget_is_a_time(text: str, ns: int) -> None:
    assert spin_of(text) == ns
    assert spin_of(spin_text(ns)) == ns


@pytest.mark.parametrize(
    "text", ["", "50", "us", "-1us", "11ms", "1s", "nan", "AUTO", "1e3us", "5 us", 50, None]
)
def test_what_is_no_budget(text: Any) -> None:
    with pytest.raises(ValueError, match="spin is own, auto, off or a time such as 50us, 10ms at most, not"):
        spin_of(text)
    with pytest.raises(ValueError, match="spin is own"):
        pylocks.Hypervisor(pylocks.Domain(), spin=text)


@pytest.mark.parametrize("text", ["", "on", "marks", None])
def test_what_is_no_way_to_tell(text: Any) -> None:
    with pytest.raises(ValueError, match="preemption is own, off, same_cpu, bpf, not"):
        pylocks.Hypervisor(pylocks.Domain(), preemption=text)


def test_waiters_of_a_native_domain_are_not_told_anything() -> None:
    code = (
        "import pylocks\nd = pylocks.Domain(protocol='native')\npylocks.Hypervisor(d)\n"
        "try:\n    pylocks.Hypervisor(d, spin='off')\nexcept ValueError as error:\n    print(error)"
    )
    assert "is native: its waiters spin until they are served" in run.python("-c", code).check()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("--spin", "soon"), "not 'soon'"), (("--preemption", "all"), "preemption is own")],
    ids=str,
)
def test_the_command_refuses(fresh_name: Callable[[], str], arguments: tuple[str, str], says: str) -> None:
    done = run.python("-m", "pylocks", "serve", fresh_name(), "--create", *arguments)
    assert done.status == 1 and says in done.err and done.err.count("\n") == 1


class Refused:
    """A monitor that can't be started."""

    running = False

    def __init__(self, error: Exception) -> None:
        self.error = error

    def start(self) -> None:
        raise self.error

    def stop(self) -> None:
        pass


def test_without_the_privilege_it_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later, it goes on: the participants see for themselves that there are no marks."""
    monkeypatch.setattr("pylocks.policy._seen", lambda: lib.PLK_MONITOR_NONE)
    domain = pylocks.Domain()
    for error in (MonitorPermissionError(1, "no privilege"), MonitorError("no BPF")):
        policy = Policy(domain, "own", "bpf", lambda **_: None)
        policy._monitor = Refused(error)  # type: ignore[assignment]
        with pytest.raises(type(error)):
            policy.look(live_segment(domain))
        policy._began = True
        policy.look(live_segment(domain))
        policy.end()


# ---------------------------------------------------------------------- to be seen


def test_it_is_shown(name: str) -> None:
    with pylocks.Domain(name) as domain, pylocks.TicketLock("orders", domain=domain):
        assert snapshot(name).policy == ""
        with pylocks.Hypervisor(domain, spin="20us", preemption="off"):
            found = snapshot(name)
            assert (found.service_spin_ns, found.service_preemption) == (20_000, "off")
            said = "spin 20us, preemption off"
            assert found.policy == said
            for command in (("ls",), ("inspect", "orders", "--domain", name, "--once")):
                assert said in run.python("-m", "pylocks", *command).check(), command
            doctor = run.python("-m", "pylocks", "doctor").out
            assert f"{name}: process" in " ".join(doctor.split())
        assert snapshot(name).policy == ""
