"""Python stacks of threads of other processes, through py-spy, which reads them without stopping anybody."""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pylocks.errors import PylocksError

__all__ = ["Stack", "StacksError", "program", "stacks"]

_PATIENCE_S = 20.0
_TRIES = 3
"""A stack that moves while it is read can't be read; the next may."""
_UNTOLD = "Python before 3.11 tells without a stop which is the main thread, and not which are the others"


class StacksError(PylocksError):
    """Stacks can't be had at all."""


Stack = tuple[str, ...]
"""Frames, the innermost first; or one line in parentheses that says why there are none."""


def program() -> str:
    """Where py-spy is; StacksError if it is not installed."""
    scripts = sysconfig.get_path("scripts")
    found = shutil.which("py-spy") or shutil.which("py-spy", path=scripts)
    if found is None:
        raise StacksError('--stacks needs py-spy, which is not installed: pip install "pylocks[stacks]"')
    return found


def stacks(threads: Iterable[tuple[int, int]]) -> dict[int, Stack]:
    """Thread id -> stack, for (pid, tid) pairs; StacksError if py-spy is not installed."""
    py_spy = program()
    wanted: dict[int, set[int]] = {}
    for pid, tid in threads:
        wanted.setdefault(pid, set()).add(tid)
    found: dict[int, Stack] = {}
    for pid, tids in wanted.items():
        dumped, why = _dump(py_spy, pid)
        for tid in tids:
            found[tid] = dumped.get(tid, (f"({why or 'not a Python thread'})",))
    return found


def _dump(py_spy: str, pid: int) -> tuple[dict[int, Stack], str]:
    """Stacks of the process's threads, or why there are none."""
    why = ""
    for _ in range(_TRIES):
        # Nonblocking: by default it would stop the process for the moment.
        command = [py_spy, "dump", "--nonblocking", "--json", "--pid", str(pid)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_PATIENCE_S, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return {}, f"py-spy: {error}"
        if done.returncode == 0:
            try:
                threads = json.loads(done.stdout)
                return _read(threads, pid), _UNTOLD * any(each["os_thread_id"] is None for each in threads)
            except (ValueError, KeyError, TypeError):
                return {}, "py-spy said what is not understood"
        why = _reason(done.stderr)
    return {}, why


def _read(threads: list[dict[str, Any]], pid: int) -> dict[int, Stack]:
    stacks = {}
    for thread in threads:
        # Read without a stop, Python before 3.11 does not say which thread is which; but for this one.
        main = pid if thread.get("thread_name") == "MainThread" else None
        if (tid := thread["os_thread_id"] or main) is not None:
            stacks[tid] = tuple(
                f"{frame['name']} ({Path(frame['filename']).name}:{frame['line']})"
                for frame in thread["frames"]
            )
    return stacks


def _reason(said: str) -> str:
    text = " ".join(said.split())
    if "ermission" in text:
        return (
            "not permitted to read its memory: run as root, or allow this user to trace "
            "its own processes (sysctl kernel.yama.ptrace_scope=0)"
        )
    if "Failed to find" in text or "python" in text.lower():
        return "not a Python process, or of a version that py-spy does not know"
    return f"py-spy: {text[:200]}"
