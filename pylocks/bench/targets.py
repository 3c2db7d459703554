"""Another pylocks to be measured beside this one: a checkout, or the interpreter of an environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .process import Target

__all__ = ["BadTargetError", "other"]

LIMIT_S = 60
ASK = (
    "import pylocks, sys; print(pylocks.__version__, pylocks.__file__, sys.version_info >= (3, 10), sep='|')"
)


class BadTargetError(ValueError):
    """There is no pylocks that could be measured; the message says where and why."""


def other(text: str) -> Target:
    """The pylocks that --against names; BadTargetError."""
    path = Path(text)
    if path.is_dir() and (path / "pylocks" / "__init__.py").is_file():
        root = str(path.resolve())
        target = Target(path.resolve().name, sys.executable, (root, *sys.path))
        expected = f"{root}{os.sep}"
        advice = f"build it first: cd {text} && {Path(sys.executable).name} setup.py build_ext --inplace"
    elif path.is_dir() and (path / "bin" / "python").exists():
        return other(str(path / "bin" / "python"))
    elif path.is_file() and os.access(path, os.X_OK):
        target = Target(path.parent.parent.name or path.name, str(path.absolute()), ())
        expected = ""
        advice = "install pylocks for it"
    else:
        raise BadTargetError(
            f"{text!r} is neither a checkout of pylocks nor a Python interpreter nor an environment"
        )
    _check(target, text, expected, advice)
    return target


def _check(target: Target, text: str, expected: str, advice: str) -> None:
    """Whether pylocks can be imported there, and is the one that is meant."""
    script = f"import sys; sys.path[:] = sys.argv[1:] or sys.path; {ASK}"
    try:
        done = subprocess.run(
            [target.interpreter, "-c", script, *target.path], capture_output=True, text=True, timeout=LIMIT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadTargetError(f"{text}: {error}") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise BadTargetError(f"{text}: pylocks can't be imported there ({last}): {advice}")
    _, where, new_enough = done.stdout.strip().rsplit("|", 2)
    if not where.startswith(expected):
        raise BadTargetError(f"{text}: its pylocks would be imported from {where}: {advice}")
    if new_enough != "True":
        raise BadTargetError(f"{text}: Python 3.10 or later is needed")
