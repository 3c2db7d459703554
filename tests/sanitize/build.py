"""Compiles the core with a sanitizer, for the C programs that lie beside this file.

The core's own sources are compiled, all but its Python half, without a change; objects and programs
are kept under a name made from everything that went into them.  Nothing but a C compiler is needed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from compiling import CompilerError, compiler, core_sources, digest, make, run

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CSRC = ROOT / "csrc"
CACHE = ROOT / "build" / "sanitize"

FLAGS = (
    "-std=gnu11", "-D_GNU_SOURCE", "-O1", "-g", "-fno-omit-frame-pointer", "-pthread",
    "-Wall", "-Wextra", "-Wshadow", "-Wstrict-prototypes", "-Werror",
    "-DPLK_TALLIED=8", "-DPLK_RINGS=2", "-DPLK_RING_RECORDS=256",  # segments of a few pages
)  # fmt: skip


@dataclass(frozen=True)
class Program:
    """A program: the core, linked with some of the C files here."""

    name: str
    sources: tuple[str, ...]
    sanitizer: tuple[str, ...]
    core_only: tuple[str, ...] = ()
    """Flags for the core's files."""
    wrapped: tuple[str, ...] = ()
    """Functions of the C library that the program replaces by its own."""


# Clang does not know the warning by this name, nor minds an unknown one that is switched off.
NO_FENCE_WARNING = ("-Wno-tsan", "-Wno-unknown-warning-option")

FUZZ = Program(
    "fuzz",
    (
        "fuzz.c", "world.c", "mutexes.c", "shapes.c", "fields.c", "mutate.c",
        "results.c", "looks.c", "waits.c", "syncs.c", "targets.c",
    ),
    ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    core_only=("-fsanitize-coverage=trace-pc",),
    wrapped=(
        "mmap", "munmap", "madvise", "posix_fallocate", "fstat", "pread", "fopen", "syscall",
        "clock_gettime", "clock_nanosleep", "sched_yield", "sched_getcpu", "pthread_mutex_lock",
        "pthread_mutex_timedlock", "pthread_mutex_trylock", "pthread_mutex_unlock",
    ),
)  # fmt: skip

# Of fences the thread sanitizer knows nothing, about which GCC warns.
TSAN = Program(
    "tsan",
    ("tsan.c",),
    ("-fsanitize=thread", *NO_FENCE_WARNING),
    core_only=("-Dpthread_key_create=core_key_create",),
)

SUPPRESSED = "race:plk_robust_init\n"
"""The C library initialises a life word by plain stores while others look whether it is locked; until
it is, they may see what they like: the slot is not ONLINE."""


def tsan_environment() -> dict[str, str]:
    """What the thread sanitizer has to be told.

    A life word is locked for as long as its thread lives, the guard is before and meanwhile: they have
    no order (detect_deadlocks).  Life words of dead threads are initialised again while they are locked
    (report_mutex_bugs).
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    path = CACHE / f"tsan-{digest(SUPPRESSED.encode())}.suppressions"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            draft = Path(scratch, path.name)
            draft.write_text(SUPPRESSED)
            draft.replace(path)
    options = f"halt_on_error=1:exitcode=66:detect_deadlocks=0:report_mutex_bugs=0:suppressions={path}"
    return os.environ | {"TSAN_OPTIONS": options}


@dataclass(frozen=True)
class Plant:
    """A fault put into a file of the core, to prove that it would be found."""

    path: str
    old: str
    new: str


@functools.cache
def why_not(sanitizer: tuple[str, ...]) -> str:
    """Why programs with this sanitizer can't be made or run here; "" if they can."""
    with tempfile.TemporaryDirectory() as scratch:
        source, made = Path(scratch, "try.c"), Path(scratch, "try")
        source.write_text("int main(void) { return 0; }\n")
        try:
            run([*compiler(), *sanitizer, "-pthread", str(source), "-o", str(made)])
            run([str(made)])
        except CompilerError as error:
            return f"no program with {sanitizer[0]} can be made and run here: {error}"
    return ""


def program(what: Program, plants: tuple[Plant, ...] = ()) -> Path:
    """The compiled program, with these faults planted; CompilerError."""
    CACHE.mkdir(parents=True, exist_ok=True)
    common = (*compiler(), *FLAGS, *what.sanitizer, f"-I{_public(plants)}", f"-I{CSRC}")
    headers = digest(repr(common).encode(), files=_headers())
    jobs = []
    for path in core_sources():
        name = path.relative_to(CSRC).as_posix()
        jobs.append((path, _planted(path, name, plants), (*common, *what.core_only)))
    jobs += [(HERE / source, (HERE / source).read_text(), common) for source in what.sources]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda job: _object(*job, headers), jobs))
    wraps = [f"-Wl,--wrap={function}" for function in what.wrapped]
    made = CACHE / f"{what.name}-{digest(repr((common, wraps, objects)).encode())}"
    return make(made, [*common, *wraps, *map(str, objects)])


def _public(plants: tuple[Plant, ...]) -> Path:
    """The public headers, or a copy of them in which something is planted."""
    include = CSRC / "include"
    planted = {
        path.relative_to(include): _planted(path, path.relative_to(CSRC).as_posix(), plants)
        for path in include.rglob("*.h")
    }
    if all(text == (include / path).read_text() for path, text in planted.items()):
        return include
    made = CACHE / f"include-{digest(repr(sorted(planted.items())).encode())}"
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            draft = Path(scratch, "include")
            for path, text in planted.items():
                (draft / path).parent.mkdir(parents=True, exist_ok=True)
                (draft / path).write_text(text)
            with contextlib.suppress(OSError):  # somebody was quicker
                draft.replace(made)
    return made


def _headers() -> list[Path]:
    return sorted([*CSRC.rglob("*.h"), *HERE.glob("*.h")])


def _planted(path: Path, name: str, plants: tuple[Plant, ...]) -> str:
    text = path.read_text()
    for plant in plants:
        if plant.path == name:
            if text.count(plant.old) != 1:
                raise CompilerError(f"{name} does not have what is to be replaced once: {plant.old!r}")
            text = text.replace(plant.old, plant.new)
    return text


def _object(path: Path, text: str, command: tuple[str, ...], headers: str) -> Path:
    made = CACHE / f"{path.stem}-{digest(headers.encode(), repr(command).encode(), text.encode())}.o"
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            source = Path(scratch, path.name)
            source.write_text(f'#line 1 "{path.relative_to(ROOT)}"\n{text}')
            make(made, [*command, f"-I{path.parent}", "-c", str(source)])
    return made
