"""Steal by a quota of CPU time: a control group of our own for the vCPUs, where that is permitted.

A group can be removed only when all of its processes are dead, so this is left to a caretaker: a process
that outlives ours however that ends, removes the group when the last of its processes is gone, and ends.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .plan import StolenSlice

__all__ = ["Group", "Hierarchy", "QuotaError", "group", "refusal", "root"]

LEAST_US = 1_000
"""That the kernel takes for a quota or a period."""
PATIENCE_S = 20.0
MOUNT = Path("/sys/fs/cgroup")


class QuotaError(OSError):
    """No control group with a quota can be made here; the message says why."""


@dataclass(frozen=True)
class Hierarchy:
    """One of the two kinds of control groups."""

    root: Path
    """The group of this process."""
    limit: str
    """The file whose presence shows that CPU time is controlled there."""

    def limits(self, path: Path, quota_us: int, period_us: int) -> None:
        """Set them."""
        if self.limit == "cpu.max":
            (path / "cpu.max").write_text(f"{quota_us} {period_us}")
        else:
            (path / "cpu.cfs_period_us").write_text(str(period_us))
            (path / "cpu.cfs_quota_us").write_text(str(quota_us))


@dataclass(frozen=True)
class Group:
    """A control group with a quota."""

    path: Path

    def enter(self) -> None:
        """Let this process be in it."""
        (self.path / "cgroup.procs").write_text("0")

    def exhausted(self) -> int:
        """How often the quota was used up before its period was over."""
        found = dict(line.split() for line in (self.path / "cpu.stat").read_text().splitlines())
        return int(found["nr_throttled"])


def _hierarchy(mount: Path = MOUNT) -> Hierarchy:
    """Where this process's groups of CPU time are; QuotaError."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            for at in (mount / controllers, mount / "cpu"):
                if (at / path.lstrip("/")).is_dir():
                    return Hierarchy(at / path.lstrip("/"), "cpu.cfs_quota_us")
        elif not controllers and (mount / "cgroup.controllers").exists():
            return Hierarchy(mount / path.lstrip("/"), "cpu.max")
    raise QuotaError(f"no control groups for CPU time are mounted at {mount}")


def _make(quota_us: int, period_us: int) -> Path:
    """A new group; QuotaError."""
    where = _hierarchy()
    path = where.root / f"pylocks-lab-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        path.mkdir()
    except OSError as error:
        raise QuotaError(
            f"{path.parent}: no control group can be made there ({error.strerror}): run it as root, or as a "
            "user to whom the cpu controller is delegated"
        ) from error
    try:
        if not (path / where.limit).exists():
            raise QuotaError(f"{where.root}: the cpu controller is not enabled for groups below it")
        where.limits(path, quota_us, period_us)
    except OSError as error:
        path.rmdir()
        if isinstance(error, QuotaError):
            raise
        raise QuotaError(f"{path.parent}: no quota can be set there ({error.strerror})") from error
    return path


def root(mount: Path = MOUNT) -> Path:
    """Where groups are made; QuotaError."""
    return _hierarchy(mount).root


def refusal() -> str | None:
    """Why there can be no quota here; None: there can."""
    try:
        _make(10_000, 10_000).rmdir()
    except OSError as error:
        return str(error)
    return None


@contextmanager
def group(plan: StolenSlice) -> Iterator[Group]:
    """A group for the vCPUs of a slice, gone when they are; QuotaError."""
    cpus = min(plan.processes, len(os.sched_getaffinity(0)))
    period = max(LEAST_US, plan.period_ns // 1000)
    path = _make(max(LEAST_US, round((1 - plan.steal) * cpus * period)), period)
    readable, writable = os.pipe()
    caretaker = os.fork()
    if caretaker == 0:
        try:
            _take_care(path, readable, writable)
        finally:
            os._exit(0)
    os.close(readable)
    try:
        yield Group(path)
    finally:
        os.close(writable)
        os.waitpid(caretaker, 0)


def _take_care(path: Path, readable: int, writable: int) -> None:
    """Wait until nobody is left who has the other end of the pipe, and remove the group."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.close(writable)
    os.read(readable, 1)
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.005)  # its processes are being killed
        else:
            return
