"""What a finished row of chaos has to say; its keys are those of any row, and ``chaos`` beside them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from ..report import disturbance, events, found_by
from ..results import LOST_WAITER, WORKER_DIED, Row, jain, waits_of
from ..shared import Sample
from . import judge

if TYPE_CHECKING:
    from ..row import Machine
    from .row import Storm

GOAL = 150_000_000  #: ns, within which a lock should be granted again after a death
SHOWN = 20  #: findings of one kind that are kept


def build(storm: Storm, before: Machine, after: Machine) -> Row:
    """The row's result, after all of its processes are gone."""
    plan, crew = storm.plan, storm.crew
    samples = [storm.area.sample(number) for number in range(plan.processes + 1)]
    seats = samples[: plan.processes]
    acquired = [sample.acquisitions for sample in seats]
    seconds = max(storm.stopped - storm.started, 1) / 1e9
    cpu_seconds = sum(end.cpu_seconds for end in crew.ended)
    violations, findings = verify(storm, samples)
    chaos = figures(storm)
    return {
        "slow_path": plan.slow_path,
        "label": storm.subject.label,
        "protocol": storm.subject.protocol,
        "policy": plan.policy,
        "overcommit": plan.overcommit,
        "processes": plan.processes,
        "locks": plan.locks,
        "seconds": seconds,
        "ended": storm.ended,
        "killed": len(storm.lost),
        "acquisitions": sum(acquired),
        "acquisitions_per_s": sum(acquired) / seconds,
        "jain": jain(acquired),
        **waits_of(seats, []),
        **events(storm.domain),
        "cpu_seconds": cpu_seconds,
        "context_switches": {
            "voluntary": sum(end.voluntary for end in crew.ended),
            "involuntary": sum(end.involuntary for end in crew.ended),
        },
        "per_process": [
            {
                "acquisitions": sample.acquisitions,
                "wait_max_ns": sample.wait_max,
                "wait_sum_ns": sample.wait_sum,
            }
            for sample in seats
        ],
        "chaos": chaos,
        "violations": sum(violations.values()),
        "violations_by_kind": violations,
        "findings": findings,
        **disturbance(before, after, cpu_seconds),
        "warnings": doubts(storm, chaos),
    }


def figures(storm: Storm) -> Row:
    """What was done to the processes, and how long it held up their locks."""
    plan, crew, area = storm.plan, storm.crew, storm.area
    times = judge.stall_times(storm.stalls, crew.stops, plan.locks)
    decided = [decision.to_json() for decision in storm.decided]
    by_phase: dict[str, list[int]] = {"inside": [], "waiting": [], "releasing": []}
    for time, stall in zip(times, storm.stalls, strict=True):
        by_phase[stall.how].append(time.net)
    return {
        "kills_wanted": plan.kills,
        **judge.counts(crew.deaths, plan.processes),
        "replaced_by_fork": crew.lives - crew.spawned,
        "replaced_by_spawn": crew.spawned,
        "stops": len(crew.stops),
        "stopped_ns": sum(stop.end - stop.begin for stop in crew.stops),
        "timeouts": area.total("timeouts"),
        "interrupts_sent": sum(decision.what == "interrupt" for decision in storm.decided),
        "interrupts": area.total("interrupts"),
        "owner_deaths_reported": int(area.total("told")),
        "stalls": len(times),
        "stall_ns": judge.quantiles([time.net for time in times]),
        "stall_from_kill_ns": judge.quantiles([time.whole for time in times]),
        "stall_without_cpu_wait_ns": judge.quantiles([time.fed for time in times]),
        "stalls_beyond_goal": sum(time.net > GOAL for time in times),
        "stalls_beyond_goal_without_cpu_wait": sum(time.fed > GOAL for time in times),
        "stall_by_phase_ns": {how: judge.quantiles(each) for how, each in by_phase.items()},
        "stall_goal_ns": GOAL,
        "longest_stalls": longest(storm, times),
        "vcpu_slots": storm.domain.vcpu_limit,
        "processes_in_all": crew.lives,
        "after": storm.after,
        "moot": storm.moot,
        "decisions": decided,
        "decisions_sha256": hashlib.sha256(json.dumps(decided).encode()).hexdigest(),
    }


def longest(storm: Storm, times: list[judge.StallTime], most: int = 10) -> list[Row]:
    """The worst stalls, for whoever wants to know where they come from."""
    order = sorted(zip(times, storm.stalls, strict=True), key=lambda pair: -pair[0].net)[:most]
    return [
        {
            "lock": stall.lock,
            "how": stall.how,
            "life": stall.life,
            "at_s": (stall.killed - storm.started) / 1e9,
            "stall_ns": time.net,
            "from_kill_ns": time.whole,
            "without_cpu_wait_ns": time.fed,
            "seen": storm.sights.get((stall.lock, stall.killed)),
        }
        for time, stall in order
    ]


def verify(storm: Storm, samples: list[Sample]) -> tuple[dict[str, int], list[Row]]:
    """Violations by kind, and what is known about them."""
    found: Counter[str] = Counter()
    findings: list[Row] = []
    for number, sample in enumerate(samples):
        found.update(sample.violations)
        findings += found_by(number, sample, storm.started)
    for kind, about in [*_by_itself(storm), *_of_history(storm), *judge.leftovers(storm.after)]:
        found[kind] += 1
        if found[kind] <= SHOWN:
            findings.append({"kind": kind, "text": judge.MEANING.get(kind, ""), **about})
    return dict(found), findings


def _by_itself(storm: Storm) -> judge.Found:
    """Processes that ended or did not end."""
    found: judge.Found = []
    for seat, life, code in storm.crew.unexpected:
        how = f"signal {-code}" if code < 0 else f"status {code}"
        message = storm.area.sample(seat).message
        text = f"a worker ended by itself with {how}" + (f": {message}" if message else "")
        found.append((WORKER_DIED, {"worker": seat, "life": life, "text": text}))
    for lock, waited in storm.stuck.found.items():
        found.append((judge.STUCK, {"lock": lock, "waited_ns": waited, **storm.stuck_state[lock]}))
    if not storm.subject.collapses:
        text = "a worker did not come out when everybody was told to leave"
        found += [(LOST_WAITER, {"text": text, **about}) for about in storm.lost]
    return found


def _of_history(storm: Storm) -> judge.Found:
    """What the deaths do not account for."""
    area, deaths = storm.area, storm.crew.deaths
    found: judge.Found = [
        (judge.FALSE_ALARM, {"lock": r.lock, "ticket": r.ticket, "life": r.life, "at_s": _at(storm, r.at)})
        for r in judge.false_alarms(area.told(), deaths)
    ]
    if storm.violated():
        return found  # who is stuck has a ticket, too
    skipped = {lock: int(area.marks(lock).skipped) for lock in range(area.locks)}
    excuses = {lock: int(area.marks(lock).excuses) for lock in range(area.locks)}
    beyond = judge.skipped(skipped, excuses, deaths)
    return found + [(judge.SKIPPED, {"lock": lock, "tickets": number}) for lock, number in beyond.items()]


def _at(storm: Storm, ns: int) -> float:
    return (ns - storm.started) / 1e9


def doubts(storm: Storm, chaos: dict[str, Any]) -> list[str]:
    """What about the row makes its figures rough, in plain words."""
    said = []
    if storm.ended == "interrupted":
        said.append("cut short by the user")
    if storm.ended == "violated":
        said.append("ended soon after the first violation")
    if storm.ended == "short":
        said.append(f"ended after {chaos['kills']} of {chaos['kills_wanted']} kills: the machine is too busy")
    longest = chaos["stall_ns"]["max"]
    if longest is not None and longest > GOAL:
        said.append(f"the longest stall after a kill is beyond the goal of {GOAL // 1_000_000} ms")
    if chaos["owner_deaths_reported"] > storm.area.reports:
        said.append("not all reports of an owner's death could be kept")
    return said
