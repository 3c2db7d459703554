"""A process that measures when asked, and the other end of the line.

They speak JSON, a line for each message.  The process runs this very code even if the pylocks that it
measures is another one: the package is loaded there under a name of its own, ENGINE.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from .settings import Setting

__all__ = ["HERE", "Process", "ProcessError", "Target"]

HERE = Path(__file__).resolve().parent
START = """
import importlib, importlib.util, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us decides what Ctrl-C means
engine, module = sys.argv[1:3]
if sys.argv[3:]:
    sys.path[:] = sys.argv[3:]
spec = importlib.util.spec_from_file_location(
    "pylocks_bench", engine + "/__init__.py", submodule_search_locations=[engine])
sys.modules["pylocks_bench"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["pylocks_bench"])
own = module if module.startswith("pylocks.") else "pylocks_bench." + module
importlib.import_module(own).main()
"""


class ProcessError(RuntimeError):
    """A measuring process ended before it had answered."""


@dataclass(frozen=True)
class Target:
    """Which pylocks is measured."""

    name: str = "here"
    interpreter: str = sys.executable
    path: Sequence[str] = field(default_factory=lambda: tuple(sys.path))
    """sys.path of its processes; empty: the interpreter's own."""


class Process:
    """A running `module`, whose main() answers messages; ends with the `with` block.

    One of this package; or, if it is named in full, of the pylocks that is measured.
    """

    def __init__(self, module: str, setting: Setting, target: Target | None = None) -> None:
        target = Target() if target is None else target
        self.name = setting.name
        self._process = subprocess.Popen(
            [target.interpreter, "-c", START, str(HERE), module, *target.path],
            env=setting.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def ask(self, message: Any) -> Any:
        """Its answer; ProcessError if it has none."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise ProcessError(
                f"the process that measures {self.name!r} ended with status "
                f"{self._process.wait()}; what it said stands above"
            )
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def answer(message: Any) -> None:
    """Say so to the other end."""
    os.write(1, (json.dumps(message) + "\n").encode())
