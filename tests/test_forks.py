"""A lock's memory around a fork: what another process may use is not given to anybody else.

Forced: a fork between the look whether a lock is one's own and its giving back, as a signal handler
makes one; and the order in which the two processes then go on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from support.child import in_child

import pylocks
from pylocks.domain import Domain


@pytest.fixture
def domain() -> Iterator[pylocks.Domain]:
    with pylocks.Domain() as made:
        yield made


def new(domain: pylocks.Domain) -> int:
    """The memory that a lock gets which is forgotten at once."""
    return pylocks.TicketLock(domain=domain).index


@pytest.mark.parametrize("first", ("parent", "child"))
def test_a_fork_between_look_and_giving_back(
    domain: pylocks.Domain, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes are at it then: neither gives back what the other, or who comes next, has."""
    give_back = Domain.free_cell
    asked, ask = os.pipe()
    children: list[int] = []

    def forking(self: Domain, index: int, forks: int) -> None:
        pid = os.fork()
        if pid == 0:
            if first == "parent":
                os.read(asked, 1)
            give_back(self, index, forks)
            os._exit(0)
        children.append(pid)
        if first == "child":
            os.waitpid(pid, 0)
        give_back(self, index, forks)

    lock = pylocks.TicketLock(domain=domain)
    with monkeypatch.context() as patched:
        patched.setattr(Domain, "free_cell", forking)
        del lock
    assert len(children) == 1
    kept = pylocks.TicketLock(domain=domain)
    if first == "parent":
        os.write(ask, b"x")
        os.waitpid(children[0], 0)
    other = pylocks.TicketLock(domain=domain)
    os.close(asked)
    os.close(ask)
    assert other.index != kept.index
    with kept, other:
        pass


def test_a_child_does_not_give_back_what_it_has_of_its_parent(domain: pylocks.Domain) -> None:
    box = [pylocks.TicketLock(domain=domain)]
    index = box[0].index

    def collect() -> int:
        box.clear()
        return new(domain)

    assert in_child(collect) != index
    with box[0]:
        assert new(domain) != index


def test_a_child_gives_back_its_own(domain: pylocks.Domain) -> None:
    """Until it forks itself."""

    def child() -> tuple[bool, bool]:
        own = new(domain)
        again = new(domain) == own
        lock = pylocks.TicketLock(domain=domain)
        index = lock.index
        in_child(lambda: None)
        del lock
        return again, new(domain) == index

    assert in_child(child) == (True, False)


def test_parent_and_child_never_get_the_same(domain: pylocks.Domain) -> None:
    """Of what is given back after the fork, each may be had once."""
    before = new(domain)
    theirs = in_child(lambda: pylocks.TicketLock(domain=domain).__reduce__()[1][1])
    assert theirs == before
    assert new(domain) != theirs
