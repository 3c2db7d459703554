"""Queues and pools of pylocks.multiprocessing when those who use them are killed."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, Full
from typing import Any

import pytest
from support import dropped_in, run
from support.puppet import START_METHODS
from support.wait import until

import pylocks.multiprocessing as mp
from pylocks.multiprocessing import pipes

PAGE, SHORT = pipes.PAGE, pipes.SHORT
KINDS = ("Queue", "JoinableQueue", "SimpleQueue")
LONG_S = 60.0

each_kind = pytest.mark.parametrize("kind", KINDS)
each_method = pytest.mark.parametrize("method", START_METHODS)


@pytest.fixture
def context() -> Any:
    return mp.get_context("fork")


@pytest.fixture
def child(context: Any) -> Iterator[Callable[..., Any]]:
    """Start a process that calls the function; killed in the end."""
    started = []

    def start(function: Callable[..., Any], *arguments: Any) -> Any:
        started.append(context.Process(target=function, args=arguments))
        started[-1].start()
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.join()
        process.close()


def end(process: Any) -> None:
    process.kill()
    process.join()


def sleeps(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"


def get(queue: Any) -> Any:
    """With a bound, for those queues that can."""
    return (
        queue.get(timeout=LONG_S) if hasattr(queue, "task_done") or hasattr(queue, "qsize") else queue.get()
    )


# ------------------------------------------------------------------ messages


@pytest.fixture
def pipe() -> Iterator[tuple[Any, Any]]:
    ends = pipes.marked_pipe()
    yield ends
    for connection in ends:
        connection.close()


SIZES = (0, 1, SHORT - 1, SHORT, SHORT + 1, PAGE, 2 * PAGE, 16 * PAGE, 10 * PAGE + 3, 1_000_000)


@pytest.mark.parametrize("size", SIZES)
def test_messages_of_every_size(pipe: tuple[Any, Any], size: int) -> None:
    reader, writer = pipe
    messages = [os.urandom(size), b"short", os.urandom(size)]
    thread = threading.Thread(target=lambda: [writer.send_bytes(message) for message in messages])
    thread.start()
    assert [reader.recv_bytes() for _ in messages] == messages
    thread.join()
    assert not reader.poll()
    writer.send_bytes(messages[1])
    assert reader.receive() == messages[1]
    writer.close()
    with pytest.raises(EOFError):
        reader.recv_bytes()


def test_what_is_longer_than_allowed_is_refused(pipe: tuple[Any, Any]) -> None:
    reader, writer = pipe
    for size in (10, 2 * PAGE):
        writer.send_bytes(bytes(size))
    with pytest.raises(OSError, match="bad message length"):
        reader.recv_bytes(9)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 100, SHORT, SHORT + 1, 5 * PAGE + 3])
def test_what_a_dead_reader_left_is_passed_over(pipe: tuple[Any, Any], size: int) -> None:
    """Wherever it died."""
    reader, writer = pipe
    whole = 16 + size if size <= SHORT else 32 + size + pipes.MARK
    for taken in sorted({1, 15, 16, 17, 31, 32, 33, whole // 2, whole - 9, whole - 8, whole - 7, whole - 1}):
        if not 0 < taken < whole:
            continue
        for following in (b"", b"next", b"b" * 5000):
            writer.send_bytes(os.urandom(size))
            assert len(os.read(reader.fileno(), taken)) == taken
            with pytest.raises(pipes.MessageLost):
                reader.receive()
            writer.send_bytes(os.urandom(size))
            assert len(os.read(reader.fileno(), taken)) == taken
            writer.send_bytes(following)
            assert reader.recv_bytes() == following
            assert not reader.poll()


@pytest.mark.parametrize("size", [SHORT + 1, 5 * PAGE + 3, 10 * PAGE])
def test_what_a_dead_writer_left_is_passed_over(pipe: tuple[Any, Any], size: int) -> None:
    """However much of the message it had written when the next one comes to write."""
    reader, writer = pipe
    whole = pipes._head.pack(writer._head, size | pipes.LONG) + pipes._writer.pack(*pipes._myself())
    whole += os.urandom(size)
    for written in (0, 32, 33, 32 + size // 2, 32 + size - 1, 32 + size):
        for following in (b"", b"next", b"b" * 5000):
            os.write(writer.fileno(), whole[:written])
            writer.tear()
            with pytest.raises(pipes.MessageLost):
                reader.receive()
            os.write(writer.fileno(), whole[:written])
            writer.tear()
            writer.send_bytes(following)
            assert reader.recv_bytes() == following
            assert not reader.poll()


def test_a_writer_that_is_interrupted_says_so(pipe: tuple[Any, Any]) -> None:
    reader, writer = pipe

    class Interrupted(BaseException):
        pass

    def once(*_: Any) -> int:
        raise Interrupted

    real = os.writev
    calls = iter([lambda fd, parts: real(fd, [parts[0][:PAGE]]), once])
    with pytest.MonkeyPatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(os, "writev", lambda fd, parts: next(calls)(fd, parts))
        writer.send_bytes(bytes(2 * PAGE))
    writer.send_bytes(b"next")
    assert reader.recv_bytes() == b"next"


def test_a_pipe_can_be_sent_through_itself(pipe: tuple[Any, Any]) -> None:
    """Its marks are no marks in there."""
    reader, writer = pipe
    data = pickle.dumps((reader, writer) * 10)
    assert not any(mark in data for mark in (writer._head, writer._tail, writer._tear))
    writer.send_bytes(data)
    os.read(reader.fileno(), 16)
    writer.send((writer,))
    (other,) = reader.recv()
    other.send_bytes(b"next")
    assert reader.recv_bytes() == b"next"
    other.close()


def write_half(queue: Any, told: Any) -> None:
    with queue._wlock:
        told.set()
        queue._writer.send_bytes(bytes(10_000_000))


@each_kind
def test_a_reader_does_not_wait_for_a_dead_writer(kind: str, context: Any, child: Any) -> None:
    queue, told = getattr(context, kind)(), context.Event()
    writer = child(write_half, queue, told)
    assert told.wait(LONG_S)
    until(lambda: queue._reader.poll() and sleeps(writer.pid), "the pipe to be full")
    end(writer)
    if kind == "SimpleQueue":
        child(dropped_in.put_long, queue, 10)
        assert queue.get() == "x" * 10
    else:
        started = time.monotonic()
        with pytest.raises(Empty):
            queue.get(timeout=0.3)
        assert time.monotonic() - started >= 0.25
        queue.put("next")
        assert queue.get(timeout=LONG_S) == "next"


# ------------------------------------------------------------------ deaths


@pytest.mark.parametrize(
    ("kind", "method"),
    [*((kind, "fork") for kind in KINDS), ("Queue", "spawn"), ("SimpleQueue", "forkserver")],
)
def test_a_consumer_killed_inside_get(kind: str, method: str) -> None:
    """It had the lock that readers take turns with (CPython #88304)."""
    context = mp.get_context(method)
    queue = getattr(context, kind)()
    consumers = [context.Process(target=queue.get) for _ in range(2)]
    for consumer in consumers:
        consumer.start()
    try:
        until(lambda: queue._rlock.owner is not None, "one to read")
        reading = next(c for c in consumers if c.pid == queue._rlock.owner.pid)
        until(lambda: sleeps(reading.pid), "it to wait for a message")
        end(reading)
        for n in range(2):
            queue.put(n)
        (other,) = (c for c in consumers if c is not reading)
        other.join(LONG_S)
        assert other.exitcode == 0
        assert get(queue) == 1
    finally:
        for consumer in consumers:
            end(consumer)


def hold(lock: Any, told: Any) -> None:
    lock.acquire()
    told.set()
    signal.pause()


@each_kind
def test_a_producer_killed_inside_put(kind: str, context: Any, child: Any) -> None:
    queue, told = getattr(context, kind)(), context.Event()
    producer = child(hold, queue._wlock, told)
    assert told.wait(LONG_S)
    end(producer)
    queue.put("next")
    assert get(queue) == "next"


def finish(queue: Any, told: Any) -> None:
    """All but the last step of task_done()."""
    queue.get()
    queue._unfinished_tasks.acquire()
    told.set()
    signal.pause()


def test_join_returns_though_who_was_to_say_so_died(context: Any, child: Any) -> None:
    queue, told = context.JoinableQueue(), context.Event()
    queue.put(1)
    worker = child(finish, queue, told)
    thread = threading.Thread(target=queue.join, daemon=True)
    thread.start()
    assert told.wait(LONG_S)
    end(worker)
    thread.join(LONG_S)
    assert not thread.is_alive()
    with pytest.raises(ValueError, match="too many times"):
        queue.task_done()


def test_bounds_hold(context: Any) -> None:
    queue = context.Queue(2)
    queue.put(1)
    queue.put(2, timeout=LONG_S)
    assert queue.full() and queue.qsize() == 2
    for arguments in ((False,), (True, 0.01), (False, 5)):
        with pytest.raises(Full):
            queue.put(3, *arguments)
    assert [get(queue), get(queue)] == [1, 2]
    for arguments in ((False,), (True, 0.01), (False, 5)):
        with pytest.raises(Empty):
            queue.get(*arguments)
    queue.close()
    with pytest.raises(ValueError, match="is closed"):
        queue.get()


def test_a_queue_unpickled_here_is_another_end(context: Any) -> None:
    queue = context.SimpleQueue()
    other = pickle.loads(pickle.dumps(queue))
    for size in (10, 3 * PAGE):
        other.put("x" * size)
        assert len(queue.get()) == size
    assert other._rlock.index == queue._rlock.index
    other.close()
    queue.put(1)
    assert queue.get() == 1


# ------------------------------------------------------------------ pools


@each_method
def test_a_pool_survives_an_idle_worker_that_is_killed(method: str) -> None:
    """The one that holds the lock of the queue of tasks: the standard library's pool is stuck then."""
    with mp.get_context(method).Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
        until(lambda: pool._inqueue._rlock.owner is not None, "a worker to read")
        reading = pool._inqueue._rlock.owner.pid
        until(lambda: sleeps(reading), "it to wait for a task")
        os.kill(reading, signal.SIGKILL)
        until(lambda: not run.alive(reading), "its end: until then it may still get a task")
        assert pool.map_async(abs, range(-20, 0)).get(LONG_S) == list(range(20, 0, -1))


def test_a_pool_survives_workers_that_are_killed_at_work(context: Any) -> None:
    """Their tasks never end, as with the standard library's; all others do."""
    with context.Pool(2) as pool:
        lost = [pool.apply_async(dropped_in.kill_me) for _ in range(3)]
        others = [pool.apply_async(abs, (-n,)) for n in range(20)]
        assert [other.get(LONG_S) for other in others] == list(range(20))
        assert not any(result.ready() for result in lost)


def test_a_pool_survives_a_worker_that_is_killed_while_it_answers(context: Any) -> None:
    with context.Pool(2) as pool:
        lost = pool.apply_async(dropped_in.kill_while_writing, (pool._outqueue,))
        assert pool.map_async(abs, range(-20, 0)).get(LONG_S) == list(range(20, 0, -1))
        assert pool.map_async(len, ["x" * 100_000] * 4).get(LONG_S) == [100_000] * 4
        assert not lost.ready()
