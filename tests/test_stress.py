"""The stress program: its rows, its verdicts, its manners, and that its detectors detect."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import psutil
import pytest

from pylocks._core import lib
from pylocks.ops import slow_paths
from pylocks.stress import results, summary, units
from pylocks.stress.crew import Crew
from pylocks.stress.row import Plan
from pylocks.stress.shared import CHAOS_KINDS, KINDS, Area, bucket, bucket_floor, now
from pylocks.stress.subjects import environment, subjects

COMMAND = [sys.executable, "-m", "pylocks"]
SHORT = ("--seconds", "0.2")


def stress(*options: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `pylocks stress` to its end."""
    return subprocess.run(
        [*COMMAND, "stress", *options],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **(environment or {})},
        check=False,
    )


def measured(path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit status and results of a run."""
    done = stress(*options, "--json", str(path))
    assert path.exists(), done.stderr
    return done.returncode, json.loads(path.read_text())


# ---------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A quick run with all results, shared by the tests that look at them."""
    out = tmp_path_factory.mktemp("quick")
    done = stress(
        *("--quick", "--overcommit", "1,4", "--seed", "11", "--locks", "2"),
        *("--json", str(out / "o.json"), "--html", str(out / "o.html"), "--png", str(out / "o.png")),
    )
    return {
        "done": done,
        "result": json.loads((out / "o.json").read_text()),
        "html": (out / "o.html").read_text(encoding="utf-8"),
        "png": (out / "o.png").read_bytes(),
    }


def test_quick_run_passes_and_says_so(quick: dict[str, Any]) -> None:
    done, result = quick["done"], quick["result"]
    assert done.returncode == 0, done.stderr
    assert result["verdict"] == "pass" and result["violations"] == 0
    assert result["violations_by_kind"] == {} and not result["interrupted"]
    assert "PASS: no violation" in done.stdout and "seed 11" in done.stdout
    assert "times the acquisitions of native" in " ".join(done.stdout.split())


def test_all_slow_paths_and_the_peer_run_at_every_overcommit(quick: dict[str, Any]) -> None:
    cpus = len(os.sched_getaffinity(0))
    names = [*slow_paths(), "mp"]
    found = [(row["slow_path"], row["overcommit"], row["processes"]) for row in quick["result"]["rows"]]
    assert found == [(name, factor, factor * cpus) for factor in (1, 4) for name in names]


def test_results_are_complete(quick: dict[str, Any]) -> None:
    result = quick["result"]
    assert result["schema"] == results.SCHEMA and result["seed"] == 11
    assert result["options"]["locks"] == 2 and "--seed 11" in result["options"]["command"]
    assert {"cpus", "affinity", "kernel", "python", "cpu_model", "hypervisor", "load_average"} <= set(
        result["host"]
    )
    for row in result["rows"]:
        samples = row["per_process"]
        assert len(samples) == row["processes"]
        assert sum(sample["acquisitions"] for sample in samples) == row["acquisitions"] > 0
        assert row["acquisitions_per_s"] == pytest.approx(row["acquisitions"] / row["seconds"])
        assert 1 / row["processes"] <= row["jain"] <= 1
        waits = row["wait_ns"]
        assert 0 <= waits["p50"] <= waits["p99"] <= waits["p999"] <= waits["max"]
        assert waits["max"] == max(sample["wait_max_ns"] for sample in samples)
        counted = sum(count for _, _, count in row["wait_histogram"])
        assert counted == row["acquisitions"] + row["unfinished_waits"]
        assert row["cpu_seconds"] == pytest.approx(sum(sample["cpu_seconds"] for sample in samples))
        assert set(row["context_switches"]) == {"voluntary", "involuntary"}
        assert row["violations"] == 0 and isinstance(row["warnings"], list)


def test_parks_and_kicks_are_counted_where_there_are_any(quick: dict[str, Any]) -> None:
    by_name = {row["slow_path"]: row for row in quick["result"]["rows"] if row["overcommit"] == 4}
    assert by_name["mp"]["parks"] is None and by_name["mp"]["kicks"] is None
    assert by_name["native"]["parks"] == by_name["native"]["kicks"] == 0
    assert by_name["futex"]["parks"] > 0 and by_name["futex"]["kicks"] > 0


def test_a_seed_gives_the_same_choices_of_locks() -> None:
    def choices(seed: int, worker: int, loops: int) -> list[int]:
        area = Area(4, 10, seed=seed, outside_loops=loops)
        return [lib.plk_probe_outside(area.control, area.worker(worker)) for _ in range(300)]

    first = choices(7, 0, 0)
    assert first == choices(7, 0, 0)
    assert first == choices(7, 0, 50), "the amount of work must not change the sequence"
    assert first != choices(8, 0, 0) and first != choices(7, 1, 0)
    assert set(first) == set(range(10))


def test_acquisitions_are_counted_exactly(tmp_path: Path) -> None:
    status, result = measured(
        tmp_path / "o.json", "--acquisitions", "3001", "--processes", "5", "--slow-path", "yield,mp"
    )
    assert status == 0
    assert [(row["acquisitions"], row["ended"]) for row in result["rows"]] == [(3001, "count")] * 2


def test_a_broken_lock_is_caught(tmp_path: Path) -> None:
    status, result = measured(tmp_path / "o.json", "--slow-path", "busted", "--quick", "--processes", "8")
    assert status == 1
    assert result["verdict"] == "fail" and result["violations"] > 0
    assert result["violations"] == sum(result["violations_by_kind"].values())
    finding = result["rows"][0]["findings"][0]
    assert finding["kind"] in result["violations_by_kind"] and finding["text"]


def test_broken_locks_run_only_when_asked_for() -> None:
    known = subjects()
    assert not known["busted"].sound
    assert all(known[name].sound for name in [*slow_paths(), "mp"])


def test_a_collapsed_native_row_ends_on_time(tmp_path: Path) -> None:
    processes = 16 * len(os.sched_getaffinity(0))
    status, result = measured(
        tmp_path / "o.json", "--slow-path", "native", "--overcommit", "16", "--seconds", "0.4", "--cs", "20us"
    )
    (row,) = result["rows"]
    assert status == 0 and row["processes"] == processes
    # 0.1 s of grace; the rest is for a machine that is busy otherwise.
    assert 0.4 <= row["seconds"] < 0.4 + 0.1 + 1.5
    killed = [sample for sample in row["per_process"] if sample["killed_while"]]
    assert len(killed) == row["killed"]
    stuck = [sample for sample in killed if sample["killed_while"] == "waiting"]
    assert len(stuck) == row["unfinished_waits"]


def test_other_ops_that_the_user_chose_are_kept() -> None:
    base = {"PYLOCKS_OPS": "cpu_relax=yield, lock_spinning=futex", "PYLOCKS_PATCH": "off", "HOME": "/"}
    found = environment(subjects()["native"], base)
    assert found["PYLOCKS_OPS"] == "cpu_relax=yield,lock_spinning=native,lock_event=counters"
    assert found["PYLOCKS_PROTOCOL"] == "native" and found["PYLOCKS_PATCH"] == "off"
    assert environment(subjects()["mp"], base) == base


def test_a_row_that_can_not_run_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    done = stress(
        *("--slow-path", "futex", "--processes", "2", *SHORT, "--json", str(tmp_path / "o.json")),
        environment={"PYLOCKS_PATCH": "perhaps"},
    )
    assert done.returncode == 1
    result = json.loads((tmp_path / "o.json").read_text())
    assert result["violations_by_kind"] == {"row_failed": 1}
    assert "PYLOCKS_PATCH" in result["rows"][0]["findings"][0]["text"]
    assert "PYLOCKS_PATCH" in done.stdout


STUCK = """
import sys
from pylocks.stress import runner
runner.SILENCE = 1.0
runner.ROW = '''
import sys, time
sys.path[:] = sys.argv[1:]
from pylocks.stress import {module} as row
row.tell = lambda message: time.sleep(100)
sys.exit(row.main())
'''
from pylocks.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_row_that_gets_stuck_says_where(tmp_path: Path) -> None:
    path = tmp_path / "o.json"
    options = ["stress", "--slow-path", "futex", "--processes", "2", "--json", str(path)]
    done = subprocess.run(
        [sys.executable, "-c", STUCK, *options], capture_output=True, timeout=100, check=False
    )
    assert done.returncode == 1
    (finding,) = json.loads(path.read_text())["rows"][0]["findings"]
    assert "in _fight" in finding["text"] and finding["text"].endswith("got stuck and was killed")


def test_json_on_standard_output_is_alone_there() -> None:
    done = stress("--json", "-", "--slow-path", "mp", "--processes", "2", *SHORT, "--no-progress")
    assert json.loads(done.stdout)["verdict"] == "pass"
    assert "PASS" in done.stderr


def test_progress_names_each_row_unless_unwanted() -> None:
    options = ("--slow-path", "yield,mp", "--processes", "2", *SHORT)
    told = stress(*options).stderr.splitlines()
    assert [line.split()[:2] for line in told] == [["[1/2]", "yield"], ["[2/2]", "multiprocessing.Lock"]]
    assert stress(*options, "--no-progress").stderr == ""


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--processes", "0"), "0 is not between 1 and"),
        (("--processes", "two"), "'two' is not a whole number"),
        (("--processes", "2", "--overcommit", "2"), "not allowed with"),
        (("--overcommit", "0"), "'0' is not a factor"),
        (("--overcommit", "1,,2"), "missing between commas"),
        (("--overcommit", "4096"), "processes"),
        (("--locks", "0"), "0 is not between 1 and"),
        (("--slow-path", "quick"), "there is no slow path 'quick'; choose from native"),
        (("--policy", "lifo"), "invalid choice"),
        (("--cs", "2 parsecs"), "'2 parsecs' is not a duration"),
        (("--outside", "-1"), "'-1' is not a duration"),
        (("--cs", "11s"), "more than 10 s"),
        (("--seconds", "0"), "'0' is not a number of seconds"),
        (("--seconds", "nan"), "'nan' is not a number of seconds"),
        (("--acquisitions", "-5"), "-5 is not between 1 and"),
        (("--seed", "18446744073709551616"), "is not between 0 and"),
        (("--quick", "--seconds", "1"), "--quick sets the length"),
        (("--quick", "--acquisitions", "1"), "--quick sets the length"),
        (("--html", "/"), "is a directory"),
        (("--json", "/no/such/place/o.json"), "there is no directory"),
        (("--frobnicate",), "unrecognized arguments"),
    ],
)
def test_bad_options_are_refused(
    options: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from pylocks.cli import main

    with pytest.raises(SystemExit) as stopped:
        main(["stress", *options])
    assert stopped.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "ns"),
    [("2000", 2000), ("0", 0), ("2us", 2000), ("1.5ms", 1_500_000), ("3 µs", 3000), ("1s", 10**9)],
)
def test_durations_are_read(text: str, ns: int) -> None:
    assert units.parse_ns(text) == ns


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (830, "830 ns"),
        (999.9, "1.00 µs"),
        (1240, "1.24 µs"),
        (56_780_000, "56.8 ms"),
        (None, "–"),
    ],
)
def test_durations_are_written(ns: float | None, text: str) -> None:
    assert units.duration(ns) == text


@pytest.mark.parametrize(
    ("number", "text"), [(31, "31"), (8412, "8.41 k"), (999_950, "1.00 M"), (1.5e9, "1.50 G")]
)
def test_counts_are_written(number: float, text: str) -> None:
    assert units.count(number) == text


# ---------------------------------------------------------------- manners


@contextlib.contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """The command and its descendants, in the middle of a row."""
    process = subprocess.Popen(
        [*COMMAND, "stress", *options, "--no-progress"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        family: list[psutil.Process] = []
        deadline = time.monotonic() + 30
        while len(family) < 1 + 6 and time.monotonic() < deadline:
            time.sleep(0.05)
            family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) == 1 + 6, "a row process and its workers"
        time.sleep(0.3)
        yield process, family
    finally:
        process.kill()
        process.communicate()


def gone(family: list[psutil.Process], seconds: float = 10) -> bool:
    """Whether all have ended by then; who is not reaped yet counts as ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(_alive(member) for member in family):
            return True
        time.sleep(0.02)
    return False


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("slow_path", ["native", "futex"])
def test_ctrl_c_shows_what_there_is_and_leaves_nobody(slow_path: str) -> None:
    with running("--slow-path", slow_path, "--processes", "6", "--seconds", "60") as (process, family):
        process.send_signal(signal.SIGINT)
        shown, _ = process.communicate(timeout=30)
        assert process.returncode == 130
        assert not any(map(_alive, family))
    assert "cut short" in shown and "INCOMPLETE" in shown and "Traceback" not in shown


@pytest.mark.parametrize("victim", ["command", "row"])
def test_workers_die_with_whoever_is_killed(victim: str) -> None:
    with running("--slow-path", "yield", "--processes", "6", "--seconds", "60") as (process, family):
        row = next(member for member in family if member.ppid() == process.pid)
        (psutil.Process(process.pid) if victim == "command" else row).kill()
        assert gone(family)
        shown, _ = process.communicate(timeout=30)
    if victim == "row":
        assert process.returncode == 1 and "row_failed" in shown


BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("rich", "matplotlib"):
            raise ImportError(f"{name} is blocked by a test")
sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment in which rich and matplotlib can't be imported."""
    (tmp_path / "sitecustomize.py").write_text(BLOCKER)
    path = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{tmp_path}{os.pathsep}{path}" if path else str(tmp_path)}


def test_without_rich_the_table_is_plain(bare: dict[str, str]) -> None:
    done = stress("--slow-path", "futex", "--processes", "2", *SHORT, environment=bare)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ *\S+x +2 +futex +\d", done.stdout, re.MULTILINE)
    assert "PASS" in done.stdout and "\x1b" not in done.stdout


@pytest.mark.parametrize("option", ["--html", "--png"])
def test_without_matplotlib_pictures_are_refused_at_once(
    bare: dict[str, str], tmp_path: Path, option: str
) -> None:
    done = stress(option, str(tmp_path / "o"), environment=bare)
    assert done.returncode == 2
    assert 'pip install "pylocks[cli]"' in done.stderr
    assert not (tmp_path / "o").exists()


# ---------------------------------------------------------------- report and pictures


class Page(HTMLParser):
    """What a page refers to, and whether its elements are closed."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.references += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")
        ]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_needs_nothing_but_itself(quick: dict[str, Any]) -> None:
    page = Page()
    page.feed(quick["html"])
    assert page.open == []
    assert not {"script", "link", "iframe", "img", "object"} & set(page.tags)
    assert all(reference.startswith("#") for reference in page.references)
    assert "http:" not in quick["html"] and "https:" not in quick["html"] and "@import" not in quick["html"]
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", quick["html"]))


def test_the_report_shows_everything(quick: dict[str, Any]) -> None:
    html, result = quick["html"], quick["result"]
    page = Page()
    page.feed(html)
    assert page.tags.count("svg") == 3
    assert html.count('<td class="name">') == len(result["rows"])
    assert "PASS" in html and "--seed 11" in html and result["host"]["kernel"] in html
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html
    # Colours that a dark page must change are properties of the page, not of the pictures.
    drawings = html[html.index("<svg") : html.rindex("</svg>")]
    assert "var(--ink)" in drawings and "var(--futex)" in drawings and "#1c1d21" not in drawings


def test_the_pictures_are_a_png(quick: dict[str, Any]) -> None:
    assert quick["png"].startswith(b"\x89PNG\r\n\x1a\n") and len(quick["png"]) > 20_000


def test_labels_stand_apart_and_near_their_lines() -> None:
    from pylocks.stress.charts import spread

    assert spread([0.2, 0.8], least=0.1, low=0, high=1) == [0.2, 0.8]
    moved = spread([0.5, 0.5, 0.51, 0.99], least=0.1, low=0, high=0.95)
    assert all(moved[i + 1] - moved[i] > 0.099 for i in range(3))
    assert moved[0] > 0.3 and moved[-1] <= 0.95


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
    with subprocess.Popen(
        [sys.executable, "-c", ROW.replace("{behaviour}", behaviour)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(plan.to_json() + "\n")
        process.stdin.flush()
        *_, last = process.stdout
        row: dict[str, Any] = json.loads(last)["row"]
    assert process.returncode == 0
    return row


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


# ---------------------------------------------------------------- the command


def test_ops_shows_every_site() -> None:
    shown = subprocess.run([*COMMAND, "ops"], capture_output=True, text=True, check=True, timeout=60).stdout
    listed = subprocess.run(
        [*COMMAND, "ops", "--json"], capture_output=True, text=True, check=True, timeout=60
    )
    rows = json.loads(listed.stdout)
    assert rows
    for row in rows:
        assert {"op", "module", "address", "before", "after", "choice", "reason"} <= set(row)
        assert row["choice"], "shown before any site was patched"
        assert re.search(rf"^{row['op']} +{re.escape(row['module'])} ", shown, re.MULTILINE)
        assert row["reason"] in shown


def test_ops_tells_what_is_wrong_with_a_setting() -> None:
    done = subprocess.run(
        [*COMMAND, "ops"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYLOCKS_OPS": "lock_dancing=yes"},
        check=False,
    )
    assert done.returncode == 1
    assert "lock_dancing" in done.stderr and "Traceback" not in done.stderr


def test_the_version_is_shown() -> None:
    import pylocks

    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"pylocks {pylocks.__version__}\n"
