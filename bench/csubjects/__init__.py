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
from bench import build

__all__ = ["CLock", "CSubject", "subject", "subjects"]

_ffi = FFI()
_ffi.cdef((build.SOURCES / "harness.cdef").read_text())


@cache
def _library() -> Any:
    return _ffi.dlopen(str(build.shared_object()))


@dataclass(frozen=True)
class CSubject:
    """One kind of lock at the C level."""

    name: str
    meaning: str
    excludes: bool
    """False: it locks nothing, and measures the harness."""
    number: int

    @contextmanager
    def open(self) -> Iterator[CLock]:
        """A free lock in memory shared with children; OSError if it can't be made."""
        # Every subject is offered a pylocks cell, and one of them uses it.
        cell = pylocks.TicketLock()
        env = _ffi.new(
            "struct bench_env *",
            {
                "pylocks_api": pylocks.api_address(),
                "pylocks_domain": cell.domain.address,
                "pylocks_cell": cell.index,
            },
        )
        out = _ffi.new("struct bench_lock **")
        _check(_library().bench_open(self.number, env, out), self.name)
        try:
            yield CLock(self.name, out[0])
        finally:
            _library().bench_close(out[0])


class CLock:
    """An open lock of one subject; its methods drop the GIL and raise OSError."""

    def __init__(self, name: str, raw: Any) -> None:
        self.name = name
        self._raw = raw
        self._pairs = _library().bench_pairs

    def pairs(self, n: int) -> int:
        """Lock and unlock n times; the nanoseconds of CPU time that took."""
        elapsed: int = self._pairs(self._raw, n)
        return elapsed if elapsed >= 0 else _check(elapsed, self.name)

    def acquire(self) -> None:
        """Lock once."""
        _check(_library().bench_acquire(self._raw), self.name)

    def release(self) -> None:
        """Unlock once."""
        _check(_library().bench_release(self._raw), self.name)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exc: object) -> None:
        self.release()


def _check(rc: int, name: str) -> int:
    if rc < 0:
        raise OSError(-rc, f"C subject {name}: {os.strerror(-rc)}")
    return rc


@cache
def subjects() -> tuple[CSubject, ...]:
    """The table, compiled if need be; build.CompilerError."""
    lib = _library()
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
    text = _ffi.string(raw)
    assert isinstance(text, bytes)
    return text.decode()
