"""pylocks serve, and what Hypervisor refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import run
from support.circles import make, puppets, take
from support.wait import until

import pylocks
from pylocks.service import LOGGER, log, served_by


@contextmanager
def serving(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command, which says on standard error that it serves."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pylocks", "serve", *arguments],
        env=run.settings(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT), ids=("term", "int"))
def test_a_signal_ends_it_in_good_order(fresh_name: Callable[[], str], number: int) -> None:
    name = fresh_name()
    with pylocks.Domain(name) as domain, serving(name) as process:
        assert f"event=serving domain={name} pid={process.pid}" in line(process)
        found = served_by(domain)
        assert found is not None and found[0] == process.pid
        process.send_signal(number)
        rest = process.communicate(timeout=run.LIMIT_S)[1]
        assert process.returncode == 0
        assert rest.count("\n") == 1 and f"event=stopped domain={name} kicks=0 waits=0 mended=0" in rest
        assert served_by(domain) is None
        assert domain.vcpus() == ()


def test_what_it_reports_as_json(fresh_name: Callable[[], str]) -> None:
    """A death, and a holder that keeps others waiting."""
    name = fresh_name()
    with pylocks.Domain(name) as domain, serving(name, "--log-json", "--stall", "0.05") as process:
        started = json.loads(line(process))
        assert {"time", "level", "event", "domain", "pid"} == set(started)
        lock = pylocks.TicketLock("orders", domain=domain)
        with lock:
            waiter = os.fork()
            if waiter == 0:
                lock.acquire()
                os._exit(0)  # and dies holding
            stall = json.loads(line(process))
        assert (stall["event"], stall["level"], stall["lock"]) == ("stall", "warning", "orders")
        assert stall["waiters"] == 1 and stall["holder_pid"] == os.getpid() and stall["seconds"] >= 0.05
        os.waitpid(waiter, 0)
        recovered = json.loads(line(process))
        assert recovered["event"] == "recovered" and recovered["vcpus"] == 1
        with pytest.warns(pylocks.OwnerDiedWarning), lock:
            lock.mark_consistent()


def test_a_second_one_waits_or_is_refused(fresh_name: Callable[[], str]) -> None:
    name = fresh_name()
    with pylocks.Domain(name), serving(name) as first:
        assert "event=serving" in line(first)
        refused = run.python("-m", "pylocks", "serve", name)
        assert refused.status == 1 and not refused.out
        assert f"domain {name!r} has a hypervisor already, process {first.pid}" in refused.err
        assert "--wait" in refused.err and refused.err.count("\n") == 1
        with serving(name, "--wait") as second:
            assert f"event=waiting domain={name} served_by={first.pid}" in line(second)
            first.kill()
            assert "event=serving" in line(second)


def test_one_that_waits_can_be_ended(fresh_name: Callable[[], str]) -> None:
    name = fresh_name()
    with pylocks.Domain(name), serving(name) as first:
        assert "event=serving" in line(first)
        with serving(name, "--wait") as second:
            assert f"served_by={first.pid}" in line(second)
            second.terminate()
            assert second.wait(run.LIMIT_S) == 0


def test_it_makes_a_domain_if_told_to(fresh_name: Callable[[], str]) -> None:
    name = fresh_name()
    with serving(name, "--create", "--mode", "660") as process:
        assert "event=serving" in line(process)
        with pylocks.Domain(name, create=False, mode=0o660) as domain:
            assert served_by(domain) is not None


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ((), 1, ["there is no domain", "--create makes it"]),
        (("--stall", "0"), 1, ["stall is a positive number", "0.0"]),
        (("--stall", "nan"), 1, ["stall is a positive number", "nan"]),
        (("--stall", "soon"), 2, ["--stall", "'soon'"]),
        (("--mode", "9"), 2, ["--mode", "'9' is not octal"]),
        (("--create", "--mode", "7777"), 1, ["mode must let its owner read and write"]),
    ],
    ids=str,
)
def test_what_it_does_not_understand(
    fresh_name: Callable[[], str], arguments: tuple[str, ...], status: int, says: list[str]
) -> None:
    name = fresh_name()
    if says[0].startswith("stall"):
        arguments = ("--create", *arguments)
    done = run.python("-m", "pylocks", "serve", name, *arguments)
    assert done.status == status and not done.out
    for part in says:
        assert part in done.err


def test_a_name_that_cannot_be_one() -> None:
    done = run.python("-m", "pylocks", "serve", "../etc")
    assert done.status == 1 and "not '../etc'" in done.err and done.err.count("\n") == 1


# ------------------------------------------------------------------ Hypervisor


@pytest.mark.parametrize("given", ["shop", None, 7])
def test_it_is_of_a_domain(given: Any) -> None:
    with pytest.raises(TypeError, match=r"pylocks\.Domain, not"):
        pylocks.Hypervisor(given)


@pytest.mark.parametrize("stall", [0, -1, float("inf"), float("nan"), "10"])
def test_a_stall_is_a_time(stall: Any) -> None:
    with pytest.raises(ValueError, match="positive number of seconds"):
        pylocks.Hypervisor(pylocks.Domain(), stall=stall)


def test_a_closed_domain_is_not_served() -> None:
    domain = pylocks.Domain()
    hypervisor = pylocks.Hypervisor(domain)
    assert "not started" in repr(hypervisor)
    domain.close()
    for served in (hypervisor.serve, hypervisor.start):
        with pytest.raises(pylocks.ClosedError):
            served()


def test_it_is_started_once() -> None:
    with pylocks.Hypervisor(pylocks.Domain()) as hypervisor:
        with pytest.raises(pylocks.HypervisorError, match="runs already"):
            hypervisor.start()
        assert hypervisor.running


def test_no_slot_is_left_for_it() -> None:
    domain = pylocks.Domain(vcpus=1)
    with pylocks.TicketLock(domain=domain), pytest.raises(pylocks.HypervisorError, match="vCPU slots"):
        pylocks.Hypervisor(domain).serve()


def test_it_serves_an_array() -> None:
    array = pylocks.LockArray(100)
    with pylocks.Hypervisor(array.domain) as hypervisor:
        until(lambda: hypervisor.pid is not None, "it to serve")
        with array[3]:
            pass


def test_lines_are_for_programs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", LOGGER.name):
        log(20, "tried", lock="a b", empty="", seconds=0.25, pid=None, quoted='say "no"')
    (record,) = caplog.records
    assert record.getMessage() == """event=tried lock='a b' empty='' seconds=0.25 quoted='say "no"'"""
    assert record.fields == {
        "event": "tried", "lock": "a b", "empty": "", "seconds": 0.25, "quoted": 'say "no"',
    }  # type: ignore[attr-defined] # fmt: skip


# ------------------------------------------------------------------ what else it tells


def test_a_deadlock_is_reported_once(fresh_name: Callable[[], str]) -> None:
    name = fresh_name()
    with pylocks.Domain(name) as domain, serving(name, "--log-json") as process:
        line(process)
        with puppets("fork", make(domain, 2), 2) as made:
            for index, puppet in enumerate(made):
                puppet.call(take, index)
            for index, puppet in enumerate(made):
                puppet.start(take, 1 - index)
            told = json.loads(line(process))
            assert (told["event"], told["threads"]) == ("deadlock", 2)
            for puppet in made:
                assert f"process {puppet.pid}" in told["what"]
            assert "'lock 0'" in told["what"] and "'lock 1'" in told["what"]
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=run.LIMIT_S)[1]
        rest = [json.loads(each)["event"] for each in said.splitlines()]
        assert "deadlock" not in rest and rest[-1] == "stopped"


def test_it_serves_metrics(fresh_name: Callable[[], str], tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    name, path = fresh_name(), tmp_path / "metrics"
    with pylocks.Domain(name), serving(name, "--metrics", f"unix:{path}") as process:
        assert f"event=metrics address=unix:{path}" in line(process)
        assert "event=serving" in line(process)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65536), b"")).decode()
        assert f'domain="{name}"' in answer and "pylocks_" in answer
        process.send_signal(signal.SIGTERM)
        assert process.wait(run.LIMIT_S) == 0 and not path.exists()


def test_metrics_are_not_served_to_the_world(fresh_name: Callable[[], str]) -> None:
    name = fresh_name()
    with pylocks.Domain(name), serving(name, "--metrics", "0.0.0.0:0") as process:
        said = process.communicate(timeout=run.LIMIT_S)[1]
        assert process.returncode == 1 and "127.0.0.1" in said
