"""What a finished row has to say, put together in its own process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .results import LOST_UPDATE, LOST_WAITER, WORKER_DIED, Row, jain, waits_of
from .shared import MEANING, Sample, stamp_text

if TYPE_CHECKING:
    from .row import Machine, Race

SHORT = 0.2  #: seconds, below which nothing can be said about others: the kernel counts in ticks
FEW = 10  #: acquisitions for each process, below which figures are rough


def build(race: Race, before: Machine, after: Machine) -> Row:
    """The row's result, after all of its workers are gone.

    ``before`` and ``after`` are the machine when the row began and when it was over.
    """
    plan, crew = race.plan, race.crew
    samples = [race.area.sample(number) for number in range(plan.processes)]
    unfinished = [
        crew.killed_at(number) - max(sample.waiting_since, race.started)
        for number, sample in enumerate(samples)
        if crew.ended[number].killed and sample.phase == "waiting"
    ]
    last = max(sample.last_at for sample in samples)
    end = last if race.ended == "count" else max(last, race.stopped)
    seconds = max(end - race.started, 1) / 1e9
    counts = [sample.acquisitions for sample in samples]
    cpu_seconds = sum(end.cpu_seconds for end in crew.ended.values())
    violations, findings = judge(race, samples)
    return {
        "slow_path": plan.slow_path,
        "label": race.subject.label,
        "protocol": race.subject.protocol,
        "policy": plan.policy if race.opened.ticketed else None,
        "overcommit": plan.overcommit,
        "processes": plan.processes,
        "locks": plan.locks,
        "seconds": seconds,
        "ended": race.ended,
        "killed": race.killed,
        "acquisitions": sum(counts),
        "acquisitions_per_s": sum(counts) / seconds,
        "jain": jain(counts),
        **waits_of(samples, unfinished),
        **events(race.opened.domain),
        "cpu_seconds": cpu_seconds,
        "context_switches": {
            "voluntary": sum(end.voluntary for end in crew.ended.values()),
            "involuntary": sum(end.involuntary for end in crew.ended.values()),
        },
        "per_process": per_process(race, samples),
        "violations": sum(violations.values()),
        "violations_by_kind": violations,
        "findings": findings,
        **disturbance(before, after, cpu_seconds),
        "warnings": doubts(race, sum(counts)),
    }


def per_process(race: Race, samples: list[Sample]) -> list[Row]:
    """The raw samples, one a worker."""
    rows = []
    for number, sample in enumerate(samples):
        end = race.crew.ended[number]
        waits = [sample.wait_max]
        if end.killed and sample.phase == "waiting":
            waits.append(race.crew.killed_at(number) - max(sample.waiting_since, race.started))
        rows.append(
            {
                "acquisitions": sample.acquisitions,
                "wait_max_ns": max(waits),
                "wait_sum_ns": sample.wait_sum,
                "cpu_seconds": end.cpu_seconds,
                "voluntary_switches": end.voluntary,
                "involuntary_switches": end.involuntary,
                "killed_while": sample.phase if end.killed else None,
            }
        )
    return rows


def events(domain: Any | None) -> Row:
    """What the domain's vCPUs counted; None for locks that have no domain."""
    if domain is None:
        return {"parks": None, "kicks": None, "events": None}
    stats = domain.stats()
    counted = {name: getattr(stats, name) for name in stats.__dataclass_fields__}
    return {"parks": counted["parks"], "kicks": counted["kicks"], "events": counted}


def judge(race: Race, samples: list[Sample]) -> tuple[dict[str, int], list[Row]]:
    """Violations by kind, and what is known about the first of each kind and worker."""
    found: dict[str, int] = {}
    findings: list[Row] = []
    for number, sample in enumerate(samples):
        for kind, times in sample.violations.items():
            found[kind] = found.get(kind, 0) + times
        findings += found_by(number, sample, race.started)
        end = race.crew.ended[number]
        if end.status != 0 and not end.killed:
            found[WORKER_DIED] = found.get(WORKER_DIED, 0) + 1
            how = f"signal {-end.status}" if end.status < 0 else f"status {end.status}"
            text = f"a worker ended by itself with {how} while {sample.phase}"
            findings.append(
                {
                    "kind": WORKER_DIED,
                    "worker": number,
                    "lock": sample.lock,
                    "text": f"{text}: {sample.message}" if sample.message else text,
                }
            )
    if race.gate.error is not None:
        found["release_error"] = found.get("release_error", 0) + 1
        findings.append({"kind": "release_error", "text": f"{race.gate.error} (in the row process)"})
    for number in race.lost:
        found[LOST_WAITER] = found.get(LOST_WAITER, 0) + 1
        text = "a worker did not come out when everybody was told to leave"
        findings.append({"kind": LOST_WAITER, "worker": number, "text": text, **race.queues[number]})
    missing = lost_updates(race, samples)
    if missing:
        found[LOST_UPDATE] = abs(missing)
        findings.append(
            {
                "kind": LOST_UPDATE,
                "got": race.area.counted(),
                "expected": sum(sample.acquisitions for sample in samples),
                "text": "the counters kept inside the locks differ from the acquisitions made",
            }
        )
    return found, findings


def found_by(number: int, sample: Sample, started: int) -> list[Row]:
    """What is known about the first violation of each kind that this worker found."""
    findings = []
    for first in sample.findings:
        about: Row = {"kind": first.kind, "worker": number, "lock": first.lock}
        if first.kind in ("acquire_error", "release_error"):
            about["text"] = sample.message
        elif first.kind == "torn_write":
            whose = f"found {stamp_text(first.got)}; expected {stamp_text(first.expected)}"
            about["text"] = f"{MEANING[first.kind]}: {whose}"
        else:
            about |= {"got": first.got, "expected": first.expected, "text": MEANING[first.kind]}
        findings.append({**about, "at_s": (first.at - started) / 1e9})
    return findings


def lost_updates(race: Race, samples: list[Sample]) -> int:
    """By how much the counters kept in critical sections differ from the acquisitions made.

    A worker killed inside may have stored its increment without counting its acquisition.
    """
    missing = sum(sample.acquisitions for sample in samples) - race.area.counted()
    torn = sum(sample.phase == "inside" for sample in samples)
    return 0 if -torn <= missing <= 0 else missing


def doubts(race: Race, done: int) -> list[str]:
    """What about the row itself makes its figures rough, in plain words."""
    said = []
    if race.ended == "interrupted":
        said.append("cut short by the user")
    if race.ended == "stalled":
        said.append("nobody acquired anything any more; ended before the acquisitions were made")
    if done < FEW * race.plan.processes and race.ended == "deadline":
        said.append(f"only {done} acquisitions: rate and percentiles are rough")
    return said


def disturbance(before: Machine, after: Machine, cpu_seconds: float) -> Row:
    """What others did meanwhile: CPUs that other programs used, and the share of time stolen.

    None for both if the row, whose workers used ``cpu_seconds``, was too short to tell.
    """
    seconds = after.at - before.at
    if seconds < SHORT:
        return {"others_cpus": None, "stolen_share": None}
    cpus = len(os.sched_getaffinity(0))
    others = (after.busy - before.busy - cpu_seconds) / seconds
    return {
        "others_cpus": max(0.0, others),
        "stolen_share": (after.stolen - before.stolen) / (cpus * seconds),
    }
