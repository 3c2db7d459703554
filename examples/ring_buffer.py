"""A ring buffer in shared memory: some processes put messages in, others take them out.

The messages lie in a fixed number of places, used in turns.  Who finds the ring full waits until there is
room, who finds it empty waits until there is something, each on a Condition of its own; both conditions are
of one lock, under which the ring's two numbers change.  A process that is killed in the midst of it has
done all or nothing, and nobody waits in vain for what it would have told them.  Nothing is pickled and
nothing passes through a pipe, as in multiprocessing.Queue: a message is copied in and copied out.

    python examples/ring_buffer.py                                   # 2 processes put, 2 take
    python examples/ring_buffer.py --producers 3 --messages 100000 --places 1024
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import signal
import struct
import sys
import time
import warnings
from typing import Any

import pylocks


class Ring:
    """Messages of up to `size` bytes, first in, first out, between processes that are given this object."""

    def __init__(self, places: int, size: int) -> None:
        self.places, self.size = places, size
        self.lock = pylocks.TicketLock()
        self.not_empty = pylocks.Condition(self.lock)
        self.not_full = pylocks.Condition(self.lock)
        self.numbers = multiprocessing.RawArray("Q", 3)  # messages put, messages taken, 1 if closed
        self.memory = multiprocessing.RawArray("c", places * (4 + size))

    def put(self, message: bytes) -> None:
        """Put a message behind the others; waits while there is no room."""
        if len(message) > self.size:
            raise ValueError(f"a message has up to {self.size} bytes, not {len(message)}")
        with self.not_full:
            self._told()
            self.not_full.wait_for(lambda: self.numbers[0] - self.numbers[1] < self.places)
            at = self.numbers[0] % self.places * (4 + self.size)
            self.memory[at : at + 4 + len(message)] = struct.pack("I", len(message)) + message
            self.not_empty.notify()
            self.numbers[0] += 1  # last: whoever is killed before has put nothing

    def get(self) -> bytes | None:
        """The oldest message; waits while there is none; None if the ring is empty and closed."""
        with self.not_empty:
            self._told()
            self.not_empty.wait_for(lambda: self.numbers[0] > self.numbers[1] or self.numbers[2])
            if self.numbers[0] == self.numbers[1]:
                return None
            at = self.numbers[1] % self.places * (4 + self.size)
            (length,) = struct.unpack("I", self.memory[at : at + 4])
            message = self.memory[at + 4 : at + 4 + length]
            self.not_full.notify()
            self.numbers[1] += 1  # last: whoever is killed before has taken nothing
            return message

    def close(self) -> None:
        """No more messages will be put."""
        with self.not_empty:
            self.not_empty.notify_all()
            self.numbers[2] = 1

    def _told(self) -> None:
        """If somebody died inside: the ring is in order all the same, since one last store decides."""
        if self.lock.owner_died:
            self.lock.mark_consistent()


MESSAGE = struct.Struct("II")  # who has put it, and its number there


def settle() -> None:
    """Of a process that uses the ring: Ctrl-C is for its parent, and deaths are no news."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore", pylocks.OwnerDiedWarning)


def produce(ring: Ring, who: int, messages: int) -> None:
    """Put so many messages."""
    settle()
    for number in range(messages):
        ring.put(MESSAGE.pack(who, number))


def consume(ring: Ring, producers: int, seen: ctypes.Array[Any]) -> None:
    """Take messages until there are no more; ends with status 1 if a producer's come out of order."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    last = [-1] * producers
    while (message := ring.get()) is not None:
        who, number = MESSAGE.unpack(message)
        if number <= last[who]:
            sys.exit(f"message {number} of producer {who} came after {last[who]}")
        last[who] = number
        seen[who] += number + 1


def main() -> int:
    parser = argparse.ArgumentParser(description="A ring buffer in shared memory, between processes.")
    parser.add_argument("--producers", type=int, default=2)
    parser.add_argument("--consumers", type=int, default=2)
    parser.add_argument("--messages", type=int, default=5000, help="of each producer")
    parser.add_argument("--places", type=int, default=64, help="messages that the ring has room for")
    given = parser.parse_args()

    ring = Ring(given.places, MESSAGE.size)
    sums = [multiprocessing.RawArray("Q", given.producers) for _ in range(given.consumers)]
    producers = [
        multiprocessing.Process(target=produce, args=(ring, who, given.messages))
        for who in range(given.producers)
    ]
    consumers = [multiprocessing.Process(target=consume, args=(ring, given.producers, own)) for own in sums]
    begin = time.perf_counter()
    try:
        for process in producers + consumers:
            process.start()
        print(f"{len(producers)} processes put, {len(consumers)} take; Ctrl-C ends them", flush=True)
        for process in producers:
            process.join()
        ring.close()
        for process in consumers:
            process.join()
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.terminate()
            process.join()
        return 130
    took = time.perf_counter() - begin

    wanted = given.messages * (given.messages + 1) // 2
    found = [sum(own[who] for own in sums) for who in range(given.producers)]
    total = given.producers * given.messages
    right = found == [wanted] * given.producers and not any(
        process.exitcode for process in producers + consumers
    )
    print(
        f"{total} messages in {took:.2f} s, {total / took:,.0f} a second: {'all there' if right else found}"
    )
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
