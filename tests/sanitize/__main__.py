"""python -m sanitize fuzz|tsan: what `make fuzz` and `make tsan` run.

fuzz: one process per CPU, each with a seed of its own.  An input that fails is kept in build/sanitize
and can be run again: --replay FILE.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from compiling import CompilerError

from sanitize import build


def fuzz(arguments: argparse.Namespace) -> int:
    """Run the fuzzer; the exit status of the first of its processes that failed."""
    program = build.program(build.FUZZ)
    if arguments.replay:
        return subprocess.run([program, "--replay", arguments.replay]).returncode
    count = arguments.jobs or os.cpu_count() or 1
    each = -(-arguments.executions // count)
    settings = ["--executions", str(each), "--save", str(build.CACHE)]
    print(f"fuzz: {arguments.executions} executions from seed {arguments.seed}, in {count} processes")
    began = time.monotonic()
    running = [
        subprocess.Popen([program, "--seed", str(arguments.seed + number), *settings])
        for number in range(count)
    ]
    failed = [process.wait() for process in running]
    status = next((code for code in failed if code), 0)
    took = time.monotonic() - began
    if status == 0:
        print(f"fuzz: {each * count} executions in {took:.0f} s, nothing found")
    else:
        print("fuzz: failed; again, with all that happens: make fuzz ARGS='--replay FILE'")
    return status


def tsan(arguments: argparse.Namespace) -> int:
    """Run the threaded program in each of its ways; nonzero if a race was reported."""
    program = build.program(build.TSAN)
    for way in ("futex", "yield", "native"):
        code = subprocess.run([program, way, str(arguments.seconds)], env=build.tsan_environment()).returncode
        if code:
            return code
    return 0


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m sanitize", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    part = commands.add_parser("fuzz")
    part.add_argument("--executions", type=int, default=1_000_000)
    part.add_argument("--seed", type=int, default=1)
    part.add_argument("--jobs", type=int, default=0, help="processes; 0: one a CPU")
    part.add_argument("--replay", metavar="FILE", help="an input that failed")
    part = commands.add_parser("tsan")
    part.add_argument("--seconds", type=float, default=20.0, help="for each way of waiting")
    arguments = parser.parse_args()
    try:
        return fuzz(arguments) if arguments.command == "fuzz" else tsan(arguments)
    except CompilerError as error:
        print(f"sanitize: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
