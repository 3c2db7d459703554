"""Pipes that keep messages apart whoever dies: what queues are made of.

In the standard library's pipes a message is its length and then so many bytes.  A process that is killed
between reading the one and the other, or halfway through writing, leaves the rest to be taken for a length.

Here the pipe is in packet mode, in which a read returns what one write put there, and each packet says what
it is:

    WHOLE, payload                    a message of less than a page
    FIRST, length, writer, payload    a longer one: what is left over when it is divided into pages,
    MORE, payload                     and the end of that if it is too much;
    full pages                        then the pages, written without packet mode

The kernel gives and takes packets and pages as a whole, all packets are shorter than a page, and nobody asks
for less.  So whoever reads next finds a boundary.  Pages or MORE without FIRST belong to a message that a
dead process was reading; a packet where pages should be follows one that a dead process was writing.  Both
are passed over.  If nothing follows, a reader in the midst of a message looks whether the writer lives.

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

__all__ = ["MessageLost", "PacketConnection", "packet_pipe"]

PACKET = os.sysconf("SC_PAGE_SIZE")
"""What the kernel splits longer writes into."""
SLOTS = 64
"""Packets that a pipe holds; 16 unless told, which makes writers wait for readers."""
PATIENCE_MS = 100
"""How long the next part may take before the reader looks whether the writer lives."""
F_SETPIPE_SZ = 1031  # has a name from Python 3.10.6 on

WHOLE, FIRST, MORE = b"\0", b"\1", b"\2"
_first = struct.Struct("<cQqQ")  # FIRST, length, pid and start of the writer


class MessageLost(Exception):
    """A process died while it wrote or read a message, and there is nothing behind it yet."""


def packet_pipe() -> tuple[PacketConnection, PacketConnection]:
    """(the end to read from, the end to write to)."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_DIRECT)
    with contextlib.suppress(OSError):  # this user has too many large pipes; a small one is slower
        fcntl.fcntl(writer, F_SETPIPE_SZ, SLOTS * PACKET)
    return PacketConnection(reader, writable=False), PacketConnection(writer, readable=False)


class PacketConnection(Connection):
    """An end of such a pipe, as multiprocessing.Pipe(duplex=False) returns them.

    Can be pickled to a child on its way, and to any other process of this user as long as this process
    keeps it.
    """

    _handle: int
    _pages = -1
    """The same end of the same pipe, without packet mode."""
    _poller: select.poll | None = None

    def _send_bytes(self, buf: memoryview) -> None:
        size = len(buf)
        if size < PACKET - 1:
            os.write(self._handle, WHOLE + buf)
            return
        parts = size % PACKET  # what is left are full packets
        room = PACKET - 1 - _first.size
        os.write(self._handle, _first.pack(FIRST, size, *_myself()) + buf[: min(parts, room)])
        if parts > room:
            os.write(self._handle, MORE + buf[room:parts])
        if self._pages < 0:
            self._pages = os.open(f"/proc/self/fd/{self._handle}", os.O_WRONLY | os.O_CLOEXEC)
        buf = buf[parts:]
        while buf:
            buf = buf[os.write(self._pages, buf) :]  # interrupted between two pages, if at all

    def _recv_bytes(self, maxsize: int | None = None) -> Any:
        while True:
            try:
                return self._receive(maxsize)
            except MessageLost:
                pass

    def receive(self) -> bytes:
        """As recv_bytes, but MessageLost if what was in the pipe is but a part of a message."""
        self._check_closed()  # type: ignore[attr-defined]
        self._check_readable()  # type: ignore[attr-defined]
        message: io.BytesIO = self._receive(None)
        return message.getvalue()

    def _receive(self, maxsize: int | None) -> Any:
        packet = self._packet()
        while _is_part(packet):
            if not self._more_within(0):
                raise MessageLost("a process died while it read a message")
            packet = self._packet()
        while packet[:1] == FIRST:
            _, size, pid, started = _first.unpack_from(packet)
            if maxsize is not None and size > maxsize:
                return None
            message = io.BytesIO()
            message.seek(size - 1)
            message.write(b"\0")
            with message.getbuffer() as view:
                another = self._fill(view, packet, pid, started)
            if another is None:
                return message
            packet = another  # the writer of that one is dead
        if maxsize is not None and len(packet) - 1 > maxsize:
            return None
        return io.BytesIO(packet[1:])

    def _fill(self, view: memoryview, packet: bytes, pid: int, started: int) -> bytes | None:
        """Read what follows FIRST; None, or what came instead."""
        at = len(packet) - _first.size
        view[:at] = packet[_first.size :]
        if at != len(view) % PACKET:
            self._await_part(pid, started)
            packet = self._packet()
            if packet[:1] != MORE:
                return packet
            view[at : at + len(packet) - 1] = packet[1:]
            at += len(packet) - 1
        while at < len(view):
            self._await_part(pid, started)
            got = os.readv(self._handle, (view[at:],))
            if not got:
                raise EOFError
            at += got
            if got % PACKET:  # a read goes over pages, but ends behind a packet
                return bytes(view[at - got % PACKET : at])
        return None

    def _packet(self) -> bytes:
        packet = os.read(self._handle, PACKET)
        if not packet:
            raise EOFError
        return packet

    def _more_within(self, milliseconds: int) -> bool:
        if self._poller is None:
            self._poller = select.poll()
            self._poller.register(self._handle, select.POLLIN)
        return bool(self._poller.poll(milliseconds))

    def _await_part(self, pid: int, started: int) -> None:
        while not self._more_within(PATIENCE_MS):
            if _started(pid) != started and not self._more_within(0):
                raise MessageLost(f"process {pid} died while it wrote a message")

    def _close(self) -> None:
        os.close(self._handle)
        if self._pages >= 0:
            os.close(self._pages)

    def __reduce__(self) -> Any:
        return _rebuild, (way_to(self._handle), self.readable, self.writable)


def _rebuild(way: Way, readable: bool, writable: bool) -> PacketConnection:
    fd = way(os.O_RDONLY if readable else os.O_WRONLY)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_DIRECT)  # a description of its own has to be told again
    return PacketConnection(fd, readable, writable)


def _is_part(packet: bytes) -> bool:
    return len(packet) == PACKET or packet[:1] == MORE


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
