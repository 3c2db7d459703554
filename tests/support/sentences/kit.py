"""A set of primitives, those who use them, and the list of sentences."""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import util
from pathlib import Path
from typing import Any

from support.wait import PATIENCE_S, until

LONG = 300.0
"""Seconds: a timeout that does not pass."""
SHORT = 0.02
"""Seconds: one that does, with nobody to prevent it."""

TRAITS = {
    "any may release": "a Lock may be released by another thread or process, and its holder waits for itself",
    "-1 is for ever": "as a timeout",
    "none is for ever": "as a timeout",
    "negative is zero": "as a timeout",
    "timeout ignored": "where acquire() is not to block",
    "timeout refused": "where acquire() is not to block",
    "release(n)": "of semaphores",
    "negative value refused": "of a semaphore to be made",
    "locked()": "of a Lock",
}
"""What does not hold of all kits."""


@dataclass(frozen=True)
class Sentence:
    """One of the documentation, and how it is checked."""

    primitive: str
    text: str
    check: Callable[[Kit], None]
    needs: str | None
    """The trait without which it does not hold."""


SENTENCES: dict[str, Sentence] = {}


def sentence(
    primitive: str, text: str, needs: str | None = None
) -> Callable[[Callable[[Kit], None]], Callable[[Kit], None]]:
    """The function checks it, and gives it a short name."""

    def register(check: Callable[[Kit], None]) -> Callable[[Kit], None]:
        assert needs is None or needs in TRAITS
        name = f"{primitive}-{check.__name__}"
        assert name not in SENTENCES, name
        SENTENCES[name] = Sentence(primitive, text, check, needs)
        return check

    return register


class Tally:
    """A number that threads and forked processes share; added to under a lock."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, 8)

    @property
    def value(self) -> int:
        return int.from_bytes(self._map[:8], "little")

    def add(self, n: int = 1) -> None:
        self._map[:8] = (self.value + n).to_bytes(8, "little")


class Party:
    """A thread, or a forked process, that calls a function."""

    def __init__(self, function: Callable[[], Any], forks: bool) -> None:
        self._answer: bytes | None = None
        self._said, self._tid = threading.Event(), 0
        self._thread: threading.Thread | None = None
        self.pid = os.getpid()
        if forks:
            self._fork(function)
        else:
            self._thread = threading.Thread(target=self._be_a_thread, args=(function,), daemon=True)
            self._thread.start()
            until(lambda: self._tid, "the thread")

    def _be_a_thread(self, function: Callable[[], Any]) -> None:
        self._tid = threading.get_native_id()
        self._answer = _outcome(function)

    def _fork(self, function: Callable[[], Any]) -> None:
        readable, writable = os.pipe()
        self.pid = self._tid = os.fork()
        if self.pid == 0:
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                os.close(readable)
                util._run_after_forkers()  # as multiprocessing.Process does
                data = _outcome(function)
                os.write(writable, data)
            finally:
                os._exit(0)
        os.close(writable)
        self._pipe = os.fdopen(readable, "rb")

    @property
    def asleep(self) -> bool:
        """It sleeps, or has ended."""
        try:
            stat = Path(f"/proc/{self.pid}/task/{self._tid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return True
        return stat.rpartition(")")[2].split()[0] in "SZ"

    @property
    def ended(self) -> bool:
        if self._thread is not None:
            return not self._thread.is_alive()
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def blocks(self) -> None:
        """It has had the time to get on, and has not."""
        for _ in range(3):
            until(lambda: self.asleep, "the party to sleep")
        assert not self.ended, f"it did not wait: {self.result()!r}"

    def result(self) -> Any:
        """What the function returned or raised."""
        until(lambda: self.ended, "the party to end", PATIENCE_S)
        if self._answer is None:
            self._answer = self._pipe.read()
        assert self._answer, "the party was killed"
        done, value = pickle.loads(self._answer)
        if not done:
            raise value
        return value

    def interrupt(self) -> None:
        """Ctrl-C, for a process."""
        os.kill(self.pid, signal.SIGINT)

    def end(self) -> None:
        """Whatever it does."""
        if self._thread is not None:
            self._thread.join(PATIENCE_S)
            assert not self._thread.is_alive(), "a thread was left waiting"
            return
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._pipe.close()


def _outcome(function: Callable[[], Any]) -> bytes:
    try:
        return pickle.dumps((True, function()))
    except BaseException as error:
        try:
            return pickle.dumps((False, error))
        except Exception:
            traceback.print_exc()
            return pickle.dumps((False, AssertionError(repr(error))))


@dataclass
class Kit:
    """A set of primitives, made as the module's that they stand for."""

    Lock: Callable[..., Any]
    RLock: Callable[..., Any]
    Semaphore: Callable[..., Any]
    BoundedSemaphore: Callable[..., Any]
    Condition: Callable[..., Any]
    Event: Callable[..., Any]
    Barrier: Callable[..., Any]
    traits: frozenset[str]
    unlocked: type[Exception] = RuntimeError
    """What releasing an unlocked Lock raises."""
    unowned: type[Exception] = RuntimeError
    """What using what somebody else owns raises."""
    forks: bool = False
    """Those who use them are processes."""
    _parties: list[Party] = field(default_factory=list)

    def go(self, function: Callable[..., Any], *arguments: Any) -> Party:
        """Somebody else calls the function."""
        party = Party(lambda: function(*arguments), self.forks)
        self._parties.append(party)
        return party

    def of_another(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns to somebody else, who then ends."""
        return self.go(function, *arguments).result()

    def tally(self) -> Tally:
        """A number that all can see."""
        return Tally()

    def one(self, parties: list[Party]) -> Party:
        """The only one of them that gets on."""
        until(lambda: any(party.ended for party in parties), "one of them to get on")
        for party in parties:
            until(lambda party=party: party.asleep, "the others to sleep")  # type: ignore[misc]
        ended = [party for party in parties if party.ended]
        assert len(ended) == 1, f"{len(ended)} got on"
        return ended[0]

    def end(self) -> None:
        """Let all go."""
        for party in self._parties:
            party.end()
        self._parties.clear()


def raises(kind: type[BaseException], function: Callable[[], Any]) -> BaseException:
    """The exception that the call raises."""
    try:
        value = function()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}, but {value!r}")
