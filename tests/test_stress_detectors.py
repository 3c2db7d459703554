"""The detectors of the stress program detect, and its figures are right."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

import pytest
from support.stress import result_of_row

from pylocks._core import lib
from pylocks.stress import results, summary
from pylocks.stress.crew import Crew
from pylocks.stress.row import Plan
from pylocks.stress.shared import CHAOS_KINDS, KINDS, Area, bucket, bucket_floor, now

# ---------------------------------------------------------------- detectors


class Open:
    """What a lock must not be: it lets everybody in."""

    ticket = 5

    def acquire(self) -> None:
        """Nothing."""

    def release(self) -> None:
        """Nothing."""


def test_every_detector_finds_a_lock_that_does_nothing() -> None:
    area = Area(4, 1, seed=1, cs_loops=20_000, outside_loops=100)
    area.control.go = 1
    crew = Crew(area, [Open()], ticketed=True)
    try:
        deadline = time.monotonic() + 20
        wanted = {"occupied", "torn_write", "ticket_order"}
        found: set[str] = set()
        while not found >= wanted and time.monotonic() < deadline:
            time.sleep(0.05)
            found = {kind for number in range(4) for kind in area.sample(number).violations}
        area.control.stop = 1
        while crew.reap():
            time.sleep(0.01)
    finally:
        crew.close()
    assert found == wanted
    assert area.counted() < sum(area.sample(number).acquisitions for number in range(4))


def one_turn(area: Area, ticket: int) -> dict[str, int]:
    me = area.worker(0)
    assert lib.plk_probe_outside(area.control, me) == 0
    lib.plk_probe_inside(area.control, me, ticket)
    return area.sample(0).violations


def test_a_turn_alone_is_clean_and_a_gap_in_tickets_is_not() -> None:
    area = Area(1, 1, seed=0)
    assert one_turn(area, 7) == {} and one_turn(area, 8) == {}
    assert one_turn(area, 10) == {"ticket_order": 1}
    finding = area.sample(0).findings[0]
    assert (finding.got, finding.expected) == (10, 9)
    assert one_turn(area, lib.PLK_PROBE_NO_TICKET) == {"ticket_order": 1}
    assert area.counted() == area.acquisitions() == 4


def test_foreign_writes_and_occupants_are_found() -> None:
    area = Area(1, 1, seed=0)
    area.lock(0).words[3] = 99
    assert one_turn(area, 0) == {"torn_write": 1}
    lib.plk_probe_hold(area.control, 0, 1)
    assert one_turn(area, 1) == {"torn_write": 1, "occupied": 1}
    lib.plk_probe_hold(area.control, 0, 0)
    assert one_turn(area, 2) == {"torn_write": 1, "occupied": 1}


def test_nothing_counts_once_the_row_is_closed() -> None:
    area = Area(1, 1, seed=0)
    assert one_turn(area, 0) == {}
    area.control.closed = 1
    assert one_turn(area, 5) == {} and area.acquisitions() == 1


ROW = """
import multiprocessing, os, signal, sys
from pylocks.stress import row
from pylocks.stress.subjects import Opened

class Lock:
    lock = multiprocessing.get_context("fork").Lock()
    turns = 0
    def acquire(self):
        self.turns += 1
        if os.getpid() != parent and self.turns == 20:
            {behaviour}
        self.lock.acquire()
    def release(self):
        self.lock.release()

parent = os.getpid()
row.STALL = 0.3
row.open_locks = lambda *_: Opened([Lock()], None)
sys.exit(row.main())
"""


def row_with(behaviour: str, seconds: float = 0.3) -> dict[str, Any]:
    """The result of a row whose single worker's lock behaves so at its twentieth turn."""
    plan = Plan(
        parent=os.getpid(),
        slow_path="mp",
        policy="fifo",
        overcommit=1.0,
        processes=1,
        locks=1,
        seconds=seconds,
        acquisitions=None,
        cs_ns=0,
        outside_ns=0,
        cs_loops=0,
        outside_loops=0,
        seed=0,
    )
    return result_of_row(ROW.replace("{behaviour}", behaviour), plan)


def test_a_waiter_that_does_not_come_out_is_a_violation() -> None:
    row = row_with("signal.pause()")
    assert row["violations_by_kind"] == {"lost_waiter": 1}
    (finding,) = row["findings"]
    assert finding["phase"] == "waiting" and finding["waited_ns"] > 0.5e9
    assert row["killed"] == 1 and row["acquisitions"] == 19
    assert row["unfinished_waits"] == 1 and row["wait_ns"]["max"] >= finding["waited_ns"]


def test_a_worker_that_dies_is_a_violation() -> None:
    row = row_with("os.kill(os.getpid(), signal.SIGSEGV)")
    assert row["violations_by_kind"] == {"worker_died": 1}
    assert f"signal {int(signal.SIGSEGV)}" in row["findings"][0]["text"]
    assert row["acquisitions"] == 19


def test_an_exception_from_acquire_is_a_violation_with_its_text() -> None:
    row = row_with("raise RuntimeError('no vacancy')")
    assert row["violations_by_kind"] == {"acquire_error": 1}
    assert row["findings"][0]["text"] == "RuntimeError: no vacancy"


# ---------------------------------------------------------------- figures


def test_buckets_are_true_to_five_percent_everywhere() -> None:
    draw = random.Random(3)
    for _ in range(5000):
        ns = int(2 ** draw.uniform(0, 39.9))
        low, high = bucket_floor(bucket(ns)), bucket_floor(bucket(ns) + 1)
        assert low <= ns < high
        assert abs((low + high) / 2 - ns) <= max(0.5, 0.05 * ns)
    assert bucket(2**63) == lib.PLK_PROBE_BUCKETS - 1


def test_percentiles_are_those_of_the_waits() -> None:
    draw = random.Random(4)
    waits = sorted(int(draw.lognormvariate(9, 2)) for _ in range(20_000))
    counts = [0] * lib.PLK_PROBE_BUCKETS
    for ns in waits:
        counts[bucket(ns)] += 1
    found = results.percentiles(counts, {"p50": 0.5, "p99": 0.99, "p999": 0.999, "all": 1.0}, waits[-1])
    for name, rank in (("p50", 10_000), ("p99", 19_800), ("p999", 19_980)):
        assert found[name] == pytest.approx(waits[rank - 1], rel=0.05)
    assert found["all"] == pytest.approx(waits[-1], rel=0.05) and found["all"] <= waits[-1]
    assert results.percentiles([0] * 4, {"p50": 0.5}, 0) == {"p50": None}


def test_jain() -> None:
    assert results.jain([5, 5, 5]) == 1
    assert results.jain([9, 0, 0]) == pytest.approx(1 / 3)
    assert results.jain([0, 0]) is None


def row_of(name: str, protocol: str | None, rate: float, longest: int, factor: float = 8.0) -> dict[str, Any]:
    return {
        "slow_path": name,
        "label": name,
        "protocol": protocol,
        "overcommit": factor,
        "processes": 16,
        "acquisitions": int(rate),
        "acquisitions_per_s": rate,
        "seconds": 1.0,
        "wait_ns": {"max": longest},
        "ended": "deadline",
        "violations": 0,
        "violations_by_kind": {},
        "findings": [],
    }


def test_the_closing_sentence_is_computed_from_the_rows() -> None:
    rows = [
        row_of("native", "native", 9e9, 1, factor=1.0),
        row_of("native", "native", 100, 250_000_000),
        row_of("yield", "enlightened", 120_000, 3_000_000),
        row_of("futex", "enlightened", 4_500, 2_000_000),
        row_of("mp", None, 240_000, 8_000_000),
    ]
    result = {"rows": rows, "host": {"affinity": [0, 1]}}
    assert summary.sentences(result) == [
        "At 8x overcommit (16 processes on 2 CPUs) yield made 1,200 and futex 45 times the acquisitions of "
        "native; the longest wait was 250 ms with native, 3 ms with yield and 2 ms with futex.",
        "mp, which lets latecomers pass, made 2.0 times those of yield and 53 times those of futex; "
        "its longest wait was 8 ms.",
    ]
    rows[1] |= {"acquisitions_per_s": 0.0, "acquisitions": 0}
    assert "yield made 120,000 and" in summary.sentences(result)[0], "none counts as one"
    assert summary.sentences({**result, "rows": []}) == []


def test_the_verdict() -> None:
    good, bad = row_of("futex", "enlightened", 1, 1), row_of("busted", "enlightened", 1, 1)
    bad["violations_by_kind"] = {"occupied": 2}
    assert results.verdict([good], 1) == "pass"
    assert results.verdict([good], 2) == "incomplete"
    assert results.verdict([{**good, "ended": "interrupted"}], 1) == "incomplete"
    assert results.verdict([good, bad], 3) == "fail"
    assert results.tally([bad, bad, good]) == {"occupied": 4}


def test_what_disturbed_a_run_is_said_once() -> None:
    quiet = {**row_of("futex", "enlightened", 1, 1), "others_cpus": 0.1, "stolen_share": None, "warnings": []}
    noisy = {**quiet, "others_cpus": 1.2, "stolen_share": 0.5, "warnings": ["only 3 acquisitions"]}
    assert results.warnings([quiet], 2) == []
    assert results.warnings([quiet, noisy, {**noisy, "warnings": []}], 2) == [
        "futex at 8x: only 3 acquisitions",
        "other programs used up to 1.20 CPUs during 2 of 3 rows",
        "the hypervisor took up to 50% of the CPU time of 2 of 3 rows",
    ]


def test_every_violation_is_explained_in_the_report() -> None:
    from pylocks.stress.html import CHECKS

    explained = ", ".join(kind for kind, _ in CHECKS).split(", ")
    found_later = [results.LOST_UPDATE, results.LOST_WAITER, results.WORKER_DIED, results.ROW_FAILED]
    ordinary = [kind for kind in KINDS if kind not in CHAOS_KINDS]  # the report is not for chaos
    assert sorted(explained) == sorted([*ordinary, *found_later])


def test_work_is_counted_in_turns_so_that_it_lasts() -> None:
    # Preemption only ever makes it longer.
    short, long = lib.plk_probe_time_work(1000), lib.plk_probe_time_work(1_000_000)
    assert long > 20 * min(short, lib.plk_probe_time_work(1000), lib.plk_probe_time_work(1000))
    assert now() > 0
