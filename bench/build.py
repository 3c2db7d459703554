"""Compiles bench/csubjects when it is first needed, into build/bench (which git ignores)."""

from __future__ import annotations

from pathlib import Path

import pylocks
from bench.compiling import CompilerError, compiler, digest, make, run

__all__ = ["CompilerError", "compiler", "compiler_version", "shared_object"]

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "csubjects"
CACHE = HERE.parent / "build" / "bench"

FLAGS = (
    "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread",
    "-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Werror",
)  # fmt: skip


def compiler_version() -> str:
    """The compiler's own first line about itself; CompilerError if it can't be run."""
    return run([*compiler(), "--version"]).partition("\n")[0]


def shared_object() -> Path:
    """The compiled C subjects; CompilerError."""
    include = Path(pylocks.get_include())
    sources = sorted(SOURCES.glob("*.c"))
    headers = [*sorted(SOURCES.glob("*.h")), *sorted(SOURCES.glob("*.cdef")), *sorted(include.rglob("*.h"))]
    name = digest(repr((compiler(), compiler_version(), FLAGS)).encode(), files=(*sources, *headers))
    command = [*compiler(), *FLAGS, f"-I{include}", *map(str, sources)]
    return make(CACHE / f"csubjects-{name}.so", command)
