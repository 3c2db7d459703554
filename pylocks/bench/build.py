"""Compiles the C subjects when they are first needed.

The result goes into build/bench of a checkout (which git ignores), or for an installed pylocks into
pylocks-bench in the user's cache directory ($XDG_CACHE_HOME, or else ~/.cache).

No build system: one call of the C compiler that Python was built with, or of $CC.  The result is
kept under a name made from everything that went into it, so that a change of a subject, of the
public header or of the compiler makes a new one.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sysconfig
import tempfile
from pathlib import Path

import pylocks

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


class CompilerError(RuntimeError):
    """The C subjects could not be compiled."""


def compiler() -> list[str]:
    """The command that compiles C."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def compiler_version() -> str:
    """The compiler's own first line about itself; CompilerError if it can't be run."""
    return _run([*compiler(), "--version"]).partition("\n")[0]


def shared_object(folder: Path = SOURCES, *more_flags: str) -> Path:
    """A folder of C files, that of the C subjects, compiled into one; CompilerError."""
    include = Path(pylocks.get_include())
    sources = sorted(folder.glob("*.c"))
    headers = [*sorted(folder.glob("*.h")), *sorted(folder.glob("*.cdef")), *sorted(include.rglob("*.h"))]
    flags = (*FLAGS, *more_flags)
    digest = hashlib.sha256(repr((compiler(), compiler_version(), flags)).encode())
    for path in (*sources, *headers):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    made = CACHE / f"{folder.name}-{digest.hexdigest()[:16]}.so"
    if not made.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        # Made under another name and moved: several processes may be here at once.
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            draft = Path(scratch, made.name)
            _run([*compiler(), *flags, f"-I{include}", *map(str, sources), "-o", str(draft)])
            draft.replace(made)
    return made


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise CompilerError(
            f"can't run the C compiler {command[0]!r}: {error.strerror}; install one, or set CC"
        ) from error
    if done.returncode != 0:
        raise CompilerError(f"{shlex.join(command)} failed:\n{done.stderr}")
    return done.stdout
