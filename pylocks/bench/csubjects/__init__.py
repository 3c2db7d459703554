"""The C subjects from Python: a handle for each row of subjects.h."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from cffi import FFI

import pylocks

from .. import build

__all__ = ["CLock", "CSubject", "check", "ffi", "library", "subject", "subjects"]

ffi: Any = FFI()
ffi.cdef((build.SOURCES / "harness.cdef").read_text())


@cache
def library() -> Any:
    """The functions of harness.cdef, compiled if need be; build.CompilerError."""
    return ffi.dlopen(str(build.shared_object()))


@dataclass(frozen=True)
class CSubject:
    """One kind of lock at the C level."""

    name: str
    meaning: str
    excludes: bool
    """False: it locks nothing, and measures the harness."""
    number: int

    @contextmanager
    def open(self, cell: pylocks.TicketLock | None = None) -> Iterator[CLock]:
        """A free lock in memory shared with children; OSError if it can't be made.

        Every subject is offered a pylocks cell, and some use it; None: any.
        """
        cell = pylocks.TicketLock() if cell is None else cell
        env = ffi.new(
            "struct bench_env *",
            {
                "pylocks_api": pylocks.api_address(),
                "pylocks_domain": cell.domain.address,
                "pylocks_cell": cell.index,
            },
        )
        out = ffi.new("struct bench_lock **")
        check(library().bench_open(self.number, env, out), self.name)
        try:
            yield CLock(self.name, out[0])
        finally:
            library().bench_close(out[0])


class CLock:
    """An open lock of one subject; its methods drop the GIL and raise OSError."""

    def __init__(self, name: str, raw: Any) -> None:
        self.name = name
        self.raw = raw
        """What the functions of harness.cdef take."""
        self._pairs = library().bench_pairs

    def pairs(self, n: int) -> int:
        """Lock and unlock n times; the nanoseconds of CPU time that took."""
        elapsed: int = self._pairs(self.raw, n)
        return elapsed if elapsed >= 0 else check(elapsed, self.name)

    def acquire(self) -> None:
        """Lock once."""
        check(library().bench_acquire(self.raw), self.name)

    def release(self) -> None:
        """Unlock once."""
        check(library().bench_release(self.raw), self.name)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()


def check(rc: int, name: str) -> int:
    """The result of a function of harness.cdef; OSError if it is a negative errno."""
    if rc < 0:
        raise OSError(-rc, f"C subject {name}: {os.strerror(-rc)}")
    return rc


@cache
def subjects() -> tuple[CSubject, ...]:
    """The table, compiled if need be; build.CompilerError."""
    lib = library()
    return tuple(
        CSubject(
            name=_text(lib.bench_name(number)),
            meaning=_text(lib.bench_meaning(number)),
            excludes=bool(lib.bench_excludes(number)),
            number=number,
        )
        for number in range(lib.bench_count())
    )


def subject(name: str) -> CSubject:
    """The subject of that name; LookupError."""
    for found in subjects():
        if found.name == name:
            return found
    raise LookupError(f"no C subject {name!r}; there are {', '.join(s.name for s in subjects())}")


def _text(raw: Any) -> str:
    text = ffi.string(raw)
    assert isinstance(text, bytes)
    return text.decode()
