"""What the choice of slow paths depends on: CPUs, quota, hypervisor, kernel."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from pylocks._core import lib

__all__ = ["Machine", "look"]


@dataclass(frozen=True)
class Machine:
    """Facts about where this process runs."""

    cpus: int
    """CPUs in the affinity mask of the calling thread."""
    quota: float | None
    """CPUs' worth of time that the control groups allow; None: no limit."""
    hypervisor: bool
    """The processor says that it is a virtual one."""
    futex: bool
    """The kernel has the futex calls that parking needs."""
    membarrier: bool
    """The kernel has membarrier's GLOBAL_EXPEDITED command."""
    architecture: str

    @property
    def parallel(self) -> float:
        """CPUs that this process's domain can really use at once."""
        return min(float(self.cpus), self.quota) if self.quota is not None else float(self.cpus)


def look(root: Path = Path("/")) -> Machine:
    """Look at the machine; `root` is where proc and sys are mounted."""
    return Machine(
        cpus=len(os.sched_getaffinity(0)),
        quota=_quota(root),
        hypervisor=_hypervisor(root),
        futex=bool(lib.plk_futex_works()),
        membarrier=bool(lib.plk_membarrier_works()),
        architecture=platform.machine(),
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None


def _number(text: str | None) -> int | None:
    """A whole number, or None for anything else that a file may hold."""
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _hypervisor(root: Path) -> bool:
    cpuinfo = _read(root / "proc/cpuinfo") or ""
    for line in cpuinfo.splitlines():
        if line.startswith("flags"):
            return "hypervisor" in line.split()
    # Other processors have no such bit; the device tree or DMI names the hypervisor.
    return (root / "sys/hypervisor/type").exists() or (root / "proc/device-tree/hypervisor").exists()


def _quota(root: Path) -> float | None:
    """The least CPU quota on the way from this process's control groups to the root."""
    limits = []
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        fields = line.split(":", 2)
        if len(fields) != 3:
            continue
        _, controllers, path = fields
        if controllers == "":
            read, mounts = _quota_v2, [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
        elif "cpu" in controllers.split(","):
            read, mounts = _quota_v1, [root / "sys/fs/cgroup" / controllers, root / "sys/fs/cgroup/cpu"]
        else:
            continue
        for mount in mounts:
            group = mount / path.lstrip("/")
            # In a container the path may be the host's: then the mount itself is the group.
            for at in [group, *group.parents]:
                limit = read(at) if at.is_relative_to(mount) else None
                if limit is not None:
                    limits.append(limit)
    return min(limits, default=None)


def _quota_v2(group: Path) -> float | None:
    quota, _, period = (_read(group / "cpu.max") or "").strip().partition(" ")
    return _ratio(_number(quota), _number(period))


def _quota_v1(group: Path) -> float | None:
    quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
    return _ratio(_number(quota), _number(period))


def _ratio(quota: int | None, period: int | None) -> float | None:
    """CPUs that a quota amounts to; None for "max", -1 and the like."""
    return quota / period if quota and period else None
