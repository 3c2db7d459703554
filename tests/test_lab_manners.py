"""The laboratory leaves nobody stopped, no process, no control group; and its page is one for a browser."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from support import run as runs
from support.wait import until

from pylocks import cli
from pylocks.lab import quota
from pylocks.lab.plan import StolenSlice

pytestmark = pytest.mark.timeout(300)
PATIENCE_S = 250.0
"""Many processes are started one after another, each of them at the mercy of the machine."""

# --------------------------------------------------------------- processes


@dataclass
class Running:
    """The command and its descendants, in the middle of a slice in which is stolen."""

    command: subprocess.Popen[str]
    family: list[psutil.Process]
    thief: psutil.Process
    host: psutil.Process


def has_report(process: psutil.Process) -> bool:
    """The thief, and who started it, have the file open that it reports in."""
    try:
        entries = list(Path(f"/proc/{process.pid}/fd").iterdir())
        return any("memfd:pylocks-lab" in os.readlink(entry) for entry in entries)
    except OSError:
        return False


def find(command: subprocess.Popen[str]) -> Running | None:
    family = psutil.Process(command.pid).children(recursive=True)
    known = {process.pid: process for process in family if has_report(process)}
    for process in known.values():
        if process.ppid() in known:
            return Running(command, family, process, known[process.ppid()])
    return None


@contextlib.contextmanager
def running(scenario: str, seconds: str = "60") -> Iterator[Running]:
    options = ("--seconds", seconds, "--rounds", "1", "--quick", "--no-progress")
    command = subprocess.Popen(
        [sys.executable, "-m", "pylocks", "lab", scenario, *options],
        env=runs.settings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        seen: list[Running] = []

        def there() -> bool:
            assert command.poll() is None, command.communicate()[0]
            with contextlib.suppress(psutil.NoSuchProcess):
                seen.extend(filter(None, [find(command)]))
            return bool(seen)

        until(there, "a thief", PATIENCE_S)
        yield seen[-1]
    finally:
        command.kill()
        command.communicate()


def gone(family: list[psutil.Process]) -> bool:
    return not any(runs.alive(member.pid) and member.is_running() for member in family)


def groups() -> set[str]:
    try:
        return {path.name for path in quota.root().iterdir() if path.name.startswith("pylocks-lab-")}
    except OSError:
        return set()


def left() -> set[str]:
    """Those whose maker has ended; others on this machine may be at it."""
    return {name for name in groups() if not runs.alive(int(name.split("-")[2]))}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nobody_is_left_by_a_command_that_is_ended(number: signal.Signals) -> None:
    with running("steal-gang") as lab:
        lab.command.send_signal(number)
        shown, _ = lab.command.communicate(timeout=PATIENCE_S)
        until(lambda: gone(lab.family), "all of its processes to end")
    assert lab.command.returncode == (130 if number == signal.SIGINT else -number)
    assert "Traceback" not in shown


def test_nobody_is_left_by_a_measuring_process_that_is_killed() -> None:
    with running("steal-gang") as lab:
        lab.host.kill()
        shown, _ = lab.command.communicate(timeout=PATIENCE_S)
        until(lambda: gone(lab.family), "all of its processes to end")
    assert lab.command.returncode == 2 and "ended with status -9" in shown


def test_a_thief_that_is_killed_leaves_nobody_stopped() -> None:
    with running("steal-gang", "3") as lab:
        vcpus = [member for member in lab.family if member.ppid() == lab.host.pid and member != lab.thief]
        assert vcpus
        until(lambda: any(vcpu.status() == psutil.STATUS_STOPPED for vcpu in vcpus), "somebody to be stopped")
        lab.thief.kill()
        shown, _ = lab.command.communicate(timeout=PATIENCE_S)
        until(lambda: gone(lab.family), "all of its processes to end")
    assert lab.command.returncode == 2 and "the thief ended with status -9" in shown


# ----------------------------------------------------------- control groups

PERMITTED = pytest.mark.skipif(
    quota.refusal() is not None, reason="no control group with a quota can be made"
)


def stolen(steal: float) -> StolenSlice:
    return StolenSlice(
        *("contend", 1, 0, 0, 1, 1, 1.0), aim="quota", steal=steal, period_ns=20_000_000, thief_cpus=()
    )


@PERMITTED
def test_a_group_has_the_quota_and_is_removed() -> None:
    with quota.group(stolen(0.75)) as group:
        assert group.path.name in groups()
        limits = [
            (group.path / name).read_text().split()
            for name in ("cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
            if (group.path / name).exists()
        ]
        assert [number for line in limits for number in line] == ["5000", "20000"]
        assert group.exhausted() == 0
    assert not group.path.exists()


SCRIPT = """
import signal
from pylocks.bench.arena import child
from pylocks.lab import quota
from pylocks.lab.plan import StolenSlice
plan = StolenSlice("contend", 1, 0, 0, 1, 1, 1.0, aim="quota", steal=0.5, period_ns=20_000_000, thief_cpus=())
with quota.group(plan) as group:
    child(lambda: (group.enter(), print(group.path, flush=True), signal.pause()))
    signal.pause()
"""


@PERMITTED
def test_a_group_is_removed_when_its_maker_is_killed() -> None:
    """And the processes in it with it."""
    with runs.Interactive("-c", SCRIPT) as maker:
        path = Path(maker.line())
        assert path.name in groups() and (path / "cgroup.procs").read_text().split()
        maker.kill()
        until(lambda: not path.exists(), "the group to be removed")


@PERMITTED
def test_a_quota_is_used_up(tmp_path: Path) -> None:
    """And the experiment leaves no group behind."""
    before = left()
    options = ("--quick", "--rounds", "1", "--seconds", "0.15", "--steal", "0.95", "--no-progress")
    assert cli.main(["lab", "steal-quota", *options, "--json", str(tmp_path / "o.json")]) == 0
    assert '"stolen": null' in (tmp_path / "o.json").read_text()
    until(lambda: left() <= before, "its groups to be removed")


def test_where_there_are_no_control_groups_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(quota.QuotaError, match="no control groups for CPU time are mounted at"):
        quota.root(tmp_path)


def test_where_no_group_can_be_made_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nowhere = quota.Hierarchy(tmp_path / "nowhere", "cpu.max")
    monkeypatch.setattr(quota, "_hierarchy", lambda: nowhere)
    assert "no control group can be made there" in (quota.refusal() or "")
    monkeypatch.setattr(quota, "_hierarchy", lambda: quota.Hierarchy(tmp_path, "cpu.max"))
    assert "the cpu controller is not enabled" in (quota.refusal() or "")
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------- browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
HEADLESS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--window-size=1280,2000",
)  # fmt: skip


def console(page: Path, out: Path) -> list[str]:
    """What the browser's console says of a page; a picture of it is in `out`."""
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, *HEADLESS, f"--user-data-dir={out / 'profile'}", f"--screenshot={out / 'page.png'}",
         page.as_uri()],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(BROWSER is None, reason="there is no browser")
def test_a_browser_shows_the_page_without_complaints(tmp_path: Path) -> None:
    options = ("--quick", "--rounds", "1", "--seconds", "0.1", "--no-progress")
    given = ("no-steal", *options, "--html", tmp_path / "o.html")
    runs.python("-m", "pylocks", "lab", *given, limit=PATIENCE_S).check()
    assert console(tmp_path / "o.html", tmp_path) == []
    assert (tmp_path / "page.png").stat().st_size > 50_000
    (tmp_path / "bad.html").write_text("<script>nothing.at.all()</script>")
    assert console(tmp_path / "bad.html", tmp_path), "complaints would be seen"
