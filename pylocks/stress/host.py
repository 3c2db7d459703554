"""What the machine is, for results that others want to compare with theirs."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from pylocks import machine


def describe() -> dict[str, Any]:
    """The host as far as it matters to a lock; nothing that identifies it."""
    facts = machine.look()
    return {
        "cpus": os.cpu_count(),
        "affinity": sorted(os.sched_getaffinity(0)),
        "cpu_quota": facts.quota,
        "cpu_model": _cpu_model(),
        "machine": facts.architecture,
        "hypervisor": _hypervisor() if facts.hypervisor else None,
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "libc": " ".join(platform.libc_ver()),
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def line(host: dict[str, Any]) -> str:
    """The host in one line for people."""
    usable = len(host["affinity"])
    cpus = f"{usable} CPU{'s' * (usable != 1)}"
    if usable != host["cpus"]:
        cpus += f" of {host['cpus']}"
    if host["cpu_quota"] is not None:
        cpus += f" (quota {host['cpu_quota']:g})"
    under = f" under {host['hypervisor']}" if host["hypervisor"] else ""
    return (
        f"{host['python']} on {cpus}, {host['cpu_model']}{under}, Linux {host['kernel']}, "
        f"load {host['load_average'][0]:.2f} at the start"
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def _cpuinfo(key: str) -> str:
    for entry in _read("/proc/cpuinfo").splitlines():
        name, _, value = entry.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _cpu_model() -> str:
    return _cpuinfo("model name") or platform.processor() or "an unnamed processor"


def _hypervisor() -> str:
    """A name for what runs beneath the kernel."""
    return _read("/sys/hypervisor/type") or _read("/sys/class/dmi/id/sys_vendor") or "a hypervisor"
