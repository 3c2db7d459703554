"""What may have spoilt the figures of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .results import typical

__all__ = ["after", "before"]

CPUFREQ = Path("/sys/devices/system/cpu")
FEW_CPUS = 2
OTHERS = 0.1
"""CPUs that other programs may use without a word."""


def before(cpufreq: Path = CPUFREQ) -> list[str]:
    """Of the machine, before anything is measured."""
    said = []
    usable = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    if load >= usable:
        said.append(f"the machine was busy before the run (load {load:.2f} on {usable} CPUs)")
    if usable < FEW_CPUS:
        said.append("there is one CPU: nothing contends in parallel, and nobody can be pinned apart")
    governors = sorted(
        {path.read_text().strip() for path in cpufreq.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    )
    if governors and governors != ["performance"]:
        said.append(f"the frequency governor is {', '.join(governors)}: times depend on what ran before")
    return said


def after(result: Mapping[str, Any]) -> list[str]:
    """Of what was measured."""
    said = []
    crowded: list[str] = []
    broken: dict[str, int] = {}
    missing: dict[tuple[str, str], list[str]] = {}
    for name, scenario in result["scenarios"].items():
        for cell, subjects in scenario["cells"].items():
            others = typical([sample for samples in subjects.values() for sample in samples], "others")
            if others is not None and others.median > OTHERS:
                crowded.append(f"{name} {cell} ({others.median:.1f})")
            for subject, samples in subjects.items():
                if any(sample["violations"] for sample in samples) and subject != "empty":
                    broken[f"{name} {cell} {subject}"] = sum(sample["violations"] for sample in samples)
        for subject, facts in scenario["facts"].items():
            if "unavailable" in facts:
                missing.setdefault((subject, facts["unavailable"]), []).append(name)
            elif "unpatched" not in subject and facts.get("patched", 0) < facts.get("sites", 0):
                said.append(
                    f"{name}: {subject}: {facts['patched']} of {facts['sites']} patch sites are patched; "
                    "the others are indirect calls"
                )
    said += [f"no {subject} in {', '.join(where)}: {why}" for (subject, why), where in missing.items()]
    if crowded:
        said.append(f"other programs used CPU time meanwhile (CPUs in brackets): {', '.join(crowded)}")
    said += [f"{where} did not exclude: {count} violations" for where, count in broken.items()]
    return list(dict.fromkeys(said))
