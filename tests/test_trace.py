"""lock_event=trace: the rings, their reader, and the timeline made of them."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from support import run
from support.counting import counting

import pylocks
from pylocks import perfetto, trace
from pylocks._core import lib
from pylocks.perfetto import Record, Thread, chrome_trace

# ---------------------------------------------------------------- the rings


def test_every_acquisition_of_a_free_lock_has_its_two_records() -> None:
    found = counting(
        """
domain = pylocks.Domain()
recorder = trace.Recorder(domain, past=True)
a, b = domain.lock("a"), domain.lock("b")
with a:
    with b: pass
assert a.acquire(False)
a.release()
recorder.poll()
(thread,) = recorder.threads()
assert (thread.pid, thread.tid) == (os.getpid(), threading.get_native_id())
times = [r.ns for r in thread.records]
assert times == sorted(times) and abs(times[-1] - time.monotonic_ns()) < 60e9
print(json.dumps([(r.kind, r.lock - 1, r.ticket) for r in thread.records]))
""",
        "trace",
    )
    assert found == [
        ["entered", 0, 0], ["entered", 1, 0], ["left", 1, 0], ["left", 0, 0],
        ["entered", 0, 1], ["left", 0, 1],
    ]  # fmt: skip


def test_what_is_overwritten_is_missed_and_counted() -> None:
    """More records than a ring holds: the latest are there, in order; how many are not is known."""
    kept, lost, first, last, consecutive = counting(
        f"""
domain = pylocks.Domain()
lock = pylocks.TicketLock(domain=domain)
with lock: pass
recorder = trace.Recorder(domain, past=True)
recorder.poll()
for _ in range({lib.PLK_RING_RECORDS}):
    with lock: pass
recorder.poll()
(thread,) = recorder.threads()
records = thread.records
late = records[2:]
print(json.dumps([len(late), recorder.lost, late[0].ticket, late[-1].ticket,
    all(b.ticket - a.ticket == (b.kind == "entered") for a, b in zip(late, late[1:]))]))
""",
        "trace",
    )
    # The oldest may be the one that is being overwritten: nobody can tell.
    assert kept == lib.PLK_RING_RECORDS - 1
    assert kept + lost == 2 * lib.PLK_RING_RECORDS
    assert last == lib.PLK_RING_RECORDS
    assert first >= lib.PLK_RING_RECORDS // 2
    assert consecutive


def test_a_reader_beside_a_writer_sees_no_half_written_record() -> None:
    """A process that does nothing but acquire and release: whatever is copied is a piece of that sequence."""
    polls, records, torn = counting(
        """
domain = pylocks.Domain()
lock = pylocks.TicketLock(domain=domain)
def work():
    while True:
        with lock: pass
child = forked(work)
torn = total = polls = 0
recorder = trace.Recorder(domain, past=True)
while polls < 200 or total < 20000:
    recorder.poll()
    polls += 1
    for ring in recorder._rings.values():
        for first, data in ring.parts:
            kinds = [(word & 255, word >> 36) for _, word in perfetto.unpack(data)]
            kinds = kinds[1:] if first == 0 else kinds  # the registration
            total += len(kinds)
            torn += sum(b[0] == a[0] or b[1] - a[1] not in (0, 1) for a, b in zip(kinds, kinds[1:]))
        ring.parts.clear()
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
print(json.dumps([polls, total, torn]))
""",
        "trace",
    )
    assert polls >= 200 and records >= 20_000
    assert torn == 0


def test_threads_that_share_a_ring_are_told_apart() -> None:
    """One after the other they take the same slot."""
    tids, seen, kinds = counting(
        """
domain = pylocks.Domain()
lock = pylocks.TicketLock(domain=domain)
tids = []
def use():
    tids.append(threading.get_native_id())
    with lock: pass
for _ in range(3):
    thread = threading.Thread(target=use)
    thread.start(); thread.join()
recorder = trace.Recorder(domain, past=True)
recorder.poll()
threads = recorder.threads()
print(json.dumps([tids, [t.tid for t in threads], [[r.kind for r in t.records] for t in threads]]))
""",
        "trace",
    )
    assert sorted(tids) == sorted(seen)
    assert kinds == [["entered", "left"]] * 3


def test_from_now_on_means_that() -> None:
    found = counting(
        """
lock = pylocks.TicketLock()
with lock: pass
recorder = trace.Recorder(lock.domain, past=False)
recorder.poll()
nothing = recorder.threads()
with lock: pass
recorder.poll()
(thread,) = recorder.threads()
print(json.dumps([len(nothing), [r.ticket for r in thread.records]]))
""",
        "trace",
    )
    assert found == [0, [1, 1]]


def test_without_patches_waits_are_traced_and_free_locks_are_not() -> None:
    kinds = counting(
        """
lock = pylocks.TicketLock()
lock.acquire()
thread = waits_behind(lock)
lock.release(); thread.join()
recorder = trace.Recorder(lock.domain, past=True)
recorder.poll()
print(json.dumps(sorted({r.kind for t in recorder.threads() for r in t.records})))
""",
        "trace",
        PYLOCKS_PATCH="off",
    )
    assert {"waits", "parks", "woken", "granted", "kicking", "kicks"} <= set(kinds)
    assert not {"entered", "left"} & set(kinds)


# ------------------------------------------------------------- the timeline


def valid(made: dict[str, Any]) -> list[dict[str, Any]]:
    """The events, which keep to the trace event format: fields, nesting, and arrows with two ends."""
    json.loads(json.dumps(made))
    tracks: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    arrows: dict[str, dict[int, dict[str, Any]]] = {"s": {}, "f": {}}
    for event in made["traceEvents"]:
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int) and event["name"]
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name") and event["args"]["name"]
            continue
        assert event["ts"] >= 0 and event["cat"]
        if event["ph"] == "X":
            assert event["dur"] >= 0
            ns = round(event["ts"] * 1000)
            tracks[event["pid"], event["tid"]].append((ns, ns + round(event["dur"] * 1000)))
        elif event["ph"] in arrows:
            assert event["id"] not in arrows[event["ph"]]
            arrows[event["ph"]][event["id"]] = event
        else:
            assert event["ph"] == "i" and event["s"] == "t"
    assert arrows["s"].keys() == arrows["f"].keys()
    for number, begin in arrows["s"].items():
        end = arrows["f"][number]
        assert begin["ts"] <= end["ts"] and end["bp"] == "e"
        for at in (begin, end):  # each end lies in a slice
            assert any(a <= round(at["ts"] * 1000) <= b for a, b in tracks[at["pid"], at["tid"]])
    for slices in tracks.values():
        opened: list[int] = []
        for start, end in sorted(slices, key=lambda s: (s[0], -s[1])):
            while opened and opened[-1] <= start:
                opened.pop()
            assert not opened or end <= opened[-1], "slices of one track cross"
            opened.append(end)
    return list(made["traceEvents"])


def names(events: list[dict[str, Any]], category: str) -> list[str]:
    return [e["name"] for e in events if e.get("cat") == category and e["ph"] in "Xi"]


def of(tid: int, *records: tuple[int, str, int, int]) -> Thread:
    return Thread(0, 10, tid, tuple(Record(*one) for one in records))


def made(*threads: Thread, **named: str) -> list[dict[str, Any]]:
    return valid(chrome_trace(threads, {int(key[1:]): name for key, name in named.items()}, "x"))


def test_a_wait_with_a_sleep_that_a_kick_ends() -> None:
    events = made(
        of(1, (0, "entered", 1, 5), (100, "left", 1, 5), (110, "kicking", 1, 6), (130, "kicks", 1, 6)),
        of(2, (20, "waits", 1, 6), (30, "parks", 1, 6), (120, "woken", 1, 6), (125, "granted", 1, 6),
           (200, "left", 1, 6)),
        c0="orders",
    )  # fmt: skip
    shown = {(e["tid"], e["name"]): (e["ts"], e["dur"]) for e in events if e["ph"] == "X"}
    assert shown == {
        (1, "orders"): (0, 0.1), (1, "kick orders"): (0.11, 0.02), (2, "wait orders"): (0.02, 0.105),
        (2, "sleep orders"): (0.03, 0.09), (2, "orders"): (0.125, pytest.approx(0.075)),
    }  # fmt: skip
    (begin,) = [e for e in events if e["ph"] == "s"]
    (end,) = [e for e in events if e["ph"] == "f"]
    assert (begin["tid"], begin["ts"], end["tid"], end["ts"]) == (1, 0.11, 2, 0.119)


def test_locks_released_in_the_order_in_which_they_were_taken() -> None:
    """Two tracks, because slices of one may not cross."""
    events = made(of(1, (0, "entered", 1, 0), (10, "entered", 2, 0), (20, "left", 1, 0), (30, "left", 2, 0)))
    tids = {e["name"]: e["tid"] for e in events if e["ph"] == "X"}
    assert tids["lock 0"] == 1 and tids["lock 1"] != 1
    assert sum(e["name"] == "thread_name" for e in events) == 2


def test_what_began_before_and_what_goes_on() -> None:
    events = made(of(1, (5, "left", 1, 7), (10, "entered", 2, 0), (15, "waits", 3, 0), (20, "parks", 3, 0)))
    args = {e["name"]: e["args"] for e in events if e["ph"] == "X"}
    assert args["lock 0"]["began"] == "before the trace"
    assert args["lock 1"]["ended"] == "not in this trace"
    assert args["wait lock 2"]["outcome"] == "waits still"


def test_a_wait_that_was_given_up_and_a_death() -> None:
    events = made(of(1, (0, "waits", 1, 3), (9, "abandons", 1, 3), (12, "owner_deaths", 2, 8)), c1="b")
    assert [e["args"]["outcome"] for e in events if e["name"] == "wait lock 0"] == ["gave up"]
    assert names(events, "death") == ["b: its holder died, recovered"]


def test_records_that_are_none() -> None:
    """A ring that was written over, or belongs to a newer version: what can't be understood is left out."""
    garbage = [
        perfetto.record(((1 << 64) - 1 - i, (1 << 64) - 1 - 7 * i), lambda ticks: ticks) for i in range(300)
    ]
    events = made(Thread(0, 0, 0, tuple(garbage)))
    assert all(e["ph"] in "MXsfi" for e in events)
    assert made() == []


@pytest.mark.parametrize("policy", ["fifo", "bounded"])
def test_the_timeline_of_real_processes(policy: str) -> None:
    """Every acquisition is a hold, every wait has an end, and sleepers were kicked by somebody."""
    made_there, acquisitions, contended, parks = counting(
        f"""
domain = pylocks.Domain()
lock = pylocks.TicketLock("orders", domain=domain, policy={policy!r})
def rounds():
    for n in range(60):
        with lock:
            if n % 4 == 0: time.sleep(0.0003)
children = [forked(rounds) for _ in range(4)]
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
recorder = trace.Recorder(domain, past=True)
recorder.poll()
assert recorder.lost == 0
made = trace.timeline(domain, recorder.threads())
found = of(lock)
print(json.dumps([made, found.acquisitions, found.contended, found.parks]))
""",
        "trace",
    )
    events = valid(made_there)
    assert names(events, "hold") == ["orders"] * acquisitions == ["orders"] * 240
    assert len(names(events, "wait")) == contended
    assert len(names(events, "sleep")) == parks
    assert parks == 0 or sum(e["ph"] == "s" for e in events) >= 1
    assert not any("ended" in e.get("args", ()) or "began" in e.get("args", ()) for e in events)


# -------------------------------------------------------------- the command


def command(*arguments: str) -> run.Done:
    return run.python("-m", "pylocks", "trace", *arguments)


@pytest.fixture
def traced(name: str) -> str:
    """A domain in which a process has used a lock, and traced it."""
    counting(f"lock = pylocks.Domain({name!r}).lock('orders')\nwith lock: pass\nprint(1)", "trace")
    return name


def test_the_command_writes_a_file(traced: str, tmp_path: Path) -> None:
    with pylocks.Domain(traced):  # as somebody who goes on using it
        said = command(traced, "--perfetto", str(tmp_path / "out.json")).check()
    assert said == "3 records of 1 threads\n"
    events = valid(json.loads((tmp_path / "out.json").read_text()))
    assert names(events, "hold") == ["orders"]


def test_the_command_writes_to_standard_output(traced: str) -> None:
    done = command(traced, "--perfetto", "-")
    assert done.status == 0 and done.err == "3 records of 1 threads\n"
    assert names(valid(json.loads(done.out)), "hold") == ["orders"]


def test_the_command_records_for_a_while(name: str, tmp_path: Path) -> None:
    """While a process uses the lock; not what was before."""
    shown = counting(
        f"""
import subprocess
lock = pylocks.Domain({name!r}).lock("orders")
command = [sys.executable, "-m", "pylocks", "trace", {name!r}, "--seconds", "60", "--records", "50"]
tracer = subprocess.Popen([*command, "--perfetto", {str(tmp_path / "out.json")!r}], stdout=subprocess.DEVNULL)
while tracer.poll() is None:
    with lock: time.sleep(0.001)
print(json.dumps(tracer.returncode))
""",
        "trace",
    )
    assert shown == 0
    holds = names(valid(json.loads((tmp_path / "out.json").read_text())), "hold")
    assert len(holds) >= 20 and set(holds) == {"orders"}


def test_nobody_traces(name: str, tmp_path: Path) -> None:
    with pylocks.Domain(name) as domain, domain.lock("orders"):
        done = command(name, "--perfetto", str(tmp_path / "out.json"))
    assert (done.status, done.out) == (1, "")
    assert "PYLOCKS_OPS=lock_event=trace" in done.err and name in done.err
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("no-such-domain", "--perfetto", "-"), 1, "no-such-domain"),
        (("a/b", "--perfetto", "-"), 1, "domain's name"),
        (("x",), 2, "--perfetto"),
        (("x", "--perfetto", "/nonexistent/x"), 2, "no directory /nonexistent"),
        (("x", "--perfetto", "/"), 2, "is a directory"),
        (("x", "--perfetto", "-", "--seconds", "0"), 2, "--seconds"),
        (("x", "--perfetto", "-", "--seconds", "nan"), 2, "--seconds"),
        (("x", "--perfetto", "-", "--records", "0"), 2, "--records"),
    ],
)
def test_bad_usage(arguments: tuple[str, ...], status: int, said: str) -> None:
    done = command(*arguments)
    assert done.status == status and said in done.err and "Traceback" not in done.err


def test_a_closed_domain() -> None:
    domain = pylocks.Domain()
    recorder = trace.Recorder(domain, past=True)
    domain.close()
    with pytest.raises(pylocks.ClosedError):
        recorder.poll()


def test_the_trace_of_the_dead_takes_nothing_from_who_comes_next(name: str) -> None:
    """Who attaches what they have left is told that they died; a look at the trace is not that."""
    program = (
        "import os, sys, pylocks\n"
        "pylocks.TicketLock('orders', domain=pylocks.Domain(sys.argv[1])).acquire()\n"
        "os._exit(0)\n"
    )
    run.python("-c", program, name, environment=run.settings(PYLOCKS_OPS="lock_event=trace")).check()
    done = command(name, "--perfetto", "-")
    assert done.status == 1 and "died holding orders" in done.err
    with pytest.warns(pylocks.OwnerDiedWarning):
        pylocks.Domain(name).close()
