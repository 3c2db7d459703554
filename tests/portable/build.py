"""Compiles the core and the suite for a processor or C library, and runs it there."""

from __future__ import annotations

import functools
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from compiling import CompilerError, compiler, core_sources, digest, make, run

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CSRC = ROOT / "csrc"
CACHE = ROOT / "build" / "portable"

FLAGS = (
    "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-fvisibility=hidden", "-pthread",
    "-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Werror",
)  # fmt: skip
PATIENCE_S = 600


@dataclass(frozen=True)
class Target:
    """Where the suite is to run."""

    name: str
    command: tuple[str, ...]
    """What compiles for it."""
    runner: tuple[str, ...] = ()
    """What runs its programs here; empty: they run by themselves."""
    advice: str = ""
    """How to come by these two."""


def _kernel_headers() -> tuple[str, ...]:
    """musl-gcc leaves out the system's headers, those of the kernel among them; behind musl's own."""
    try:
        multiarch = run([*compiler(), "-print-multiarch"]).strip()
    except CompilerError:
        multiarch = ""
    return ("-idirafter", "/usr/include", "-idirafter", f"/usr/include/{multiarch}")


def targets() -> dict[str, Target]:
    """All that the suite can be built for, by name."""
    found = (
        Target("native", tuple(compiler())),
        Target(
            "aarch64",
            ("aarch64-linux-gnu-gcc", "-static"),  # so that it needs no library of that processor's
            ("qemu-aarch64",),
            "Debian and Ubuntu: apt install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user",
        ),
        Target("musl", ("musl-gcc", *_kernel_headers()), (), "Debian and Ubuntu: apt install musl-tools"),
    )
    return {target.name: target for target in found}


@functools.cache
def why_not(target: Target) -> str:
    """Why programs for the target can't be made or run here; "" if they can."""
    with tempfile.TemporaryDirectory() as scratch:
        source, made = Path(scratch, "try.c"), Path(scratch, "try")
        source.write_text("#include <linux/futex.h>\n#include <pthread.h>\nint main(void) { return 0; }\n")
        try:
            run([*target.command, "-pthread", str(source), "-o", str(made)])
            run([*target.runner, str(made)])
        except CompilerError as error:
            advice = f" ({target.advice})" if target.advice else ""
            return f"no program for {target.name} can be made and run here: {str(error).strip()}{advice}"
    return ""


def program(target: Target, csrc: Path = CSRC) -> Path:
    """The suite, compiled with the core in that folder; CompilerError."""
    sources = core_sources(csrc)
    sources += sorted(HERE.glob("*.c"))
    command = [*target.command, *FLAGS, f"-I{csrc / 'include'}", f"-I{csrc}", *map(str, sources)]
    inputs = [*sources, *sorted(csrc.rglob("*.h")), *sorted(HERE.glob("*.h"))]
    made = CACHE / f"suite-{target.name}-{digest(repr(command).encode(), files=inputs)}"
    return make(made, command)


def suite(target: Target, csrc: Path = CSRC) -> subprocess.CompletedProcess[str]:
    """Run all checks; CompilerError, subprocess.TimeoutExpired."""
    return subprocess.run(
        [*target.runner, program(target, csrc)], capture_output=True, text=True, timeout=PATIENCE_S
    )
