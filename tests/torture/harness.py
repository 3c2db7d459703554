"""Builds the harness in C from the core's own sources, runs it, and reads what it found."""

from __future__ import annotations

import itertools
import platform
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import compiling
from compiling import compiler, core_sources, digest, make

from pylocks.ops import choices

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CSRC = ROOT / "csrc"
CACHE = ROOT / "build" / "torture"
"""Of the core; what the stress program adds to it is not tortured."""


BREAKAGES = ("blind", "held", "owner")
"""What can be spoilt: nobody watches over anybody; the dead's slot hides that it held anything; the
cell hides whose it was."""


class CannotRun(RuntimeError):
    """The harness could not be run here."""


@dataclass(frozen=True)
class Configuration:
    """One way in which locks can work."""

    slow: str
    """Choice of lock_spinning."""
    patched: bool
    barrier: str
    """fence or membarrier: who orders an unlock's store of head before its look at slow; or none."""
    rescue: bool = False
    """Waiters never look after the dead: one call of Domain.recover() must get all of them on."""

    @property
    def name(self) -> str:
        parts = [self.slow, "patched" if self.patched else "unpatched", self.barrier]
        parts += ["rescue"] if self.rescue else []
        return " ".join(part for part in parts if part != "none")

    def arguments(self) -> list[str]:
        given = ["--slow", self.slow]
        given += [] if self.patched else ["--unpatched"]
        given += ["--rescue"] if self.rescue else []
        return given + (["--fence"] if self.barrier == "fence" else [])


def configurations() -> list[Configuration]:
    """Every sound slow path, patched and not, with each barrier that goes with it.

    Once more with rescue where waiters look after the dead by the clock, not in every turn.
    """
    found = []
    for choice in choices("lock_spinning"):
        if not choice.sound:
            continue
        barriers = ("none",) if choice.protocol == "native" else ("membarrier", "fence")
        found += [
            Configuration(choice.name, patched, barrier)
            for barrier, patched in itertools.product(barriers, (True, False))
        ]
        if choice.protocol != "native":
            found.append(Configuration(choice.name, True, "membarrier", rescue=True))
    return found


@dataclass
class PathResult:
    """What became of one path in one configuration."""

    name: str
    instructions: int
    """Executed from its beginning to its end."""
    points: int
    """Of them, those that a run kills at; the others repeat a loop in which nothing has changed."""
    kills: int
    addresses: int
    """Distinct instructions killed at."""
    missed: int
    """Points that no run came to again."""
    hangs: int
    violations: int
    seconds: float

    @property
    def failed(self) -> bool:
        return self.hangs + self.violations + self.missed != 0


@dataclass
class Finding:
    """A kill after which something was wrong."""

    path: str
    kind: str
    """hang, violation or missed."""
    where: str
    """The instruction that was not executed any more, as function+offset."""
    nth: int
    """It would have been its nth execution."""
    asleep: bool
    problem: str
    state: list[str] = field(default_factory=list)
    """Lock words, slots, tombstones, channels and the log of acquisitions at that time."""


@dataclass
class Result:
    """One configuration."""

    configuration: Configuration
    paths: list[PathResult]
    findings: list[Finding]
    without: list[str] = field(default_factory=list)
    """Paths that do not exist in it."""

    @property
    def failed(self) -> bool:
        return (
            not (self.paths or self.without) or bool(self.findings) or any(path.failed for path in self.paths)
        )


# ---------------------------------------------------------------- building


def _flags() -> list[str]:
    """As setup.py compiles the core: Python's own flags first, then the project's."""
    sys.path.insert(0, str(CSRC))
    try:
        from flags import COMPILE_ARGS  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(CSRC))
    python = shlex.split(f"{sysconfig.get_config_var('CFLAGS')} {sysconfig.get_config_var('CCSHARED')}")
    return [*python, *COMPILE_ARGS, *NO_CLOCK, "-pthread", f"-I{CSRC / 'include'}", f"-I{CSRC}", f"-I{HERE}"]


# Of bounded locks: nothing happens because time has passed, but by the tests' own doing (bounded.c).
# And every unlock looks at the clock, and nobody lingers.
NO_CLOCK = (
    *(f"-DPLK_{name}_NS=3600000000000ull" for name in ("BOUND", "ARMED", "LATE")),
    "-DPLK_CLOCK_NS=0",
    "-DPLK_LINGER_NS=0",
)

# At fixed addresses, so that the tracer finds its victim's code in its own; without lazy binding,
# which would run between a call and its function; with the unwinder that ends threads.
LINK = ["-pthread", "-no-pie", "-Wl,-z,now", "-Wl,--no-as-needed", "-lgcc_s"]


def build() -> Path:
    """The harness, compiled; CompilerError."""
    sources = core_sources()
    sources += sorted(HERE.glob("*.c"))
    command = [*compiler(), *_flags(), *map(str, sources), *LINK]
    headers = (*sorted(CSRC.rglob("*.h")), *sorted(HERE.glob("*.h")))
    return make(CACHE / f"torture-{digest(repr(command).encode(), files=(*sources, *headers))}", command)


class Symbols:
    """Functions of the harness by address."""

    def __init__(self, harness: Path) -> None:
        found = []
        for line in compiling.run(["nm", "-n", str(harness)]).splitlines():
            address, kind, name = line.rsplit(maxsplit=2) if line[0] != " " else ("", "", "")
            if kind in ("t", "T"):
                found.append((int(address, 16), name))
        self._functions = found

    def address(self, name: str) -> int:
        """CannotRun if there is no such function."""
        for address, function in self._functions:
            if function == name:
                return address
        raise CannotRun(f"the harness has no function {name}")

    def name(self, address: int) -> str:
        """function+offset; in a shared library the address itself."""
        last = next(((start, name) for start, name in reversed(self._functions) if start <= address), None)
        if last is None or address > self._functions[-1][0] + 0x1000:
            return f"{address:#x}"
        return f"{last[1]}+{address - last[0]:#x}"


# ----------------------------------------------------------------- running


def run(
    configuration: Configuration,
    *,
    paths: Sequence[str] = (),
    sample: int = 0,
    patience: float = 15,
    cpu: int | None = None,
    harness: Path | None = None,
    broken: str | None = None,
    user: int | None = None,
) -> Result:
    """Torture one configuration; CannotRun, CompilerError.

    paths: those alone; sample: about so many points of each path instead of all; patience: seconds
    without progress until somebody counts as stuck; cpu: for the tracer and its victims; broken: one of
    BREAKAGES; user: run as this user.
    """
    harness = harness or build()
    symbols = Symbols(harness)
    command = [str(harness), *configuration.arguments(), "--patience", str(patience), "--sample", str(sample)]
    command += ["--thread-exit", hex(symbols.address("plk_thread_exit"))]
    command += ["--paths", ",".join(paths)] if paths else []
    command += ["--cpu", str(cpu)] if cpu is not None else []
    command += ["--break", broken] if broken else []
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, user=user, cwd="/"
    )
    if done.returncode not in (0, 1):
        raise CannotRun(f"{configuration.name}: exit status {done.returncode}: {done.stderr.strip()}")
    result = Result(configuration, [], [])
    for record in _records(done.stdout):
        _take(result, record, symbols)
    return result


def _records(output: str) -> Iterator[list[str]]:
    for line in output.splitlines():
        yield ["|", line[1:]] if line.startswith("|") else line.split("\t")


def _numbers(texts: list[str]) -> tuple[int, int, int, int, int, int, int]:
    instructions, points, kills, addresses, missed, hangs, violations = map(int, texts)
    return instructions, points, kills, addresses, missed, hangs, violations


def _take(result: Result, record: list[str], symbols: Symbols) -> None:
    kind, *rest = record
    if kind == "path":
        result.paths.append(PathResult(rest[0], *_numbers(rest[1:8]), float(rest[8])))
    elif kind == "without":
        result.without += rest
    elif kind == "finding":
        path, what, address, nth, asleep, problem = rest
        where = symbols.name(int(address, 0)) if int(address, 0) else "the path as a whole"
        result.findings.append(Finding(path, what, where, int(nth), asleep == "1", problem))
    elif kind == "missed":
        path, address, nth, asleep = rest
        problem = "no run came to this point again"
        where = symbols.name(int(address, 0))
        result.findings.append(Finding(path, "missed", where, int(nth), asleep == "1", problem))
    elif kind == "|" and result.findings:
        result.findings[-1].state.append(rest[0])


def why_not() -> str:
    """Why nothing can be tortured here; "" if it can.  CompilerError if that can't even be found out."""
    if platform.machine() != "x86_64":
        return f"stepping is written for x86_64, not {platform.machine()}"
    return compiling.run([str(build()), "--probe"]).strip()
