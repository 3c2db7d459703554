"""python -m portable TARGET...: what `make aarch64` and `make musl` run."""

from __future__ import annotations

import argparse
import sys

from compiling import CompilerError

from portable.build import suite, targets, why_not


def main() -> int:
    """Parse the command line, run the suite; 1 if it failed, 2 if it could not be run."""
    known = targets()
    parser = argparse.ArgumentParser(prog="python -m portable", description=__doc__)
    parser.add_argument("target", nargs="+", choices=known)
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="times, at most until one fails")
    arguments = parser.parse_args()
    for name in arguments.target:
        if reason := why_not(known[name]):
            print(f"portable: {reason}", file=sys.stderr)
            return 2
        for _ in range(arguments.repeat):
            try:
                done = suite(known[name])
            except CompilerError as error:
                print(f"portable: {error}", file=sys.stderr)
                return 2
            print(f"{name}: {done.stdout}{done.stderr}", end="", flush=True)
            if done.returncode != 0:
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
