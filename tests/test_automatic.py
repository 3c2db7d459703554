"""What is chosen without being asked for: with all CPUs, with one, under a quota, in a crowd."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.run import python, settings

CGROUPS = Path("/sys/fs/cgroup")

# What this process would do, as JSON.
CHOICES = """
import json, os, sys
group = os.environ.get("GROUP")
if group:
    with open(os.path.join(group, "cgroup.procs"), "w") as file:
        file.write(str(os.getpid()))
if os.environ.get("CPUS"):
    os.sched_setaffinity(0, set(map(int, os.environ["CPUS"].split(","))))
import pylocks
from pylocks.ops import process
domain = pylocks.Domain()
spin = process.decision.spin
print(json.dumps({
    "slow_path": domain.slow_path, "ns": spin.ns, "near": spin.near, "crowd": spin.crowd, "ahead": spin.ahead,
    "cpus": spin.cpus, "reason": spin.reason,
    "preempted": process.decision.choices["vcpu_preempted"][0].name,
}))
domain.close()
"""

# More processes than CPUs take one lock in turn; what became of them, and what their waits were like.
CROWD = """
import json, multiprocessing, os, sys
import pylocks
def work(lock, n):
    for _ in range(n):
        with lock:
            pass
if __name__ == "__main__":
    if os.environ.get("CPUS"):
        os.sched_setaffinity(0, set(map(int, os.environ["CPUS"].split(","))))
    context = multiprocessing.get_context("fork")
    domain = pylocks.Domain()
    lock = pylocks.TicketLock(domain=domain, policy=sys.argv[2])
    lock.acquire()
    workers = [context.Process(target=work, args=(lock, 20)) for _ in range(int(sys.argv[1]))]
    for worker in workers:
        worker.start()
    while lock.waiters < len(workers):
        pass
    lock.release()
    for worker in workers:
        worker.join()
    stats = domain.stats()
    print(json.dumps({"codes": [w.exitcode for w in workers], "locked": lock.locked(), "waits": stats.waits,
                      "hypercalls": stats.hypercalls, "yields": stats.yields, "parks": stats.parks}))
"""


def choices(**environment: str) -> dict[str, Any]:
    return dict(json.loads(python("-c", CHOICES, environment=settings(**environment)).check()))


def crowd(processes: int, policy: str, **environment: str) -> dict[str, Any]:
    environment = settings(PYLOCKS_OPS="lock_event=counters", **environment)
    done = python("-c", CROWD, str(processes), policy, environment=environment)
    return dict(json.loads(done.check()))


@pytest.fixture
def quota_group() -> Iterator[Path]:
    """A control group of half a CPU."""
    name = f"pylocks-test-{os.getpid()}"
    for root, limit, value in (
        (CGROUPS, "cpu.max", "50000 100000"),
        (CGROUPS / "cpu", "cpu.cfs_quota_us", "50000"),
        (CGROUPS / "cpu,cpuacct", "cpu.cfs_quota_us", "50000"),
    ):
        group = root / name
        try:
            group.mkdir()
        except OSError:
            continue
        if not all((group / name).exists() for name in (limit, "cgroup.procs")):
            group.rmdir()  # not a control group: the mount point of others, or without this controller
            continue
        (group / limit).write_text(value)
        yield group
        group.rmdir()
        return
    pytest.skip("no control group with a CPU quota can be made here: not permitted, or not mounted")


def test_all_cpus() -> None:
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        pytest.skip("one CPU only")
    found = choices()
    assert found["slow_path"] == "futex"
    if "quota" not in found["reason"]:
        assert found["cpus"] == len(usable) and found["ns"] > 0 and found["preempted"] == "same_cpu"
        assert found["near"] == len(usable) - 1 and found["crowd"] == 8 * len(usable)


def test_one_cpu() -> None:
    found = choices(CPUS=str(min(os.sched_getaffinity(0))))
    assert (found["ns"], found["near"], found["preempted"]) == (0, 0, "off"), found["reason"]
    assert found["slow_path"] == "futex" and found["cpus"] == 1


def test_a_quota(quota_group: Path) -> None:
    found = choices(GROUP=str(quota_group))
    assert "quota of 0.5" in found["reason"]
    # Who gives way again and again, or spins, uses up the time that the holder needs.
    assert (found["ns"], found["crowd"], found["preempted"]) == (0, 0, "off")
    assert found["slow_path"] == "futex"


@pytest.mark.parametrize("policy", ["fifo", "bounded"])
@pytest.mark.parametrize("processes", [4, 40])
def test_a_crowd_on_one_cpu(processes: int, policy: str) -> None:
    found = crowd(processes, policy, CPUS=str(min(os.sched_getaffinity(0))))
    assert found["codes"] == [0] * processes and not found["locked"]
    if policy == "fifo" and processes == 4:
        assert found["parks"] < found["waits"], "in a short queue they give way instead of sleeping"
    assert found["hypercalls"] > 0


@pytest.mark.parametrize("policy", ["fifo", "bounded"])
def test_a_crowd_sleeps(policy: str) -> None:
    processes = 10 * len(os.sched_getaffinity(0))
    found = crowd(processes, policy)
    assert found["codes"] == [0] * processes and not found["locked"]
    assert found["parks"] > 0
