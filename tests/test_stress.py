"""The stress program: its rows, its verdicts, and its report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.page import self_contained
from support.stress import SHORT, measured, stress

from pylocks._core import lib
from pylocks.ops import slow_paths
from pylocks.stress import results
from pylocks.stress.shared import Area
from pylocks.stress.subjects import environment, subjects

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


def test_bounded_locks_run_where_there_are_any(tmp_path: Path) -> None:
    """Their gates serve every ticket in order, too; nobody is woken natively, so that is left out."""
    status, result = measured(
        tmp_path / "o.json", *SHORT, "--policy", "bounded", "--overcommit", "4", "--locks", "3"
    )
    assert status == 0 and result["violations_by_kind"] == {}
    assert "--policy bounded" in result["options"]["command"]
    assert [(row["slow_path"], row["policy"]) for row in result["rows"]] == [
        *((name, "bounded") for name in slow_paths() if name != "native"), ("mp", None)
    ]  # fmt: skip
    for row in result["rows"]:
        assert row["acquisitions"] > 0 and row["wait_ns"]["max"] > 0
    assert result["rows"][-2]["parks"] > 0


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


# ---------------------------------------------------------------- report and pictures


def test_the_report_needs_nothing_but_itself(quick: dict[str, Any]) -> None:
    self_contained(quick["html"])


def test_the_report_shows_everything(quick: dict[str, Any]) -> None:
    html, result = quick["html"], quick["result"]
    assert self_contained(html).tags.count("svg") == 3
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
