"""Locks for asyncio: `async with lock.aio:`, in one queue with the threads and tasks of all processes.

A task that holds a lock, or waits for one, is a vCPU of its own (seats).  Those that wait for one lock
in this process form a line (lines), of which the first alone is watched over, by a thread that watches a
hundred such lines at once (lookout).  lock.aio is made of these (face).
"""

from pylocks.aio.face import Aio, AioWithin

__all__ = ["Aio", "AioWithin"]
