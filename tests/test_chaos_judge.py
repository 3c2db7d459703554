"""Chaos, step by step: decisions that replay, marks that detect, and judgements of made-up histories."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pylocks._core import lib
from pylocks.stress.chaos import decisions, judge, sight
from pylocks.stress.chaos.area import ChaosArea, Claim, Report
from pylocks.stress.chaos.crew import Sitter
from pylocks.stress.chaos.plan import Death, Stall, Stop
from pylocks.stress.shared import CHAOS_KINDS, KINDS

# ---------------------------------------------------------------- decisions


def turns(seed: int, seat: int, generation: int, number: int = 300) -> list[decisions.Turn]:
    worker = decisions.Worker(seed, seat, generation, processes=8, locks=50)
    return [worker.turn() for _ in range(number)]


def test_a_seed_gives_every_process_the_same_turns() -> None:
    first = turns(7, 2, 0)
    assert first == turns(7, 2, 0)
    assert first != turns(8, 2, 0) and first != turns(7, 3, 0) and first != turns(7, 2, 1)
    assert {turn.how for turn in turns(7, 0, 0, 2000)} == {how for how, _ in decisions.HOW}


def test_turns_can_not_wait_in_a_circle() -> None:
    drawn = [turn for seed in range(5) for turn in turns(seed, 0, 0)]
    nested = [turn for turn in drawn if turn.inner is not None]
    assert nested and all(turn.lock < 25 <= turn.inner for turn in nested if turn.inner is not None)
    assert {turn.lock for turn in drawn} == set(range(50)) or len({turn.lock for turn in drawn}) > 40
    assert all(0 <= turn.lock < 50 and 0.5 <= turn.outside < 1.5 for turn in drawn)
    assert all(decisions.SHORTEST <= turn.timeout <= decisions.LONGEST for turn in drawn)


def test_one_lock_is_enough() -> None:
    worker = decisions.Worker(1, 0, 0, processes=2, locks=1)
    assert {(turn.lock, turn.inner) for turn in (worker.turn() for _ in range(200))} == {(0, None)}


def killed(seed: int, number: int = 500) -> list[decisions.Decision]:
    killer = decisions.Killer(seed, processes=8, seconds=10, kills=100)
    return [killer.decision() for _ in range(number)]


def test_a_seed_gives_the_killer_the_same_decisions() -> None:
    first = killed(7)
    assert first == killed(7) and first != killed(8)
    assert {decision.what for decision in first} == {"kill", "stop", "interrupt"}
    assert {len(decision.seats) for decision in first} == {1, 2, 3}
    assert {seat for decision in first for seat in decision.seats} == set(range(8))
    assert any(decision.spawn for decision in first)
    assert all((decision.stop > 0) == (decision.what == "stop") for decision in first)


def test_the_killers_pace_makes_the_kills_in_the_time() -> None:
    made = killed(3, 5000)
    seconds = sum(decision.pause for decision in made)
    kills = sum(len(decision.seats) for decision in made if decision.what == "kill")
    assert 10 / 100 * 0.7 < seconds / kills < 10 / 100


# ---------------------------------------------------------------- marks


class Scene:
    """Two lives and a lock, step by step."""

    def __init__(self) -> None:
        self.area = ChaosArea(2, 1, 4, seed=0)
        self.ticket = 0
        for life in range(4):
            self.area.life(life).seat = life % 2
        for life in (1, 2, 3):
            lib.plk_chaos_wait(self.area.control, life, 0, 0)

    def enter(self, life: int, *, told: bool = False) -> None:
        """The life takes the lock and is in its critical section."""
        lib.plk_chaos_wait(self.area.control, life, 0, 0)
        lib.plk_chaos_enter(self.area.control, life, 0, self.ticket, told)
        self.ticket += 1

    def leave(self, life: int) -> None:
        lib.plk_chaos_work(self.area.control, life, 0)
        lib.plk_chaos_leave(self.area.control, life, 0)
        lib.plk_chaos_out(self.area.control, life, 0)

    def mend(self, life: int) -> None:
        lib.plk_chaos_mend(self.area.control, life, 0, 0)
        lib.plk_chaos_mend(self.area.control, life, 0, 1)

    def condemn(self, life: int) -> None:
        self.area.life(life).condemned = 1

    @property
    def found(self) -> dict[str, int]:
        every: dict[str, int] = {}
        for seat in range(2):
            for kind, times in self.area.sample(seat).violations.items():
                every[kind] = every.get(kind, 0) + times
        return every


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.area.close()


def test_turns_without_a_death_are_clean(scene: Scene) -> None:
    for life in (1, 2, 1):
        scene.enter(life)
        scene.leave(life)
    assert scene.found == {}
    assert scene.area.marks(0).entered == scene.area.lock(0).counter == 3
    assert scene.area.told() == []


def test_what_a_dead_holder_left_is_repaired_by_whoever_is_told(scene: Scene) -> None:
    scene.enter(1)
    scene.area.lock(0).words[3] = 99  # in the midst of its writes
    scene.condemn(1)
    scene.enter(2, told=True)
    scene.mend(2)
    scene.leave(2)
    scene.enter(3)
    scene.leave(3)
    assert scene.found == {}
    (report,) = scene.area.told()
    assert (report.life, report.left, report.sticky) == (2, 1, False)
    assert judge.false_alarms([report], []) == []


def test_a_dead_holder_of_whom_nobody_is_told_is_a_silent_death(scene: Scene) -> None:
    scene.enter(1)
    scene.condemn(1)
    scene.enter(2)
    assert scene.found == {"silent_death": 1}


@pytest.mark.parametrize("told", [False, True])
def test_a_living_holder_is_not_overtaken(scene: Scene, told: bool) -> None:
    scene.enter(1)
    scene.enter(2, told=told)
    assert scene.found == {"occupied": 1}


def test_who_was_condemned_and_overtaken_and_lives_on_misses_its_mark(scene: Scene) -> None:
    scene.enter(1)
    scene.condemn(1)
    scene.enter(2, told=True)
    scene.leave(1)
    assert "occupied" in scene.found


def test_a_death_that_is_told_of_stays_told_until_it_is_mended(scene: Scene) -> None:
    scene.enter(1)
    scene.condemn(1)
    scene.enter(2, told=True)
    scene.leave(2)  # by Ctrl-C, before it came to mark_consistent
    scene.enter(3, told=True)
    assert scene.found == {} and scene.area.told()[1].sticky
    scene.leave(3)
    scene.enter(2)
    assert scene.found == {"forgotten_death": 1}


def test_whoever_dies_while_it_mends_may_have_mended(scene: Scene) -> None:
    scene.enter(1)
    scene.condemn(1)
    scene.enter(2, told=True)
    lib.plk_chaos_mend(scene.area.control, 2, 0, 0)
    scene.leave(2)
    scene.enter(3)
    assert scene.found == {}


@pytest.mark.parametrize(
    ("word", "kind"), [("counter", "lost_increment"), ("words", "torn_write"), ("last", "ticket_order")]
)
def test_nothing_may_be_half_done_without_a_death(scene: Scene, word: str, kind: str) -> None:
    scene.enter(1)
    scene.leave(1)
    lock = scene.area.lock(0)
    if word == "counter":
        lock.counter -= 1
    elif word == "words":
        lock.words[5] += 1
    else:
        lock.last_ticket += 7
    scene.enter(2)
    assert scene.found == {kind: 1}


def test_skipped_tickets_and_excuses_are_counted(scene: Scene) -> None:
    scene.enter(1)
    scene.leave(1)
    scene.ticket += 3
    lib.plk_chaos_out(scene.area.control, 2, 0)  # it waited, and gave up
    scene.enter(3)
    marks = scene.area.marks(0)
    assert (marks.skipped, marks.excuses) == (3, 1)


def test_claims_tell_where_a_life_is(scene: Scene) -> None:
    scene.enter(1)
    assert [(c.phase, c.marked) for c in scene.area.claims(1)] == [("inside", True)]
    assert [(c.phase, c.marked) for c in scene.area.claims(2)] == [("waiting", False)]
    scene.leave(1)
    assert scene.area.claims(1) == ()


def test_the_first_grant_after_a_death_is_that_of_one_who_waited(scene: Scene) -> None:
    before = lib.plk_probe_now()
    lib.plk_chaos_wait(scene.area.control, 2, 0, 0)
    between = lib.plk_probe_now()
    assert scene.area.first_grant(0, between) is None
    lib.plk_chaos_enter(scene.area.control, 2, 0, 0, 0)
    granted = scene.area.first_grant(0, between)
    assert granted is not None and granted.at >= between and (granted.life, granted.freed) == (2, 0)
    scene.leave(2)
    scene.ticket = 1
    scene.enter(3)
    assert scene.area.first_grant(0, between) == granted, "the next one came later"
    assert scene.area.first_grant(0, before) is None, "nobody waited yet"


# ---------------------------------------------------------------- made-up histories


def death(at: int, lock: int, phase: str, *, marked: bool = False, gone: int | None = None) -> Death:
    claims = (Claim(lock, phase, 0, marked),)
    return Death(at, 0, at, at + 1 if gone is None else gone, claims, 1, False)


def report(at: int, lock: int, *, left: int | None = None, previous: int = 0, sticky: bool = False) -> Report:
    return Report(99, lock, 5, at, left, previous, sticky)


@pytest.mark.parametrize(
    ("reports", "deaths", "alarms"),
    [
        ([report(10, 1)], [], 1),
        ([report(10, 1, left=3)], [], 0),
        ([report(10, 1, sticky=True)], [], 0),
        ([report(10, 1)], [death(5, 1, "waiting")], 0),
        ([report(10, 1)], [death(5, 1, "releasing")], 0),
        ([report(10, 1)], [death(5, 2, "waiting")], 1),  # of another lock
        ([report(10, 1)], [death(11, 1, "waiting")], 1),  # after it was told
        ([report(10, 1, previous=8)], [death(5, 1, "waiting", gone=7)], 1),  # somebody had it since
        ([report(10, 1, previous=6)], [death(5, 1, "waiting", gone=7)], 0),
        ([report(10, 1)], [death(5, 1, "inside")], 1),  # its mark would have been found
        ([report(10, 1), report(12, 1)], [death(5, 1, "waiting", gone=20)], 1),  # one each
        ([report(10, 1), report(12, 1)], [death(5, 1, "waiting", gone=20), death(6, 1, "releasing")], 0),
    ],
)
def test_false_alarms(reports: list[Report], deaths: list[Death], alarms: int) -> None:
    assert len(judge.false_alarms(reports, deaths)) == alarms


def test_skipped_tickets_need_somebody_who_gave_up_or_died() -> None:
    assert judge.skipped({1: 2, 2: 0}, {1: 1}, [death(5, 1, "waiting")]) == {}
    assert judge.skipped({1: 2, 2: 1}, {1: 1}, []) == {1: 1, 2: 1}


def test_stalls_are_counted_without_the_stops_of_those_who_mattered() -> None:
    stops = [
        Stop(0, 10, 20, frozenset({7}), False),
        Stop(1, 15, 30, frozenset({7}), False),  # at the same time as the one before
        Stop(2, 40, 45, frozenset(), True),  # with the domain's mutex
        Stop(3, 50, 60, frozenset({8}), False),  # of the upper half: a holder below may wait for it
        Stop(4, 70, 80, frozenset({2}), False),
        Stop(5, 95, 200, frozenset({7, 1}), False),
    ]

    def stall(lock: int, begin: int, end: int) -> tuple[int, int]:
        (time,) = judge.stall_times([Stall(lock, 0, "inside", begin, begin, end)], stops, locks=10)
        return time.net, time.whole

    assert stall(7, 0, 100) == (100 - 20 - 5 - 5, 100)
    assert stall(7, 12, 25) == (0, 13)
    assert stall(1, 46, 100) == (54 - 10 - 5, 54)
    assert stall(9, 0, 100) == (95, 100)
    assert stall(2, 61, 90) == (19, 29)
    assert stall(7, 300, 310) == (10, 10)


def test_a_living_holders_time_is_no_stall(scene: Scene) -> None:
    stops = [Stop(0, 10, 20, frozenset({1}), False), Stop(0, 50, 60, frozenset({1}), False)]
    (time,) = judge.stall_times([Stall(1, 0, "waiting", 0, 40, 100)], stops, 10)
    assert (time.whole, time.net) == (100, 50)
    scene.enter(1)
    lib.plk_chaos_wait(scene.area.control, 2, 0, 0)
    killed = lib.plk_probe_now()
    scene.leave(1)
    lib.plk_chaos_enter(scene.area.control, 2, 0, scene.ticket, 0)
    granted = scene.area.first_grant(0, killed)
    assert granted is not None and killed <= granted.freed <= granted.at


def test_time_without_a_cpu_is_told_apart() -> None:
    times = judge.stall_times([Stall(1, 0, "inside", 0, 0, 100, starved) for starved in (0, 30, 200)], [], 10)
    assert [(time.net, time.fed) for time in times] == [(100, 100), (100, 70), (100, 0)]


class Seats:
    """A crew of this process alone."""

    def __init__(self) -> None:
        self.sitter = Sitter(seat=0, generation=0, life=1, pid=os.getpid())
        self.there = True

    def sitting(self) -> list[Sitter]:
        return [self.sitter]

    def sits(self, sitter: Sitter) -> bool:
        return self.there and sitter is self.sitter


def test_starvation_is_that_of_the_next_holder_and_the_one_before(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = 10
    monkeypatch.setattr(sight, "starved", lambda pid: waited)
    scene.enter(1)
    seats = Seats()
    starvation = sight.Starvation(seats, scene.area)  # type: ignore[arg-type]
    waited = 17
    assert starvation.of(0, 1) == 7
    assert starvation.of(0, 2) == 7, "of the holder, though another one got the lock"
    assert starvation.of(1, 2) == 0
    seats.there = False
    assert starvation.of(0, 1) == 0, "its pid may be another's"


def test_what_proc_tells_of_processes() -> None:
    assert sight.state(os.getpid()) == "R" and (sight.starved(os.getpid()) or 0) >= 0
    assert sight.state(2**22 + 1) is None and sight.starved(2**22 + 1) is None
    seen = {"vcpus": [{"pid": os.getpid(), "starved_ns": 0}, {"pid": 2**22 + 1, "starved_ns": 5}]}
    sight.later(seen)
    mine, gone = seen["vcpus"]
    assert (mine["starved_since_ns"] or 0) >= 0 and gone["starved_since_ns"] is None


def test_quantiles() -> None:
    assert judge.quantiles(range(1, 101)) == {"p50": 51, "p99": 100, "max": 100}
    assert judge.quantiles([]) == {"p50": None, "p99": None, "max": None}


def test_a_lock_is_stuck_only_while_somebody_waits_and_nobody_is_stopped() -> None:
    stuck = judge.Stuck(10)
    assert stuck.look([1], {1: 5}, 8) == []  # seen for the first time
    assert stuck.look([1], {1: 5}, 8) == []
    assert stuck.look([], {}, 100) == []  # nobody waits
    assert stuck.look([1], {1: 6}, 8) == []  # granted meanwhile
    assert stuck.look([1], {1: 6}, 0) == []  # somebody is stopped
    assert stuck.look([1, 1], {1: 6}, 8) == []
    assert stuck.look([1], {1: 6}, 8) == [1]
    assert stuck.look([1], {1: 6}, 8) == [], "told once"
    assert stuck.found == {1: 16}


def test_deaths_are_counted_by_where_they_happened() -> None:
    nested = Death(1, 1, 5, 6, (Claim(0, "inside", 0, True), Claim(9, "waiting", 1, False)), 3, True)
    idle = Death(2, 0, 5, 6, (), 3, False)
    fresh = Death(3, 0, 5, 6, (), 0, False)
    marked = death(4, 1, "waiting", marked=True)  # killed between the mark and the phase
    counted = judge.counts([nested, idle, fresh, marked, death(5, 1, "releasing")], 2)
    assert counted == {
        "kills": 5,
        "kills_inside": 2,
        "kills_waiting": 1,
        "kills_inside_and_waiting": 1,
        "kills_releasing": 1,
        "kills_outside": 1,
        "kills_starting": 1,
        "kills_stopped": 1,
        "kills_per_seat": [4, 1],
    }


def test_every_violation_has_a_meaning() -> None:
    assert CHAOS_KINDS and set(CHAOS_KINDS) < set(KINDS)
    assert all(len(text) > 10 for text in judge.MEANING.values())
    assert not set(judge.MEANING) & set(KINDS)
