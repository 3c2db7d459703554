"""Whatever lies where a domain should be: a look at it is an error that says so, and never more than that."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import segment_path
from support import header
from support.segments import abandoned
from support.segments import snapshot as content

import pylocks
from pylocks import cli, errors
from pylocks.mutex import Mutex
from pylocks.observe import Place, place_of, snapshot
from pylocks.observe.reading import Words


def overwrite(field: str, value: int) -> Callable[[Path], None]:
    return lambda path: header.write(path, value, field)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096)


def replace(text: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(text)


DAMAGE: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "another program's file": (replace(b"some other program's data\n" * 300), errors.ForeignFileError),
    "empty": (replace(b""), errors.ForeignFileError),
    "a few bytes": (replace(b"pylocks1"), errors.TruncatedDomainError),
    "half made": (lambda path: header.poke(path, 0, header.FORMATTING), errors.ForeignFileError),
    "an old layout": (overwrite("abi", 1), errors.AbiMismatchError),
    "another C library": (overwrite("mutex_size", 48), errors.AbiMismatchError),
    "cut": (cut, errors.TruncatedDomainError),
    "from before a restart": (overwrite("boot", 0), errors.StaleDomainError),
    "more vCPUs than room": (overwrite("vcpus_next", 1 << 30), errors.CorruptDomainError),
    "more names than room": (overwrite("entries_next", 1 << 30), errors.CorruptDomainError),
    "more cells than room": (overwrite("cells_next", 1 << 31), errors.CorruptDomainError),
    "an impossible place": (overwrite("geometry.off_cells", 1 << 60), errors.CorruptDomainError),
    "no protocol": (overwrite("protocol", 7), errors.CorruptDomainError),
}


def damaged(name: str, what: str) -> tuple[Path, type[Exception]]:
    """A segment with that done to it, and the error that it is."""
    path = abandoned(name)
    damage, kind = DAMAGE[what]
    if what == "from before a restart":
        header.poke(path, header.place("boot")[0], bytes(range(16)))
    else:
        damage(path)
    return path, kind


@pytest.mark.parametrize("what", DAMAGE)
def test_the_same_error_as_attaching(what: str, name: str) -> None:
    path, kind = damaged(name, what)
    before = content(path)
    with pytest.raises(kind) as caught:
        snapshot(name)
    assert type(caught.value) is kind
    assert f"domain {name!r} (/dev/shm/pylocks.{name})" in str(caught.value)
    assert content(path) == before


@pytest.mark.parametrize("what", DAMAGE)
def test_the_commands_say_so(what: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, kind = damaged(name, what)
    for command in (
        ["top", name, "--once"],
        ["top", name, "--json"],
        ["inspect", "orders", "--domain", name],
    ):
        assert cli.main(command) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.startswith(f"pylocks {command[0]}: domain {name!r}") and err.count("\n") == 1
    assert cli.main(["ls"]) == 0
    out, err = capsys.readouterr()
    (row,) = (line for line in out.splitlines() if line.startswith(f"{name} "))
    assert row.split(maxsplit=1)[1].strip().replace(" ", "") == kind.__name__.removesuffix("Error").lower()
    assert cli.main(["ls", "--json"]) == 0
    (told,) = (e for e in json.loads(capsys.readouterr().out)["errors"] if e["domain"] == name)
    assert told["kind"] == kind.__name__ and name in told["error"]


def test_not_a_regular_file(name: str) -> None:
    path = segment_path(name)
    makers: tuple[Callable[[Path], object], ...] = (
        lambda p: p.mkdir(),
        lambda p: os.mkfifo(p, 0o600),  # a look must not wait for a writer
        lambda p: p.symlink_to("/etc/passwd"),
        lambda p: p.symlink_to("/nonexistent"),
    )
    for make in makers:
        make(path)
        with pytest.raises(errors.ForeignFileError, match="not a regular file"):
            snapshot(name)
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(name: str) -> None:
    abandoned(name).chmod(0o200)
    with pytest.raises(errors.DomainPermissionError, match="may not read it"):
        snapshot(name)


def test_permission_is_told_apart(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    abandoned(name)

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(errors.DomainPermissionError, match="may not read it"):
        snapshot(name)


def test_cut_while_it_is_looked_at(name: str) -> None:
    path = abandoned(name)
    fd = place_of(name).open()
    try:
        words = Words(fd, "here")
        os.truncate(path, 4096)
        for look in (words.vcpus, words.names):
            words.extent.vcpus = words.extent.entries = 1
            with pytest.raises(errors.TruncatedDomainError, match="cut while"):
                look()
        assert words.cell_blocks() == []
    finally:
        os.close(fd)


def test_a_process_that_ends_meanwhile() -> None:
    with pytest.raises(errors.UnknownDomainError, match="is gone"):
        snapshot(Place(None, f"/proc/{2**22 + 1}/fd/3"))


def scribble(path: Path, random_: random.Random) -> None:
    """Overwrite words of the parts behind the header, those that are in use more often."""
    found = header.read(path)
    g = found.geometry
    parts = [
        (g.off_vcpus, found.vcpus_next * 512),
        (g.off_cells, found.cells_next * g.stride),
        (g.off_entries, found.entries_next * ctypes.sizeof(header.Entry)),
        (g.off_tombs, g.tombs * 8),
        (g.off_syncs, found.cells_next * 128),
        (g.off_nodes, 2 * 32 * 64),
    ]
    values = (0, 1, 2, 3, 0x40000000, 2**31, 2**32 - 1, 2**48, 2**63, 2**64 - 1)
    for _ in range(random_.randrange(1, 40)):
        start, size = random_.choice(parts)
        value = random_.choice((*values, random_.getrandbits(64)))
        header.poke(path, start + random_.randrange(max(1, size // 8)) * 8, value.to_bytes(8, "little"))
    header.write(path, random_.randrange(3), "tombs_live")
    header.write(path, random_.getrandbits(64), "service_vcpu")


@pytest.mark.parametrize("seed", range(8))
def test_noise_in_its_words(seed: int, name: str) -> None:
    """Nothing in a segment leads out of it, or to more than what it is: names, numbers, nobody."""
    random_ = random.Random(seed)
    with pylocks.Domain(name, vcpus=64, locks=64) as domain:
        pylocks.TicketLock("bounded", domain=domain, policy="bounded")
        things = (
            pylocks.Semaphore(2, domain=domain),
            pylocks.Semaphore(3, domain=domain, owned=True),
            pylocks.RWLock(domain=domain).read,
            Mutex(domain=domain),
            pylocks.Condition(domain=domain),
        )
        kept = [pylocks.Event(name="ready", domain=domain), pylocks.Barrier(3, domain=domain), *things]
        assert not kept[0].wait(0.001)
        with domain.lock("orders"), domain.lock("stock"), contextlib.ExitStack() as held:
            for thing in things:
                held.enter_context(thing)
            intact = segment_path(name).read_bytes()
    domain.unlink()
    path = segment_path(name)
    for _ in range(40):
        path.write_bytes(intact)
        scribble(path, random_)
        found = snapshot(name)
        assert len(found.vcpus) <= 64 and len(found.locks) + len(found.objects) <= 64
        for each in found.objects:
            assert (
                each.label and each.kind and each.state and len(each.holders) + len(each.waiters) <= 64 * 32
            )
            assert cli.main(["inspect", f"#{each.index}", "--domain", name, "--once"]) == 0
        for lock in found.locks:
            assert lock.head <= lock.tail and lock.label and len(lock.waiters) <= 64 * 8
        assert cli.main(["top", name, "--once"]) == 0


def test_names_cannot_steer_a_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pylocks.Domain(name) as domain, domain.lock("\x1b[2J\rnew\nline"):
        assert cli.main(["top", name, "--once"]) == 0
        assert cli.main(["inspect", "\x1b[2J\rnew\nline", "--domain", name, "--once"]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out and "\r" not in out and "\N{REPLACEMENT CHARACTER}[2J" in out
