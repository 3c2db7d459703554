"""Nobody is said to be in a deadlock who is not, wherever a thread is stopped on its way into a wait.

A thread's slot still says for what it waited last.  So it says for what it waits now, and then that it
waits (csrc/include/pylocks/wait.h, bounded.h; with lock_event=counters the event says so); else a wait
for something free of trouble would be taken for the last one, which closes a circle by now.
"""

from __future__ import annotations

import pytest
from conftest import POLICIES
from parties import Access
from staging import Staging, until

import pylocks
from pylocks.deadlocks import find

pytest_plugins = ["stage_fixtures"]

WANTED, FORMER, HELD = 1, 2, 3
"""Handles: what it comes to want, what it wanted before, what it has."""


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("events", ("off", "counters"))
def test_a_wait_is_never_taken_for_the_last_one(stage: Staging, policy: str, events: str) -> None:
    s = stage(3, PYLOCKS_OPS=f"lock_event={events},lock_spinning=futex")
    goer, blocker, holder = s.parties
    for party in s.parties:
        party.define(
            f"for name in ('wanted', 'former', 'held'): stepping.bind(domain.address, "
            f"pylocks.TicketLock(name, domain=domain, policy={policy!r}).index)"
        )

    def waits(pid: int) -> bool:
        return any(v.pid == pid and v.waiting_since is not None for v in domain.vcpus())

    with pylocks.Domain(s.name, create=False) as domain:
        assert blocker.ask(f"stepping.acquire({FORMER})") == 0
        goer.send(f"stepping.acquire({FORMER})")
        until("the goer waits for the former", lambda: waits(goer.process.pid))
        assert blocker.ask(f"stepping.unlock({FORMER})") == 0 and goer.answer() == 0
        assert goer.ask(f"stepping.unlock({FORMER})") == 0
        # The goer has what the blocker waits for, and the blocker has what the goer waited for.
        assert goer.ask(f"stepping.acquire({HELD})") == 0
        assert blocker.ask(f"stepping.acquire({FORMER})") == 0
        blocker.send(f"stepping.acquire({HELD})")
        until("the blocker waits", lambda: waits(blocker.process.pid))
        assert holder.ask(f"stepping.acquire({WANTED})") == 0

        own = s.words.vcpu_of(goer.process.pid)
        first, size = s.words.vcpu(own, "pending") // 512 * 512, 512

        def matters(access: Access) -> bool:
            return access.written and first <= access.offset < first + size

        goer.begin(f"acquire({WANTED})")
        stops = 0
        while not waits(goer.process.pid) or stops < 4:
            assert find(domain) == [], f"before store {stops}"
            if len(goer.pass_accesses(1, matters)) < 1:
                break
            stops += 1
        assert stops >= 4 and find(domain) == []
        assert holder.ask(f"stepping.unlock({WANTED})") == 0
        assert goer.end() == 0
        assert goer.ask(f"stepping.unlock({WANTED})") == 0
        assert goer.ask(f"stepping.unlock({HELD})") == 0 and blocker.answer() == 0
        assert blocker.ask(f"stepping.unlock({HELD})") == 0 and blocker.ask(f"stepping.unlock({FORMER})") == 0
