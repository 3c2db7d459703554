"""Runs the rows one after another, each in a process of its own, and collects the results."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from types import FrameType
from typing import Any

from . import host
from .chaos.plan import ChaosPlan
from .options import Options
from .progress import Progress
from .results import ROW_FAILED, SCHEMA, Row, tally, verdict, warnings
from .row import Plan
from .shared import loops_per_ns
from .subjects import Subject, environment

#: The row's interpreter looks for modules where this one does, wherever we were started.
ROW = "import sys; sys.path[:] = sys.argv[1:]; from pylocks.stress.{module} import main; sys.exit(main())"
SILENCE = 30.0  #: seconds without a line after which a row's process counts as stuck
POLL = 0.1  #: seconds between two looks at a silent process
LAST_WORDS = 2.0  #: seconds a stuck row's process has to say where it is
FAREWELL = 10.0  #: seconds a row's process has to end after its last line


class Silence(Exception):
    """The process of a row lives and says nothing."""


class Interrupts:
    """Ctrl-C as a wish while the rows run: the first cuts the run short, a second one ends it at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Interrupts:
        self._before = signal.getsignal(signal.SIGINT)
        # Whoever started us with SIGINT ignored meant it.
        if self._before is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def run(options: Options, progress: Progress) -> dict[str, Any]:
    """Run all rows; the result is what --json writes.

    ``interrupted`` in it tells that Ctrl-C cut the run short.
    """
    from pylocks import __version__

    planned = options.plan()
    speed = loops_per_ns()
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "pylocks": __version__,
        "host": host.describe(),
        "seed": options.seed,
        "options": options.to_json(),
        "loops_per_ns": speed,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    rows: list[Row] = []
    with Interrupts() as interrupts, progress:
        for subject, factor, processes in planned:
            plan = make_plan(options, subject, factor, processes, speed)
            progress.begin(plan, subject)
            row = run_row(plan, subject, progress, lambda: interrupts.asked)
            progress.end(row)
            rows.append(row)
            if interrupts.asked:
                break
    result["rows"] = rows
    result["verdict"] = verdict(rows, len(planned))
    result["violations_by_kind"] = tally(rows)
    result["violations"] = sum(result["violations_by_kind"].values())
    result["warnings"] = warnings(rows, len(result["host"]["affinity"]))
    result["interrupted"] = interrupts.asked
    return result


def make_plan(options: Options, subject: Subject, factor: float, processes: int, speed: float) -> Plan:
    """What a row is asked to do; ``speed``: turns of work a nanosecond."""
    common: dict[str, Any] = {
        "parent": os.getpid(),
        "slow_path": subject.name,
        "policy": options.policy,
        "overcommit": factor,
        "processes": processes,
        "locks": options.locks,
        "seconds": options.seconds,
        "acquisitions": options.acquisitions,
        "cs_ns": options.cs_ns,
        "outside_ns": options.outside_ns,
        "cs_loops": round(options.cs_ns * speed),
        "outside_loops": round(options.outside_ns * speed),
        "seed": options.seed,
    }
    return ChaosPlan(**common, kills=options.kills) if options.chaos else Plan(**common)


def run_row(plan: Plan, subject: Subject, progress: Progress, interrupted: Callable[[], bool]) -> Row:
    """Run one row in a fresh interpreter: ops are patched once in the life of a process."""
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [sys.executable, "-c", ROW.format(module=plan.module), *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=environment(subject, os.environ),
            start_new_session=True,  # the terminal's Ctrl-C reaches us alone
        )
        row, stuck = None, False
        try:
            row = _follow(process, plan, progress, interrupted)
            process.wait(FAREWELL)
        except (Silence, subprocess.TimeoutExpired):
            process.send_signal(signal.SIGUSR1)  # it is to say where it is
            time.sleep(LAST_WORDS)
            stuck = True
        finally:
            # Its workers are told of its death by the kernel, and follow.
            process.kill()
            process.wait()
            _close(process)
        if row is not None and process.returncode == 0:
            return row
        complaints.seek(0)
        said = complaints.read().decode(errors="replace").strip()
    how = "got stuck and was killed" if stuck else f"ended with status {process.returncode}"
    return _failed(plan, subject, said if said and not stuck else f"{said}\nits process {how}".strip())


def _follow(
    process: subprocess.Popen[bytes], plan: Plan, progress: Progress, interrupted: Callable[[], bool]
) -> Row | None:
    assert process.stdin is not None
    told = False
    try:
        process.stdin.write(plan.to_json().encode() + b"\n")
        process.stdin.flush()
        for line in _lines(process):
            if line is not None and "row" in line:
                found: Row = line["row"]
                return found
            if line is not None:
                progress.update(**line["progress"])
            if interrupted() and not told:
                told = True
                process.stdin.write(b"stop\n")
                process.stdin.flush()
    except BrokenPipeError:
        pass  # it died; what it complained of tells why
    return None


def _lines(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any] | None]:
    """Each JSON line of the process; None now and then where it says nothing."""
    assert process.stdout is not None
    pending = b""
    silent = 0.0
    # Counted in our own waits: where nobody had the CPU for so long, nobody was silent.
    while silent < SILENCE:
        ready, _, _ = select.select([process.stdout], [], [], POLL)
        if not ready:
            silent += POLL
            yield None
            continue
        silent = 0.0
        piece = os.read(process.stdout.fileno(), 65536)
        if not piece:
            return
        *lines, pending = (pending + piece).split(b"\n")
        for line in lines:
            yield json.loads(line)
    raise Silence


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _failed(plan: Plan, subject: Subject, why: str) -> Row:
    """A row that has no result; it counts as a violation, because nothing was shown."""
    return {
        "slow_path": plan.slow_path,
        "label": subject.label,
        "protocol": subject.protocol,
        "policy": plan.policy,
        "overcommit": plan.overcommit,
        "processes": plan.processes,
        "locks": plan.locks,
        "seconds": 0.0,
        "ended": "failed",
        "killed": 0,
        "acquisitions": 0,
        "acquisitions_per_s": 0.0,
        "jain": None,
        "wait_ns": dict.fromkeys(("p50", "p99", "p999", "max", "mean")),
        "wait_histogram": [],
        "unfinished_waits": 0,
        "parks": None,
        "kicks": None,
        "events": None,
        "cpu_seconds": 0.0,
        "context_switches": {"voluntary": 0, "involuntary": 0},
        "per_process": [],
        "others_cpus": None,
        "stolen_share": None,
        "violations": 1,
        "violations_by_kind": {ROW_FAILED: 1},
        "findings": [{"kind": ROW_FAILED, "text": why}],
        "warnings": [],
    }
