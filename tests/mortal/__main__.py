"""python -m mortal [--points N] [PATH ...]: all paths, at every instruction, or at so many of each."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mortal.build import build, why_not


def main() -> int:
    parser = argparse.ArgumentParser(prog="mortal", description=__doc__)
    parser.add_argument("paths", nargs="*", metavar="PATH")
    parser.add_argument("--points", type=int, default=0, help="kill at so many instructions of each path")
    asked = parser.parse_args()
    reason = why_not()
    if reason:
        print(reason)
        return 2
    program = build()
    paths = (
        asked.paths or subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    )
    failed = 0
    for path in paths:
        failed |= subprocess.run([program, path, str(asked.points)]).returncode
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
