"""What only several looks at a domain can tell: how fast its locks are handed on, how long they are held."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pylocks.observe.model import Holder, Lock, Snapshot

__all__ = ["Looks"]


@dataclass(frozen=True)
class _Seen:
    head: int
    at_ns: int
    owner: int | None
    held_since_ns: int
    """When this owner was first seen with this ticket."""


class Looks:
    """Remembers the last look at each domain."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[int, _Seen]] = {}

    def add(self, now: Snapshot) -> Snapshot:
        """The look with rates and holding times, as far as they are known from the ones before."""
        before, after = self._seen.get(now.uid, {}), {}
        locks = []
        for lock in now.locks:
            last = before.get(lock.index)
            owner = lock.owner.vcpu.index if lock.owner is not None else None
            same = last is not None and owner is not None and (last.owner, last.head) == (owner, lock.head)
            since = last.held_since_ns if last is not None and same else now.taken_ns
            after[lock.index] = _Seen(lock.head, now.taken_ns, owner, since)
            locks.append(_told(lock, last, now.taken_ns, since) if last is not None else lock)
        self._seen[now.uid] = after
        return replace(now, locks=tuple(locks))


def _told(lock: Lock, last: _Seen, now_ns: int, since_ns: int) -> Lock:
    elapsed = now_ns - last.at_ns
    rate = (lock.head - last.head) * 1e9 / elapsed if elapsed > 0 and lock.head >= last.head else None
    owner: Holder | None = lock.owner
    if owner is not None and now_ns > since_ns:
        owner = replace(owner, held_at_least_ns=now_ns - since_ns)
    if rate == lock.rate and owner is lock.owner:
        return lock
    return replace(lock, rate=rate, owner=owner)
