"""Scripts that run where lock_event counts or traces: every process decides once what it does."""

from __future__ import annotations

import json
from typing import Any

from support import run

PREPARE = """
import json, os, signal, sys, threading, time
import pylocks
from pylocks import events, perfetto, trace

def until(condition, limit=60):
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)

def forked(function):
    child = os.fork()
    if child == 0:
        try:
            function()
        finally:
            os._exit(0)
    return child

def of(lock):
    (found,) = events.lock_events(lock.domain, [lock.index])
    return found

def waiters(lock, n):
    until(lambda: lock.waiters == n)

def waits_behind(lock, then=lambda: None):
    "A thread that queues for the lock, which this one holds; it is asleep, or about to be, on return."
    thread = threading.Thread(target=lambda: (lock.acquire(), then(), lock.release()))
    thread.start()
    until(lambda: any(v.parked for v in lock.domain.vcpus()))
    return thread
"""


def counting(script: str, choice: str = "counters", ops: str = "lock_spinning=futex", **settings: str) -> Any:
    """What the script prints last, as JSON, with lock_event=CHOICE."""
    environment = run.settings(PYLOCKS_OPS=f"lock_event={choice},{ops}".rstrip(","), **settings)
    out = run.python("-c", PREPARE + script, environment=environment).check()
    return json.loads(out.splitlines()[-1])
