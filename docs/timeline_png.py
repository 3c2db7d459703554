"""Makes docs/timeline.png: a timeline of pylocks trace in the viewer of chrome://tracing.

    python docs/timeline_png.py                  # of three processes that share two locks
    python docs/timeline_png.py timeline.json    # of a file that there is

Needs Chromium and the viewer's page (Debian: golang-1.19-src, or another version); tests/support/viewer.py
looks for both.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

from support import viewer  # noqa: E402

WIDTH, HEIGHT = 1300, 360
PROCESSES, RECORDS = 3, 60


def work(name: str) -> None:
    """One process, until it is killed: takes an order, and now and then something from stock with it."""
    import pylocks

    with pylocks.Domain(name) as domain:
        orders, stock = domain.lock("orders"), domain.lock("stock")
        choose = random.Random(os.getpid())
        while True:
            with orders:
                time.sleep(0.0002 * choose.random())
                if choose.random() < 0.5:
                    with stock:
                        time.sleep(0.0003 * choose.random())
            time.sleep(0.0006 * choose.random())


def record(path: Path) -> None:
    """The timeline of such processes."""
    import pylocks

    name = f"shop-{secrets.token_hex(4)}"
    domain = pylocks.Domain(name)
    environment = {**os.environ, "PYLOCKS_OPS": "lock_event=trace,lock_spinning=futex"}
    command = [sys.executable, str(Path(__file__).resolve()), "--work", name]
    started = [subprocess.Popen(command, env=environment) for _ in range(PROCESSES)]
    try:
        while len(domain.vcpus()) < PROCESSES:
            time.sleep(0.1)
        trace = [sys.executable, "-m", "pylocks", "trace", name]
        trace += ["--seconds", "5", "--records", str(RECORDS), "--perfetto", str(path)]
        subprocess.run(trace, cwd=HERE.parent, check=True)
    finally:
        for process in started:
            process.send_signal(signal.SIGKILL)
            process.wait()
        domain.unlink()


def main() -> None:
    """The command line."""
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2])
    if viewer.missing():
        sys.exit(f"docs/timeline_png.py: {viewer.missing()}")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(sys.argv[1]) if sys.argv[1:] else Path(scratch, "timeline.json")
        if not sys.argv[1:]:
            record(path)
        viewer.shoot(path, HERE / "timeline.png", WIDTH, HEIGHT)


if __name__ == "__main__":
    main()
