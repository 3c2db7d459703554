"""`python -m torture`: every configuration, every path, every instruction; a table; a verdict."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from compiling import CompilerError

from torture.harness import (
    BREAKAGES,
    CannotRun,
    Configuration,
    Finding,
    Result,
    build,
    configurations,
    run,
    why_not,
)

HEADINGS = ("configuration", "path", "instructions", "kills", "missed", "hangs", "violations", "s")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="torture",
        description="Kill a process at every instruction of every path through the lock, with others"
        " waiting, and verify that they get on.  Exit status 1 if anything was found.",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    parser.add_argument("--paths", default="", metavar="A,B", help="these alone")
    parser.add_argument("--configurations", default="", metavar="TEXT", help="those whose names contain it")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="about N points of each path")
    parser.add_argument("--patience", type=float, default=15, metavar="S", help="then somebody is stuck")
    parser.add_argument("--break", dest="broken", choices=BREAKAGES, help="spoil this, to see it found")
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="configurations side by side")
    return parser.parse_args()


def all_results(given: argparse.Namespace, chosen: list[Configuration]) -> list[Result]:
    """Of each configuration, in order, each printed as soon as it and those before it are there."""
    cpus = sorted(os.sched_getaffinity(0))
    # Most of the time they wait for a watchdog, so two go well on one CPU.
    jobs = given.jobs or min(len(chosen), 2 * len(cpus))
    paths = list(filter(None, given.paths.split(",")))
    harness = build()
    results = []
    with ThreadPoolExecutor(jobs) as pool:
        pending = [
            pool.submit(
                run, configuration, paths=paths, sample=given.sample, patience=given.patience,
                cpu=cpus[number % len(cpus)], harness=harness, broken=given.broken,
            )
            for number, configuration in enumerate(chosen)
        ]  # fmt: skip
        for future in pending:
            result = future.result()
            print_rows(result)
            results.append(result)
    return results


def line(cells: tuple[object, ...]) -> str:
    widths = (34, 20, 12, 8, 7, 6, 11, 7)
    texts = [f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells]
    left = [text.ljust(width) for text, width in zip(texts[:2], widths[:2], strict=True)]
    return " ".join(
        left + [text.rjust(width) for text, width in zip(texts[2:], widths[2:], strict=True)]
    ).rstrip()


def print_rows(result: Result) -> None:
    name = result.configuration.name
    for path in result.paths:
        print(line((name, path.name, path.addresses, path.kills, path.missed, path.hangs, path.violations,
                    path.seconds)))  # fmt: skip
    for finding in result.findings:
        print_finding(finding)
    sys.stdout.flush()


def print_finding(finding: Finding) -> None:
    asleep = ", asleep in it" if finding.asleep else ""
    print(f"  {finding.kind} in {finding.path}, killed at {finding.where} ({finding.nth}{asleep}):"
          f" {finding.problem}")  # fmt: skip
    for state in finding.state:
        print(f"    {state}")


def total(results: list[Result]) -> dict[str, int]:
    """Sums over all configurations; `instructions` are distinct ones of a configuration's path."""
    rows = [path for result in results for path in result.paths]
    return {
        "instructions": sum(path.addresses for path in rows),
        "kills": sum(path.kills for path in rows),
        "missed": sum(path.missed for path in rows),
        "hangs": sum(path.hangs for path in rows),
        "violations": sum(path.violations for path in rows),
    }


def main() -> int:
    given = options()
    try:
        reason = why_not()
    except CompilerError as error:
        reason = str(error)
    if reason:
        print(f"torture: {reason}", file=sys.stderr)
        return 2
    chosen = [found for found in configurations() if given.configurations in found.name]
    if not chosen:
        print(f"torture: no configuration's name contains {given.configurations!r}", file=sys.stderr)
        return 2
    began = time.monotonic()
    print(line(HEADINGS))
    try:
        results = all_results(given, chosen)
    except (CannotRun, CompilerError) as error:
        print(f"torture: {error}", file=sys.stderr)
        return 2
    seconds = time.monotonic() - began
    sums = total(results)
    print(line(("total", f"{len(chosen)} configurations", *sums.values(), seconds)))
    failed = any(result.failed for result in results)
    print("verdict: " + ("FAILED" if failed else "nothing stuck, nothing lost"))
    if given.json is not None:
        document = {"total": sums, "seconds": seconds, "failed": failed,
                    "results": [asdict(result) for result in results]}  # fmt: skip
        given.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
