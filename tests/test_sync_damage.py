"""Records and nodes of semaphores and their like that were written over: wrong answers at most."""

from __future__ import annotations

import ctypes
import os
import random
import signal
from pathlib import Path

import pytest
from support import header
from support.syncs import forked, waiting

import pylocks
from pylocks.mutex import Mutex

RECORD, NODE, NODES = 128, 64, 32
INTERESTING = (0, 1, 2, 5, 31, 32, 2**16, 2**31, 2**32 - 1, 2**60, 2**61, 2**63, 2**64 - 1)
ROUNDS = 60


class Damage:
    """Writes over the records and the nodes of a domain."""

    def __init__(self, path: Path, seed: int) -> None:
        self.geometry = header.read(path).geometry
        self.random = random.Random(seed)
        self.file = os.open(path, os.O_RDWR)

    def strike(self, records: int, vcpus: int) -> None:
        """One word, of a record or of a node."""
        if self.random.random() < 0.5:
            at = self.geometry.off_syncs + RECORD * self.random.randrange(records)
            at += 8 * self.random.randrange(RECORD // 8)
        else:
            at = self.geometry.off_nodes + NODE * self.random.randrange(vcpus * NODES if vcpus else 4)
            at += 8 * self.random.randrange(NODE // 8)
        value = self.random.choice(INTERESTING) ^ self.random.choice((0, 0, 1, 2**32, 2**33 + 1))
        os.pwrite(self.file, value.to_bytes(8, "little"), at)


def use_them(name: str, seed: int) -> None:
    """Everything, with bounds, while the memory is written over."""
    domain = pylocks.Domain(name)
    things = (
        pylocks.Semaphore(2, domain=domain), pylocks.BoundedSemaphore(2, domain=domain),
        pylocks.Semaphore(2, domain=domain, owned=True), Mutex(domain=domain),
    )  # fmt: skip
    event = pylocks.Event(domain=domain)
    damage = Damage(Path(f"/dev/shm/pylocks.{name}"), seed)
    signal.alarm(100)
    for _ in range(ROUNDS):
        damage.strike(5, 2)
        for thing in things:
            try:
                if thing.acquire(timeout=damage.random.choice((0, 0.0005))):
                    thing.release()
                repr(thing)
            except (pylocks.PylocksError, ValueError, OverflowError, RuntimeError):
                pass
            damage.strike(5, 2)
        try:
            event.wait(0.0003)
            event.set()
            event.clear()
        except pylocks.PylocksError:
            pass
    domain.recover()


@pytest.mark.filterwarnings("ignore::pylocks.OwnerDiedWarning")
@pytest.mark.parametrize("seed", range(3))
def test_nobody_crashes_or_hangs(name: str, seed: int) -> None:
    with forked(lambda: use_them(name, seed), lambda: use_them(name, seed + 100)) as children:
        assert [child.wait() for child in children] == [0, 0]


def test_a_queue_that_was_cut_is_made_again(name: str) -> None:
    """The nodes say who waits, whatever the record says."""
    with pylocks.Domain(name) as domain:
        s = pylocks.Semaphore(0, domain=domain)
        with forked(s.acquire, s.acquire, s.acquire) as children:
            waiting(s, 3)
            path = Path(f"/dev/shm/pylocks.{name}")
            ends = header.read(path).geometry.off_syncs + s.index * RECORD + 64 + 8
            header.poke(path, ends, (7777777).to_bytes(4, "little") * 2)
            s.release(3)
            assert [child.wait() for child in children] == [0, 0, 0]
        assert (s.value, s.waiters) == (0, 0)


def test_a_kind_that_is_none(name: str) -> None:
    with pylocks.Domain(name) as domain:
        s = pylocks.Semaphore(name="s", domain=domain)
        path = Path(f"/dev/shm/pylocks.{name}")
        at = header.cell_at(path, s.index) + header.Cell.flags.offset
        flags = domain.cell(s.index).flags
        header.poke(path, at, (flags & ~0xFF00 | 0xEE00).to_bytes(4, "little"))
        for open_it in (lambda: pylocks.Semaphore(name="s", domain=domain), lambda: domain.lock("s")):
            with pytest.raises(pylocks.WrongKindError, match="kind 238 of another version"):
                open_it()
        assert s.kind == "kind 238 of another version"
        assert ctypes.sizeof(header.Cell) == 32
