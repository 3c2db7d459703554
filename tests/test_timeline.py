"""The timeline of pylocks trace, opened in the viewer that it is for, beside what happened."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import run, viewer

PROGRAM = """
import json, os, sys, time, pylocks
from pylocks._core import lib
lib.plk_watchdog_set(3600 * 10**9)  # nobody but a kick wakes a sleeper
domain = pylocks.Domain(sys.argv[1])
orders, stock = domain.lock("orders"), domain.lock("stock")
began = time.monotonic_ns()
orders.acquire()
child = os.fork()
if child == 0:
    with orders: pass
    while True: time.sleep(1)
futex = {"x86_64": "202 ", "aarch64": "98 "}[os.uname().machine]
while not open(f"/proc/{child}/syscall").read().startswith(futex): time.sleep(0.001)
assert any(v.parked for v in domain.vcpus() if v.pid == child)
with stock: pass
orders.release()
while domain.cell(orders.index).head < 2: time.sleep(0.001)
print(json.dumps([os.getpid(), child, (time.monotonic_ns() - began) / 1e6]), flush=True)
sys.stdin.readline()
os.kill(child, 9)
os.waitpid(child, 0)
"""


def program(name: str, path: Path) -> tuple[int, int, float]:
    """Two processes, of which one waits for the other: (its pid, that of the waiter, ms that it took)."""
    settings = run.settings(PYLOCKS_OPS="lock_event=trace")
    with run.Interactive("-c", PROGRAM, name, environment=settings) as playing:
        holder, waiter, took = json.loads(playing.line())
        run.python("-m", "pylocks", "trace", name, "--perfetto", path).check()
        playing.say("enough")
        assert playing.wait() == 0
    return holder, waiter, took


@pytest.fixture(scope="module")
def nothing_missing() -> None:
    if viewer.missing():
        pytest.skip(viewer.missing())


@pytest.mark.usefixtures("nothing_missing")
def test_the_viewer_shows_what_happened(fresh_name: Callable[[], str], tmp_path: Path) -> None:
    path = tmp_path / "timeline.json"
    holder, waiter, took = program(fresh_name(), path)
    found = viewer.opened(path)
    assert found["warnings"] == []
    slices = found["slices"]
    assert {one["pid"] for one in slices} == {holder, waiter}
    assert all(one["tid"] == one["pid"] and "(vCPU " in one["thread"] for one in slices)

    def of(pid: int, category: str) -> list[dict[str, Any]]:
        return [one for one in slices if one["pid"] == pid and one["category"] == category]

    outer, inner = sorted(of(holder, "hold"), key=lambda one: one["start"])
    assert (outer["name"], outer["args"], outer["inside"]) == ("orders", {"ticket": 0}, None)
    assert (inner["name"], inner["args"], inner["inside"]) == ("stock", {"ticket": 0}, "orders")
    (wait,), (hold,) = of(waiter, "wait"), of(waiter, "hold")
    assert wait["name"] == "wait orders" and wait["args"] == {"outcome": "acquired", "ticket": 1}
    assert hold["name"] == "orders" and hold["args"] == {"ticket": 1} and hold["inside"] is None
    sleeps, kicks = of(waiter, "sleep"), of(holder, "kick")
    assert {one["inside"] for one in sleeps} == {"wait orders"}
    assert [one["name"] for one in kicks] == ["kick orders"]
    (arrow,) = found["flows"]
    assert (arrow["name"], arrow["from"], arrow["to"]) == ("kick", "kick orders", "sleep orders")
    assert arrow["start"] == kicks[0]["start"]
    assert outer["start"] < wait["start"] < inner["start"] < kicks[0]["start"] < wait["end"]
    assert hold["start"] == pytest.approx(wait["end"])
    assert min(one["start"] for one in slices) >= 0 and max(one["end"] for one in slices) < took
    assert of(holder, "wait") == of(holder, "sleep") == of(waiter, "kick") == []


@pytest.mark.usefixtures("nothing_missing")
def test_what_is_no_timeline_is_not_shown(tmp_path: Path) -> None:
    """So the test above looks at what the viewer has read, not at what we have written."""
    path = tmp_path / "timeline.json"
    path.write_text('{"traceEvents": [')
    with pytest.raises(AssertionError):
        viewer.opened(path)
