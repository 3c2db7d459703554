"""What processes do that pylocks.multiprocessing started; run, a program that looks what they see."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from typing import Any

import pylocks.multiprocessing as mp
from pylocks.multiprocessing import pipes


class Point(ctypes.Structure):
    """A structure to be shared."""

    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_int))


def die_with(lock: Any) -> None:
    """Killed while holding it, at whatever depth."""
    lock.acquire()
    os.kill(os.getpid(), signal.SIGKILL)


def count(lock: Any, value: Any, array: Any) -> float:
    """One more, under two locks; the sum of the array."""
    with lock:
        value.value += 1
    return float(sum(array))


def put_long(queue: Any, length: int) -> None:
    """One long message, and wait until it is on its way."""
    queue.put("x" * length)
    if hasattr(queue, "close"):
        queue.close()
    if hasattr(queue, "join_thread"):
        queue.join_thread()


def kill_me(_: Any = None) -> None:
    """As the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_while_writing(queue: Any) -> None:
    """Die halfway through a long message, with the lock that writers take turns with."""
    writer = queue._writer
    with queue._wlock:
        head = pipes._head.pack(writer._head, 1_000_000 | pipes.LONG) + pipes._writer.pack(*pipes._myself())
        os.write(writer.fileno(), head + b"half")
        kill_me()


def look(queue: Any, depth: int) -> None:
    """Tell what a child sees, and what a child of it sees."""
    queue.put(
        (
            mp.get_start_method(),
            multiprocessing.get_start_method(),
            type(mp.get_context()).__name__,
            type(mp.Lock()).__module__,
        )
    )
    if depth:
        child = mp.Process(target=look, args=(queue, depth - 1))
        child.start()
        child.join()


if __name__ == "__main__":
    how, method = sys.argv[1:]
    chosen: Any = mp
    if how == "context":
        chosen = mp.get_context(method)
    else:
        mp.set_start_method(method)
    answers = chosen.SimpleQueue()
    first = chosen.Process(target=look, args=(answers, 1))
    first.start()
    name = {"fork": "ForkContext", "spawn": "SpawnContext", "forkserver": "ForkServerContext"}[method]
    for _ in range(2):
        assert answers.get() == (method, method, name, "pylocks.multiprocessing.synchronize")
    first.join()
