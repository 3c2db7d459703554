"""Pipes that keep messages apart whoever dies: what queues are made of.

In the standard library's pipes a message is its length and then so many bytes.  A process that is killed
between reading the one and the other, or halfway through writing, leaves the rest to be taken for a length.
Here everything begins with a mark, random bytes that are this pipe's own:

    HEAD, length, payload                         up to PIPE_BUF bytes, which the kernel takes as a whole
    HEAD, length | LONG, writer, payload, TAIL    longer ones; what stands before the payload as a whole
    TEAR ... TEAR                                 a page in packet mode: no read goes on behind its end

Where no HEAD is, a reader died after it had read one: the next looks for HEAD, a few bytes at a time, so that
it never takes from the message behind.  Who writes next after the death of a writer, of which the lock of the
writers tells, begins with a TEAR; a reader amid the message that was torn finds TEAR where a read ends, or no
TAIL, and in both cases the next message comes next.  If nothing follows, a reader amid a message looks
whether the writer lives.

Writers must take turns, and so must readers; queues have locks for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
import struct
from multiprocessing.connection import Connection
from typing import Any

from pylocks.multiprocessing.descriptors import Way, way_to

__all__ = ["MarkedConnection", "MessageLost", "marked_pipe"]

PAGE = os.sysconf("SC_PAGE_SIZE")
MARK = 8
SHORT = select.PIPE_BUF - 16
"""Payload of the longest message that is written as a whole."""
LONG = 1 << 63
WIDE = 256 * 1024
"""What a pipe for long messages holds, so that fewer of its writers and readers wait for each other."""
F_SETPIPE_SZ = 1031  # has a name from Python 3.10.6 on
PATIENCE_MS = 100
"""How long the next part may take before the reader looks whether the writer lives."""

_head = struct.Struct("<8sQ")  # HEAD, length
HEAD_SIZE = _head.size
_writer = struct.Struct("<QQ")  # pid, when it started


class MessageLost(Exception):
    """A process died while it wrote or read a message, and there is nothing behind it yet."""


def marked_pipe() -> tuple[MarkedConnection, MarkedConnection]:
    """(the end to read from, the end to write to)."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    marks = os.urandom(3 * MARK)
    return MarkedConnection(reader, marks, writable=False), MarkedConnection(writer, marks, readable=False)


class MarkedConnection(Connection):
    """An end of such a pipe, as multiprocessing.Pipe(duplex=False) returns them.

    Can be pickled to a child on its way, and to any other process of this user as long as this process
    keeps it.
    """

    _handle: Any
    _poller: select.poll | None = None
    _is_wide = False

    def __init__(self, handle: int, marks: bytes, readable: bool = True, writable: bool = True) -> None:
        super().__init__(handle, readable, writable)
        self._marks = marks
        self._head, self._tail, self._tear = (marks[at : at + MARK] for at in range(0, 3 * MARK, MARK))

    def _send_bytes(self, buf: memoryview) -> None:
        size = len(buf)
        if size <= SHORT:
            os.write(self._handle, _head.pack(self._head, size) + buf)
            return
        if not self._is_wide:
            self._is_wide = True
            with contextlib.suppress(OSError):  # this user has too many wide pipes; a narrow one is slower
                fcntl.fcntl(self._handle, F_SETPIPE_SZ, WIDE)
        os.write(self._handle, _head.pack(self._head, size | LONG) + _writer.pack(*_myself()))
        try:
            rest: list[memoryview] = [buf, memoryview(self._tail)]
            while rest:
                written = os.writev(self._handle, rest)
                while rest and written >= len(rest[0]):
                    written -= len(rest.pop(0))
                if rest:
                    rest[0] = rest[0][written:]
        except BaseException:
            self.tear()
            raise

    def tear(self) -> None:
        """Say that what was being written will not go on."""
        fd = os.open(f"/proc/self/fd/{self._handle}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            fcntl.fcntl(fd, fcntl.F_SETFL, os.O_DIRECT)
            # A full page, or it would be merged into what is there.
            os.write(fd, self._tear + bytes(PAGE - 2 * MARK) + self._tear)
        finally:
            os.close(fd)

    def _recv_bytes(self, maxsize: int | None = None) -> Any:
        while True:
            try:
                data = self._receive(maxsize)
            except MessageLost:
                continue
            return None if data is None else io.BytesIO(data)

    def receive(self) -> bytes:
        """As recv_bytes, but MessageLost if what was in the pipe is but a part of a message."""
        if self._handle is None:
            self._check_closed()  # type: ignore[attr-defined]
        return self._receive(None)  # type: ignore[return-value]

    def _receive(self, maxsize: int | None) -> bytes | None:
        head = os.read(self._handle, HEAD_SIZE)
        if not head:
            raise EOFError
        mark, size = _head.unpack(head) if len(head) == HEAD_SIZE else (b"", 0)
        if mark != self._head:
            size = self._look_for_head(head)
        length = size & ~LONG
        if maxsize is not None and length > maxsize:
            return None
        if size != length:
            return self._receive_long(length)
        return self._some(length) if length else b""

    def _receive_long(self, size: int) -> bytes:
        pid, started = _writer.unpack(self._some(_writer.size))
        message = io.BytesIO()
        message.seek(size + MARK - 1)
        message.write(b"\0")
        with message.getbuffer() as view:
            at = 0
            while at < len(view):
                self._await_part(pid, started)
                got = os.readv(self._handle, (view[at:],))
                if not got:
                    raise EOFError
                at += got
                if got >= MARK and view[at - MARK : at] == self._tear:
                    raise MessageLost("a process died while it wrote a message")
            whole = view[size:] == self._tail
        if not whole:
            raise MessageLost("a process died while it wrote a message")
        message.truncate(size)
        return message.getvalue()

    def _look_for_head(self, seen: bytes) -> int:
        """The length behind the next HEAD; `seen`: what was read where it should have been."""
        while True:
            at = seen.find(self._head)
            if at >= 0:
                missing = HEAD_SIZE - len(seen) + at
                return int(_head.unpack(seen[at:] + (self._some(missing) if missing else b""))[1])
            if not self._more_within(0):
                raise MessageLost("a process died while it read or wrote a message")
            seen = seen[1 - MARK :]
            seen += self._some(HEAD_SIZE - len(seen))

    def _some(self, most: int) -> bytes:
        data = os.read(self._handle, most)
        if not data:
            raise EOFError
        return data

    def _more_within(self, milliseconds: int) -> bool:
        if self._poller is None:
            self._poller = select.poll()
            self._poller.register(self._handle, select.POLLIN)
        return bool(self._poller.poll(milliseconds))

    def _await_part(self, pid: int, started: int) -> None:
        while not self._more_within(PATIENCE_MS):
            if _started(pid) != started and not self._more_within(0):
                raise MessageLost(f"process {pid} died while it wrote a message")

    def __reduce__(self) -> Any:
        # Not the marks as they are: this may be sent through this very pipe.
        marks = bytes(byte ^ 0xFF for byte in self._marks)
        return _rebuild, (way_to(self._handle), marks, self.readable, self.writable)


def _rebuild(way: Way, marks: bytes, readable: bool, writable: bool) -> MarkedConnection:
    fd = way(os.O_RDONLY if readable else os.O_WRONLY)
    return MarkedConnection(fd, bytes(byte ^ 0xFF for byte in marks), readable, writable)


# ------------------------------------------------------------------ who writes

_me = (0, 0)


def _myself() -> tuple[int, int]:
    """This process and when it started: a pid alone may be another's by the time it is looked at."""
    global _me
    pid = os.getpid()
    if _me[0] != pid:
        _me = (pid, _started(pid) or 0)
    return _me


def _started(pid: int) -> int | None:
    """When a process started, in clock ticks; None if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in b"ZX" else int(fields[19])
