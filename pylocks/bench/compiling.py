"""Calls of the C compiler that are made once, and their results kept.

No build system: what is made is kept under a name made from everything that went into it (digest()),
so that a change of a source, of a header or of the compiler makes a new one.  The tests compile by
this, too; it imports nothing but the standard library.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path


class CompilerError(RuntimeError):
    """Something could not be compiled, or what looks at it or was compiled could not be run."""


def compiler() -> list[str]:
    """The command that compiles C: $CC, or that by which Python was built."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def digest(*parts: bytes, files: Iterable[Path] = ()) -> str:
    """A short name for these parts, and for the names and contents of these files."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    for path in files:
        whole.update(hashlib.sha256(path.name.encode() + b"\0" + path.read_bytes()).digest())
    return whole.hexdigest()[:16]


def make(made: Path, command: Sequence[str]) -> Path:
    """Have the command write this file, by `-o FILE`, unless it is there; CompilerError."""
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        # Made under another name and moved: several processes may be here at once.
        with tempfile.TemporaryDirectory(dir=made.parent) as scratch:
            draft = Path(scratch, made.name)
            run([*command, "-o", str(draft)])
            draft.replace(made)
    return made


def run(command: Sequence[str]) -> str:
    """Standard output of a command that succeeds; CompilerError."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        advice = "; install a C compiler, or set CC" if command[0] == compiler()[0] else ""
        raise CompilerError(f"can't run {command[0]!r}: {error.strerror}{advice}") from error
    if done.returncode != 0:
        raise CompilerError(f"{shlex.join(command)} failed:\n{done.stderr}")
    return done.stdout
