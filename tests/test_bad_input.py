"""What lies under a domain's name may be anything: each case has its own exception, with a message
that says what, where and what to do, and what is not ours is left as it was."""

from __future__ import annotations

import errno
import os
import pickle
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import segment_path
from support import header
from support.child import in_child
from support.segments import CREATE, abandoned, refused, snapshot

import pylocks
from pylocks import errors, segment
from pylocks._core import ffi


def test_the_header_is_where_these_tests_believe(name: str) -> None:
    found = header.read(abandoned(name, vcpus=7, locks=9))
    assert found.magic == header.MAGIC
    assert found.geometry.vcpus, found.geometry.cells == (7, 9)
    assert found.geometry.size == segment_path(name).stat().st_size
    assert found.creator_pid == os.getpid()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", "").strip()
    assert bytes(found.boot).hex() == boot
    assert found.slow_path in (b"futex", b"yield")
    assert (found.cells_next, found.entries_next) == (1, 1)


@pytest.mark.parametrize("code", (errno.ENOSYS, errno.ENOTSUP))
def test_a_kernel_without_robust_futexes_is_named(code: int) -> None:
    error = segment.refusal(-code, ffi.new("struct plk_found *"), "domain 'shop'")
    assert type(error) is errors.DomainError
    assert "domain 'shop' can't be made" in str(error) and "robust futexes" in str(error)


# ------------------------------------------------------------------ foreign

FOREIGN = {
    "one byte": b"x",
    "less than a magic number": b"pylock",
    "text": b"some other program's data\n" * 10,
    "a page of zeros": bytes(4096),
    "many zeros": bytes(1 << 20),
    "noise": random.Random(1).randbytes(10_000),
    "almost": b"pylocks2" + bytes(8000),
}


@CREATE
@pytest.mark.parametrize("mode", (0o600, 0o644, 0o666))
@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_file(content: bytes, mode: int, create: bool, name: str) -> None:
    path = segment_path(name)
    path.write_bytes(content)
    path.chmod(mode)
    before = snapshot(path)
    refused(errors.ForeignFileError, name, "not a pylocks segment", "another name", create=create)
    assert snapshot(path) == before


def _directory(path: Path) -> None:
    path.mkdir()


def _fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _dangling_link(path: Path) -> None:
    path.symlink_to("/nonexistent/target")


def _link_to_a_file(path: Path) -> None:
    path.symlink_to(__file__)


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@CREATE
@pytest.mark.parametrize(
    "make", (_directory, _fifo, _socket, _dangling_link, _link_to_a_file, _link_to_itself)
)
def test_not_a_regular_file(make: Callable[[Path], None], create: bool, name: str) -> None:
    path = segment_path(name)
    make(path)
    before = snapshot(path) if not path.is_symlink() else os.readlink(path)
    try:
        refused(errors.ForeignFileError, name, create=create)
        assert before == (snapshot(path) if not path.is_symlink() else os.readlink(path))
        assert not Path("/nonexistent").exists()
    finally:
        path.rmdir() if path.is_dir() else path.unlink()


@CREATE
def test_a_link_to_a_segment_is_not_followed(create: bool, name: str, fresh_name: Callable[[], str]) -> None:
    target = abandoned(fresh_name())
    before = snapshot(target)
    segment_path(name).symlink_to(target)
    refused(errors.ForeignFileError, name, create=create)
    assert snapshot(target) == before


# ------------------------------------------------------------------ damaged


@CREATE
@pytest.mark.parametrize("change", (8, 12, 100, 4095, 4096, 100_000, -4096, -1, 1, 4096, 1 << 30))
def test_another_length(change: int, create: bool, name: str) -> None:
    """Cut to so many bytes, or by so many, or longer: known before anything is mapped, so no SIGBUS."""
    path = abandoned(name)
    size = path.stat().st_size
    length = size + change if change < 0 or change in (1, 4096, 1 << 30) else change
    os.truncate(path, length)
    before = snapshot(path)
    refused(errors.TruncatedDomainError, name, f"{length} bytes", "remove it", create=create)
    if length >= 4096:
        refused(errors.TruncatedDomainError, name, str(size), create=create)
    assert snapshot(path) == before


@CREATE
@pytest.mark.parametrize(
    "field", ("abi", "header_size", "cell_size", "vcpu_size", "entry_size", "mutex_size")
)
@pytest.mark.parametrize("change", (1, -1))
def test_another_layout(field: str, change: int, create: bool, name: str) -> None:
    path = abandoned(name)
    value = getattr(header.read(path), field) + change
    header.write(path, value, field)
    before = snapshot(path)
    message = refused(errors.AbiMismatchError, name, "layout version", create=create)
    if field == "abi":
        assert f"has layout version {value}, this pylocks has {value - change}" in message
    assert snapshot(path) == before


def test_another_c_library(name: str) -> None:
    path = abandoned(name)
    header.write(path, 4, "life_offset")
    refused(errors.AbiMismatchError, name, "C library")


CORRUPT = [
    ("geometry.vcpus", 0),
    ("geometry.vcpus", 70_000),
    ("geometry.vcpus", 4000),
    ("geometry.channels", 0),
    ("geometry.channels", 3),
    ("geometry.channels", 1 << 31),
    ("geometry.tombs", 16),
    ("geometry.tombs", 8191),
    ("geometry.entries", 2**32 - 1),
    ("geometry.entries", 4097),
    ("geometry.cells", 0),
    ("geometry.cells", 2**32 - 1),
    ("geometry.stride", 0),
    ("geometry.stride", 48),
    ("geometry.stride", 32),
    ("geometry.off_channels", 0),
    ("geometry.off_tombs", 4096),
    ("geometry.off_entries", 2**63),
    ("geometry.off_vcpus", 8),
    ("geometry.off_cells", 2**64 - 4096),
    ("geometry.off_syncs", 2**40),
    ("geometry.off_nodes", 4096),
    ("geometry.syncs", 0),
    ("geometry.noded", 2**32 - 1),
    ("geometry.off_tallies", 0),
    ("geometry.off_rings", 2**63),
    ("geometry.tallied", 2**32 - 1),
    ("geometry.rings", 0),
    ("geometry.size", 0),
    ("geometry.size", 2**64 - 1),
    ("protocol", 0),
    ("protocol", 3),
    ("array", 2),
    ("barrier", 77),
    ("vcpus_next", 4097),
    ("entries_next", 4097),
    ("cells_next", 65_537),
]


@CREATE
@pytest.mark.parametrize(("field", "value"), CORRUPT)
def test_an_impossible_header(field: str, value: int, create: bool, name: str) -> None:
    path = abandoned(name)
    header.write(path, value, field)
    before = snapshot(path)
    refused(errors.CorruptDomainError, name, "impossible", "remove it", create=create)
    assert snapshot(path) == before


@CREATE
def test_a_guard_of_another_kind(create: bool, name: str) -> None:
    """The C library would do with the mutex whatever its kind says."""
    path = abandoned(name)
    at, _ = header.place("guard")
    kind_at = next(
        i for i in range(16) if header.read(path).guard[i] & 0x90 == 0x90
    )  # process-shared and robust, glibc
    header.poke(path, at + 4 * kind_at, bytes(4))
    refused(errors.CorruptDomainError, name, create=create)


def _guard_of_another_kind(path: Path, domain: pylocks.Domain) -> None:
    at, _ = header.place("guard")
    kind_at = next(i for i in range(16) if header.read(path).guard[i] & 0x90 == 0x90)
    header.poke(path, at + 4 * kind_at, (32 | 16 | 128).to_bytes(4, "little"))  # priority-inheriting, too


# What a living segment's own words may turn into while it is used.
SCRIBBLES: dict[str, Callable[[Path, pylocks.Domain], Any]] = {
    "entry names a cell that is none": lambda path, domain: header.poke(
        path, header.entry_at(path, 0) + header.Entry.cell.offset, b"\xff" * 4
    ),
    "entry with a long name": lambda path, domain: header.poke(
        path, header.entry_at(path, 0) + header.Entry.length.offset, (101).to_bytes(4, "little")
    ),
    "entries_next": lambda path, domain: header.write(path, 2**32 - 1, "entries_next"),
    "vcpus_next": lambda path, domain: header.write(path, 2**32 - 1, "vcpus_next"),
    "cells_next": lambda path, domain: header.write(path, 2**32 - 1, "cells_next"),
    "cells_free": lambda path, domain: header.write(path, 2**32 - 1, "cells_free"),
    "cells_next goes back": lambda path, domain: header.write(path, 0, "cells_next"),
    "guard of another kind": _guard_of_another_kind,
    "guard that can not be recovered": lambda path, domain: header.write(path, 0x7FFFFFFE, "guard", 2),
    "geometry": lambda path, domain: header.write(path, 2**32 - 1, "geometry.cells"),
    "owner is no vCPU": lambda path, domain: header.poke(
        path, header.cell_at(path, 0) + header.Cell.owner.offset, b"\xff\xff" + bytes(6)
    ),
    "head beyond tail": lambda path, domain: header.poke(
        path, header.cell_at(path, 0) + header.Cell.head.offset, (5).to_bytes(8, "little")
    ),
    "everything": lambda path, domain: header.poke(path, header.place("cells_next")[0], b"\xff" * 16),
}


@pytest.mark.parametrize("scribble", SCRIBBLES.values(), ids=SCRIBBLES)
def test_a_segment_scribbled_over_while_in_use(
    scribble: Callable[[Path, pylocks.Domain], Any], name: str
) -> None:
    """Clear errors or wrong answers, but no crash and no endless wait."""
    domain = pylocks.Domain(name, vcpus=8, locks=8)
    lock = domain.lock("orders")
    lock.acquire()
    sound = segment_path(name).read_bytes()
    scribble(segment_path(name), domain)

    def use_everything() -> list[str]:
        outcomes = []
        for use in (
            lambda: domain.lock("orders"),
            lambda: domain.lock("orders", create=False),
            lambda: domain.lock("new"),
            domain.locks,
            domain.vcpus,
            domain.stats,
            lambda: pylocks.TicketLock(domain=domain),
            lambda: lock.owner,
            lambda: repr(lock),
            lambda: lock.waiters,
            lock.locked,
            lambda: lock.acquire(False),
            lambda: lock.acquire(timeout=0.01),
            lock.release,
            lambda: pickle.dumps(lock),
            domain.close,
        ):
            try:
                use()
                outcomes.append("")
            except (pylocks.PylocksError, pylocks.OwnerDiedWarning) as error:
                outcomes.append(f"{type(error).__name__}: {error}")
        return outcomes

    outcomes = in_child(use_everything)
    said = [each for each in outcomes if "Corrupt" in each]
    assert all(name in each for each in said)
    header.poke(segment_path(name), 0, sound)
    lock.release()


@pytest.mark.parametrize(
    ("scribble", "use"),
    [
        ("entry names a cell that is none", lambda domain: domain.lock("orders")),
        ("entry names a cell that is none", lambda domain: domain.locks()),
        ("entry with a long name", lambda domain: domain.locks()),
        ("cells_next", lambda domain: domain.lock("new")),
        ("cells_next", lambda domain: pylocks.TicketLock(domain=domain)),
        ("cells_next goes back", lambda domain: pylocks.TicketLock(domain=domain)),
        ("guard of another kind", lambda domain: domain.lock("new")),
        ("guard of another kind", lambda domain: domain.recover()),
        ("guard that can not be recovered", lambda domain: pylocks.TicketLock(domain=domain)),
        ("owner is no vCPU", lambda domain: domain.locks()[0].owner),
    ],
)
def test_an_index_that_points_nowhere_is_reported(
    scribble: str, use: Callable[[pylocks.Domain], Any], name: str
) -> None:
    domain = pylocks.Domain(name)
    lock = domain.lock("orders")
    lock.acquire()
    sound = segment_path(name).read_bytes()
    SCRIBBLES[scribble](segment_path(name), domain)
    with pytest.raises(pylocks.CorruptDomainError, match=name):
        use(domain)
    header.poke(segment_path(name), 0, sound)
    lock.release()
