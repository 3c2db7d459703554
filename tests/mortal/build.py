"""Builds the program in C from the core's own sources."""

from __future__ import annotations

import shlex
import sys
import sysconfig
from pathlib import Path

from compiling import compiler, core_sources, digest, make
from ptracing import why_not

__all__ = ["build", "why_not"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CSRC = ROOT / "csrc"


def build() -> Path:
    """The program, compiled; CompilerError."""
    sys.path.insert(0, str(CSRC))
    try:
        from flags import COMPILE_ARGS  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(CSRC))
    python = shlex.split(f"{sysconfig.get_config_var('CFLAGS')} {sysconfig.get_config_var('CCSHARED')}")
    sources = core_sources()
    sources += sorted(HERE.glob("*.c"))
    folders = [f"-I{folder}" for folder in (CSRC / "include", CSRC, HERE)]
    command = [*compiler(), *python, *COMPILE_ARGS, "-pthread", *folders, *map(str, sources)]
    headers = (*sorted(CSRC.rglob("*.h")), *sorted(HERE.glob("*.h")))
    name = f"mortal-{digest(repr(command).encode(), files=(*sources, *headers))}"
    return make(ROOT / "build" / "mortal" / name, command)
