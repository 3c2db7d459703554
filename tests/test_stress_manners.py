"""The manners of the stress program: what it refuses, and what becomes of it when it is disturbed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.stress import COMMAND, SHORT, stress

from pylocks.stress import units

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
        (("--policy", "bounded", "--slow-path", "futex,native"), "--slow-path native"),
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
