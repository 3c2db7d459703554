"""Puppets: threads or processes that do as they are told, one task at a time.

A test forces its schedule by telling one puppet after the other what to do and looking, in between,
at what can be seen of the lock.  A task is a function of a module that the child can import; its
first argument is the puppet's lock.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

import psutil

from support.wait import PATIENCE_S, until

KINDS = ("threads", "fork", "spawn")
START_METHODS = ("fork", "spawn", "forkserver")


def _obey(pipe: Connection, lock: Any) -> None:
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    pipe.send((os.getpid(), threading.get_native_id()))
    while True:
        try:
            order = pipe.recv()
        except EOFError:
            return
        if order is None:
            return
        task, arguments = order
        try:
            answer = (True, task(lock, *arguments))
        except (Exception, KeyboardInterrupt) as error:
            answer = (False, error)
        pipe.send(answer)


class Puppet:
    """A thread ("threads") or a process (a start method) with a handle of `lock`."""

    pid: int
    tid: int
    _owes = False

    def __init__(self, kind: str, lock: Any) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._body: Any
        if kind == "threads":
            self._body = threading.Thread(target=_obey, args=(theirs, lock), daemon=True)
        else:
            context: Any = multiprocessing.get_context(kind)
            self._body = context.Process(target=_obey, args=(theirs, lock), daemon=True)
        self._body.start()
        if kind != "threads":
            theirs.close()
        self.pid, self.tid = self._receive()

    def start(self, task: Callable[..., Any], *arguments: Any) -> None:
        """Begin a task; `finish` tells how it went."""
        assert not self._owes, "the task before was never finished"
        self._owes = True
        self._pipe.send((task, arguments))

    def finish(self, patience: float = PATIENCE_S) -> Any:
        """The result of the task begun last, or its exception."""
        done, result = self._receive(patience)
        self._owes = False
        if done:
            return result
        raise result

    @property
    def idle(self) -> bool:
        """Every task begun has been finished."""
        return not self._owes

    def call(self, task: Callable[..., Any], *arguments: Any) -> Any:
        """Begin a task and wait for it."""
        self.start(task, *arguments)
        return self.finish()

    @property
    def busy(self) -> bool:
        """The task begun last has not ended."""
        return not self._pipe.poll(0)

    def interrupt(self, number: int) -> None:
        """Send a signal to the puppet's process."""
        os.kill(self.pid, number)

    def halt(self) -> None:
        """SIGSTOP, while it sleeps: it keeps nothing that others need to see to it."""
        process = psutil.Process(self.pid)
        until(lambda: process.status() == psutil.STATUS_SLEEPING, f"puppet {self.pid} to sleep")
        process.suspend()
        until(lambda: process.status() == psutil.STATUS_STOPPED, f"puppet {self.pid} to stop")

    def kill(self) -> None:
        """SIGKILL; only for processes.  It owes nothing any more."""
        self._body.kill()
        self._body.join()
        self._owes = False

    def lose(self) -> None:
        """Wait for a process that ends of its own accord; it owes nothing any more."""
        until(lambda: not self._body.is_alive(), f"the end of puppet {self.pid}")
        self._owes = False

    def end(self) -> None:
        """Let it go, wherever it is; again: nothing."""
        if self._pipe.closed:
            return
        with suppress(OSError):
            self._pipe.send(None)
        self._body.join(timeout=0 if isinstance(self._body, threading.Thread) and self.busy else 5)
        if not isinstance(self._body, threading.Thread) and self._body.is_alive():
            self.kill()
        self._pipe.close()

    def _receive(self, patience: float = PATIENCE_S) -> Any:
        if not self._pipe.poll(patience):
            raise AssertionError(f"puppet {getattr(self, 'pid', '')} did not answer within {patience:g} s")
        return self._pipe.recv()


class Troupe:
    """The puppets of one lock, and those of a test that plays others beside it."""

    def __init__(self, kind: str, lock: Any) -> None:
        self.kind = kind
        self.lock = lock
        self._idle: list[Puppet] = []
        self._playing: list[Puppet] = []
        self._guests: list[Puppet] = []

    def puppets(self, count: int) -> list[Puppet]:
        """Some of the troupe's kind, with the troupe's lock, that nobody else has."""
        while len(self._idle) < count:
            self._idle.append(Puppet(self.kind, self.lock))
        taken, self._idle = self._idle[:count], self._idle[count:]
        self._playing += taken
        return taken

    def guest(self, kind: str | None = None, lock: Any = None) -> Puppet:
        """One of another kind or with another lock; ends with the act."""
        made = Puppet(kind or self.kind, self.lock if lock is None else lock)
        self._guests.append(made)
        return made

    def queue(self, puppets: Sequence[Puppet], task: Callable[..., Any], *arguments: Any) -> None:
        """Let each begin the task, a wait for the lock, in this order: the next when one is queued."""
        for puppet in puppets:
            before = self.lock.waiters
            puppet.start(task, *arguments)
            until(lambda want=before + 1: self.lock.waiters == want, f"puppet {puppet.pid} queues")  # type: ignore[misc]

    @contextmanager
    def act(self) -> Iterator[None]:
        """A part of the play, after which all puppets are idle again or gone."""
        try:
            yield
            for puppet in self._playing + self._guests:
                assert puppet.idle, f"puppet {puppet.pid} was left at a task"
        finally:
            for puppet in self._guests:
                puppet.end()
            self._idle = self._playing + self._idle
            self._guests, self._playing = [], []

    def end(self) -> None:
        """Let all go."""
        for puppet in self._guests + self._playing + self._idle:
            puppet.end()
        self._guests, self._playing, self._idle = [], [], []


@contextmanager
def troupe(kind: str, lock: Any) -> Iterator[Troupe]:
    """Puppets that end with the block."""
    made = Troupe(kind, lock)
    try:
        yield made
    finally:
        made.end()
