"""Compiles the C subjects when they are first needed.

The result goes into build/bench of a checkout (which git ignores), or for an installed pylocks into
pylocks-bench in the user's cache directory ($XDG_CACHE_HOME, or else ~/.cache).

A change of a subject, of the public header or of the compiler makes a new one (compiling.py).
"""

from __future__ import annotations

import os
from pathlib import Path

import pylocks
from pylocks.bench.compiling import CompilerError, compiler, digest, make, run

__all__ = ["CompilerError", "compiler", "compiler_version", "shared_object"]

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "csubjects"


def _cache() -> Path:
    root = HERE.parent.parent
    if (root / "setup.py").exists() and (root / "csrc").is_dir():
        return root / "build" / "bench"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pylocks-bench")


CACHE = _cache()

FLAGS = (
    "-std=gnu11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread",
    "-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Werror",
)  # fmt: skip


def compiler_version() -> str:
    """The compiler's own first line about itself; CompilerError if it can't be run."""
    return run([*compiler(), "--version"]).partition("\n")[0]


def shared_object(folder: Path = SOURCES, *more_flags: str) -> Path:
    """A folder of C files, that of the C subjects, compiled into one; CompilerError."""
    include = Path(pylocks.get_include())
    sources = sorted(folder.glob("*.c"))
    headers = [*sorted(folder.glob("*.h")), *sorted(folder.glob("*.cdef")), *sorted(include.rglob("*.h"))]
    flags = (*FLAGS, *more_flags)
    name = digest(repr((compiler(), compiler_version(), flags)).encode(), files=(*sources, *headers))
    command = [*compiler(), *flags, f"-I{include}", *map(str, sources)]
    return make(CACHE / f"{folder.name}-{name}.so", command)
