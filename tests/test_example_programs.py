"""The programs under examples/: what they print is right, Ctrl-C ends them, and deaths are repaired."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from support import run
from support.wait import PATIENCE_S, until

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
if not EXAMPLES.is_dir():  # pragma: no cover
    pytest.skip("these tests read the source tree", allow_module_level=True)

LONGEST = 150
"""Lines that somebody reads who wants to learn from them."""
ENDLESS = {  # program -> arguments with which it works until Ctrl-C, its exit status then, and its workers
    "rate_limiter.py": (["--workers", "3"], 0, 3),
    "ring_buffer.py": (["--messages", "1000000000"], 130, 4),
    "work_queue.py": (["--jobs", "1000000", "--kills", "0"], 130, 4),
}


def example(name: str, *arguments: str) -> str:
    """What it prints if it succeeds, and nobody is left."""
    return run.python(EXAMPLES / name, *arguments).check()


def with_example(name: str, script: str) -> str:
    """What a script prints in which the example is a module."""
    return run.python(
        "-c", f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); from {name} import *\n{script}"
    ).check()


@pytest.mark.parametrize("name", ENDLESS)
def test_they_are_short(name: str) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("name", ENDLESS)
def test_they_say_what_they_are_for(name: str) -> None:
    assert "usage" in example(name, "--help")


def test_the_rate_limit_holds_for_all_workers_together() -> None:
    said = example("rate_limiter.py", "--measure", "1", "--rate", "40", "--burst", "7")
    found = re.search(r"(\d+) requests in [\d.]+ s: (\d+) let through, (\d+) allowed", said)
    assert found, said
    asked, passed, allowed = map(int, found.groups())
    assert min(asked, 7) <= passed <= allowed


def test_what_a_dead_worker_left_in_the_bucket_counts_for_nothing() -> None:
    script = (
        "import pylocks\n"
        "bucket = Bucket(rate=1e-9, burst=3)\n"
        "if (child := os.fork()) == 0:\n"
        "    bucket.lock.acquire()\n"
        "    bucket.state[:] = 1e9, 0\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "warnings.simplefilter('ignore', pylocks.OwnerDiedWarning)\n"
        "print([bucket.take() == 0 for _ in range(5)], bucket.lock.owner_died)\n"
    )
    assert with_example("rate_limiter", script) == "[True, True, True, False, False] False\n"


def test_all_messages_come_out_of_the_ring() -> None:
    assert "6000 messages in" in example("ring_buffer.py", "--messages", "3000", "--places", "8")


@pytest.mark.parametrize("places", ("1", "1000"))
def test_a_ring_of_any_size_will_do(places: str) -> None:
    arguments = ("--producers", "3", "--consumers", "1", "--messages", "300", "--places", places)
    assert "all there" in example("ring_buffer.py", *arguments)


@pytest.mark.parametrize("moment", ("ring.memory[:] = bytes(len(ring.memory))", "ring.not_empty.notify()"))
def test_who_dies_while_it_puts_has_put_nothing(moment: str) -> None:
    script = (
        "import os\n"
        "settle()\n"
        "ring = Ring(2, 8)\n"
        "if (child := os.fork()) == 0:\n"
        "    ring.lock.acquire()\n"
        f"    {moment}\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.waitpid(child, 0)\n"
        "ring.put(b'one')\n"
        "ring.put(b'two')\n"
        "ring.close()\n"
        "print(ring.get(), ring.get(), ring.get(), ring.lock.owner_died)\n"
    )
    assert with_example("ring_buffer", script) == "b'one' b'two' None False\n"


def test_every_job_gets_done_though_workers_are_killed() -> None:
    said = example("work_queue.py", "--jobs", "200", "--kills", "6")
    assert "200 of 200 jobs done" in said


def test_a_single_worker_that_is_killed_is_replaced() -> None:
    said = example("work_queue.py", "--jobs", "60", "--kills", "3", "--workers", "1")
    assert "60 of 60 jobs done" in said


def test_a_job_taken_by_the_dead_is_given_out_again() -> None:
    script = (
        "jobs, taken = Jobs(3), []\n"
        "def doomed():\n"
        "    jobs.take()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "import os, pylocks\n"
        "warnings.simplefilter('ignore', pylocks.OwnerDiedWarning)\n"
        "mine = jobs.take()\n"
        "if (child := os.fork()) == 0: doomed()\n"
        "os.waitpid(child, 0)\n"
        "if (child := os.fork()) == 0:\n"
        "    while (job := jobs.take()) not in (mine, None):\n"
        "        taken.append(job)\n"
        "        jobs.finish(job, bytes(RESULT))\n"
        "        if len(taken) == 2: break\n"
        "    print(mine, taken, flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "jobs.finish(mine, bytes(RESULT))\n"
        "print(jobs.take(), list(jobs.state))\n"
    )
    assert with_example("work_queue", script) == "0 [1, 2]\nNone [1, 1, 1]\n"


@contextmanager
def started(name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The program, with what it prints; nothing is left of it afterwards."""
    process = subprocess.Popen(
        [sys.executable, EXAMPLES / name, *arguments],
        env=run.settings(), start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield process
        assert not run.end_session(process.pid), "processes were left behind"
    finally:
        run.end_session(process.pid, grace=0)
        process.communicate()


def ignore_ctrl_c(pid: int) -> int:
    """How many descendants of a process ignore SIGINT."""
    found = 0
    for child in psutil.Process(pid).children(recursive=True):
        try:
            status = Path(f"/proc/{child.pid}/status").read_text()
        except OSError:
            continue
        ignored = re.search(r"^SigIgn:\s*([0-9a-f]+)", status, re.MULTILINE)
        found += bool(ignored and int(ignored[1], 16) >> (signal.SIGINT - 1) & 1)
    return found


@pytest.mark.parametrize("name", ENDLESS)
def test_ctrl_c_ends_them_without_a_word(name: str) -> None:
    """As a terminal sends it: to the program and all its workers."""
    arguments, status, workers = ENDLESS[name]
    with started(name, *arguments) as process:
        assert process.stdout and process.stdout.readline()  # all are started
        until(lambda: ignore_ctrl_c(process.pid) >= workers, "the workers to begin")
        os.killpg(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in said and "Warning" not in said, said
        assert process.returncode == status
