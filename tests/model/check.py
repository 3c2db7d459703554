"""Checks the models in this directory with spin, and that spin misses each step that is left out on purpose.

`python -m model` runs everything and prints a table; the tests take QUICK and a few of the mutations.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEPTH = 10_000
WIDEST = 80
"""Characters of an error that the table shows."""
MISSING = {
    "spin": "spin, the model checker, is not installed (Debian and Ubuntu: apt install spin)",
    "cc": "no C compiler: spin's verifiers are C programs (Debian and Ubuntu: apt install gcc)",
}


@dataclass(frozen=True)
class Model:
    """A file with its macros, and what spin is to find."""

    file: str
    macros: str = ""
    """NAME=VALUE or NAME, separated by blanks."""
    endless: bool = False
    """Look for runs that never end, and for nothing else."""
    broken: str = ""
    """The step that is left out, without BREAK_; spin has to find an error."""
    memory: int = 900
    """MiB that the search may take at most; two run side by side."""
    large: bool = False
    """Worth compiling with optimisation, which takes longer than a small search."""

    def __str__(self) -> str:
        words = (self.file, self.macros, "without end?" if self.endless else "")
        name = " ".join(word for word in words if word)
        return f"{self.broken}: {name}" if self.broken else name


@dataclass(frozen=True)
class Result:
    states: int
    transitions: int
    depth: int
    seconds: float
    complete: bool
    error: str
    """What spin found; empty: nothing."""

    def as_expected(self, model: Model) -> bool:
        return bool(self.error) if model.broken else self.complete and not self.error


LEFTOVER = "N=2 DEATHS=1 MORTALS=1 ROUNDS_0=2 ROUNDS_1=2 GIVES_UP_0=1 RECOVERER_DEATHS=1"
"""One dies at leaving, and who recovers it after putting up a tombstone too late."""
COMES_BACK = "N=2 DEATHS=1 MORTALS=1 ROUNDS_1=3 GIVES_UP_1=2"
"""One dies around its xadd while another leaves and comes back."""
KICKER_DIES = "N=3 DEATHS=1 MORTALS=4 AHEAD=1"
"""The last in line, perhaps at waking the one before it early."""
HANDSHAKE = "ARMS=0 SPINS=0"
"""The holder of the queue is never left to the clock."""
BARGED = "MEMBARRIER=0 EARLY=0"
LEAVES = BARGED + " GIVES_UP_1=1"
TAKEN_OVER = "DEATHS=1 SUCCESSOR=1"
"""The service dies, and another begins."""

QUICK = (
    Model("queue.pml", "N=2 ROUNDS=2 GIVES_UP_0=1 GIVES_UP_1=1 TRIES=1"),
    Model("queue.pml", "N=3 GIVES_UP_1=1"),
    Model("queue.pml", "N=3 CHANNELS=1"),
    Model("queue.pml", "N=3 MEMBARRIER=0"),
    Model("queue.pml", "N=3 AHEAD=1"),
    Model("recovery.pml", "N=2 DEATHS=1 RECOVERER_DEATHS=1"),
    Model("recovery.pml", "N=2 DEATHS=2 MEMBARRIER=0"),
    Model("recovery.pml", COMES_BACK),
    Model("recovery.pml", "N=2 DEATHS=1 RECOVERERS=2 REBORN=1"),
    Model("recovery.pml", "N=2 DEATHS=1 LOOKS=1"),
    Model("bounded.pml", HANDSHAKE),
    Model("bounded.pml", BARGED),
    Model("hosted.pml", "LEAVES=1"),
    Model("hosted.pml", "LEAVES=1 SUCCESSOR=1"),
    Model("hosted.pml", TAKEN_OVER),
    Model("slots.pml"),
    Model("sync.pml", "N=3"),
    Model("sync.pml", "N=3 PERMITS=2"),
    Model("parked.pml", "PARKS=1"),
)

LONG = tuple(
    Model(file, macros, large=True)
    for file, macros in (
        ("recovery.pml", "N=3 DEATHS=1 MORTALS=1 RECOVERER_DEATHS=1 MEMBARRIER=0"),
        ("recovery.pml", "N=3 DEATHS=2 MORTALS=3"),
        ("recovery.pml", "N=3 DEATHS=1 MORTALS=2 ROUNDS_0=2"),
        ("tombs.pml", ""),
        ("sync.pml", "N=3 PERMITS=2 TAKES=2"),
        ("recovery.pml", "N=2 DEATHS=2 RECOVERER_DEATHS=1 GIVES_UP_0=1 GIVES_UP_1=1 REBORN=1 TRIES=1"),
        ("queue.pml", "N=3 ROUNDS=2 ROUNDS_0=1 GIVES_UP_1=1 GIVES_UP_2=1 MEMBARRIER=0"),
        ("queue.pml", "N=3 ROUNDS=2 ROUNDS_0=1 GIVES_UP_1=1"),
        ("queue.pml", "N=3 ROUNDS=2"),
        ("queue.pml", "N=3 GIVES_UP_1=1 WATCH=1"),
        ("queue.pml", "N=3 AHEAD=1 CHANNELS=1"),
        ("recovery.pml", KICKER_DIES),
        ("bounded.pml", LEAVES + " SPINS=0 DEATHS=1 MORTALS=3"),
        ("bounded.pml", BARGED + " DEATHS=1"),
        ("bounded.pml", "MEMBARRIER=0 GIVES_UP_1=1 GIVES_UP_2=1"),
        ("bounded.pml", BARGED + " ROUNDS_0=2"),
        ("bounded.pml", ""),
        ("recovery.pml", COMES_BACK + " RECOVERER_DEATHS=1"),
        ("recovery.pml", LEFTOVER),
        ("recovery.pml", "N=2 DEATHS=1 MORTALS=1 LOOKS=1 ROUNDS_0=2"),
        ("parked.pml", ""),
    )
)

ENDLESS = (
    Model("queue.pml", "N=3", endless=True),
    Model("queue.pml", "N=3 AHEAD=1", endless=True),
    Model("queue.pml", "N=3 GIVES_UP_1=1 GIVES_UP_2=1", endless=True),
    Model("recovery.pml", "N=2 DEATHS=1 RECOVERER_DEATHS=1", endless=True),
    Model("recovery.pml", COMES_BACK, endless=True),
)
"""No run of these goes on for ever: since none can get stuck either, all finish."""


def broken(file: str, macros: str, *steps: str) -> tuple[Model, ...]:
    return tuple(Model(file, macros, broken=step) for step in steps)


MUTATIONS = (
    *broken("queue.pml", "N=3", "K1_FENCE", "K1_RECHECK", "K1_SEQ", "K1_PUBLISH", "K1_SERVE_FENCE"),
    *broken("queue.pml", "N=3 MEMBARRIER=0", "UNLOCK_BARRIER"),
    *broken("queue.pml", "N=3 CHANNELS=1", "PARKED_CLEARED"),
    *broken("queue.pml", "N=2 GIVES_UP_1=1", "K2_SLOW", "K2_FENCE", "K2_RELOOK"),
    *broken("queue.pml", "N=3 ROUNDS=2 ROUNDS_0=1 GIVES_UP_1=1", "PASSING"),
    *broken("queue.pml", "N=3", "S1_RELOOK"),
    *broken("queue.pml", "N=3 AHEAD=1", "K1_UNKICKED", "K1_UNKICKED_LATE", "K1_BUMP"),
    *broken("queue.pml", "N=3 AHEAD=1 CHANNELS=1", "K1_UNKICKED_EARLY"),
    *broken("recovery.pml", KICKER_DIES, "K1_AGAIN"),
    *broken("recovery.pml", "N=2 DEATHS=1", "K2_RECOVERER", "OWNER_LATE", "D2_FLAG", "D2_FLAG_LATE"),
    *broken("recovery.pml", "N=2 DEATHS=1", "D1_SERVED_AT_ONCE", "D3_FREE_FIRST"),
    *broken("recovery.pml", "N=2 DEATHS=1 RECOVERER_DEATHS=1", "D1_HALF_DONE"),
    *broken("recovery.pml", COMES_BACK, "D1_OWNER_FIRST", "D1_SECOND_LOOK", "D1_VERSION", "D1_CLAIM_LATE"),
    *broken("recovery.pml", LEFTOVER, "K2_LEFTOVER"),
    *broken("recovery.pml", "N=2 DEATHS=1 MORTALS=1 LOOKS=1 ROUNDS_0=2", "D2_STATE_LAST"),
    *broken("recovery.pml", "N=2 DEATHS=1 RECOVERERS=2 REBORN=1", "D3_GUARD"),
    *broken("bounded.pml", HANDSHAKE, "B1_LOOK", "B1_SLOW", "S1_QUEUE"),
    *broken("bounded.pml", BARGED, "B1_FENCE", "B1_ARM", "B1_UNARMED", "B1_DISARM", "B1_SPINNER"),
    *broken("bounded.pml", LEAVES, "B1_DISARM_LOOK", "B1_WAKE", "B1_TOMBS"),
    *broken("sync.pml", "N=3 TAKES=2", "Y1_STEP", "Y1_GIVE", "Y1_BACK"),
    *broken("hosted.pml", "", "H1_OVERWRITE", "H1_BELL_LATE"),
    *broken("hosted.pml", "LEAVES=1", "H1_LOOK", "H1_LAST_LOOK"),
    *broken("hosted.pml", "LEAVES=1 SUCCESSOR=1", "H1_GUARD"),
    *broken("hosted.pml", TAKEN_OVER, "H1_CLEARED_FIRST", "H1_TAKEOVER"),
    *broken("slots.pml", "", "D1_NEST", "D1_SHIFTS", "D1_SHIFTS_EARLY", "D1_SHIFTS_LATE"),
    *broken("parked.pml", "", "D4_CHANNEL_LATE", "D4_CHANNEL_EARLY", "D4_ENTRIES"),
    *broken("tombs.pml", "", "D4_UNFLAGGED", "D4_FIRST_LOOK", "D4_SECOND_LOOK"),
    *broken("tombs.pml", "", "D4_VERSION", "D4_VERSION_FIRST"),
)

LONG_MUTATIONS = (Model("recovery.pml", "N=3 DEATHS=1 MORTALS=2 ROUNDS_0=2", broken="D2_SLOW", large=True),)

LARGEST_MUTATIONS = (
    Model("queue.pml", "N=4 ROUNDS_0=2 GIVES_UP_1=1", broken="K2_ARMS", large=True, memory=4000),
)
"""Takes minutes and gigabytes."""


def missing() -> str:
    """Which tool is not here, and how to get it; empty: none."""
    return next((text for tool, text in MISSING.items() if shutil.which(tool) is None), "")


def run(command: Sequence[str], where: Path) -> str:
    done = subprocess.run(
        command,
        cwd=where,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0 and command[0] != "./pan":
        raise RuntimeError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stdout}")
    return done.stdout


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def check(model: Model) -> Result:
    """One exhaustive search, up to the first error.  RuntimeError: spin or the compiler refused the model."""
    macros = [f"-D{macro}" for macro in model.macros.split()]
    if model.broken:
        macros.append(f"-DBREAK_{model.broken}")
    kind = "-DNP" if model.endless else "-DSAFETY"
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pylocks-model-") as name:
        where = Path(name)
        for path in HERE.glob("*.pml"):
            shutil.copy(path, where)
        run(["spin", "-a", *macros, model.file], where)
        flags = [kind, f"-DMEMLIM={model.memory}", "-DCOLLAPSE", "-DNOFAIR", "-DVECTORSZ=512", "-w"]
        run(["cc", "-O2" if model.large else "-O0", *flags, "-o", "pan", "pan.c"], where)
        text = run(["./pan", "-n", f"-m{DEPTH}", *(["-l"] if model.endless else [])], where)
    error = re.search(r"^pan:1: (.*)$", text, re.MULTILINE)
    errors = number(r"errors: (\d+)", text)
    return Result(
        states=number(r"^\s*([\d.e+]+) states, stored", text),
        transitions=number(r"^\s*([\d.e+]+) transitions", text),
        depth=number(r"depth reached (\d+)", text),
        seconds=time.monotonic() - began,
        complete="errors: 0" in text and "not completed" not in text and "max search depth" not in text,
        error=error[1] if error else f"{errors} errors" if errors else "",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="only the models and mutations that take seconds"
    )
    parser.add_argument("--largest", action="store_true", help="also what takes minutes and gigabytes")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="searches side by side")
    options = parser.parse_args(arguments)
    lacks = missing()
    if lacks:
        print(f"make model: {lacks}", file=sys.stderr)
        return 2
    models = QUICK if options.quick else (*LONG, *QUICK, *ENDLESS)
    mutations = (
        *(LARGEST_MUTATIONS if options.largest else ()),
        *(() if options.quick else LONG_MUTATIONS),
        *MUTATIONS,
    )
    began = time.monotonic()
    failed = states = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        print(f"{'states':>12} {'transitions':>12} {'depth':>6} {'s':>6}  model")
        for model, result in zip(models, pool.map(check, models), strict=True):
            verdict = (
                "ok" if result.as_expected(model) else f"FAILED: {result.error or 'search not complete'}"
            )
            failed += not result.as_expected(model)
            states += result.states
            figures = (
                f"{result.states:>12,} {result.transitions:>12,} {result.depth:>6} {result.seconds:>6.1f}"
            )
            print(f"{figures}  {model}: {verdict}", flush=True)
        print(f"\n{'states':>12} {'s':>6}  step broken on purpose, and what is found")
        for model, result in zip(mutations, pool.map(check, mutations), strict=True):
            failed += not result.as_expected(model)
            found = re.sub(r" \(at depth \d+\)", "", result.error)[:WIDEST] or "NOTHING: the model misses it"
            print(f"{result.states:>12,} {result.seconds:>6.1f}  {model.broken}: {found}", flush=True)
    seconds = time.monotonic() - began
    print(
        f"\n{len(models)} models, {states:,} states; {len(mutations)} mutations; {seconds:.0f} s: "
        + (f"{failed} not as expected" if failed else "all as expected")
    )
    return 1 if failed else 0
