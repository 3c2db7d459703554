"""What a look at a domain finds, as frozen copies."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pylocks.policy import spin_text

__all__ = ["Holder", "Insider", "Lock", "Outsider", "Snapshot", "SyncObject", "VCpu", "Waiter", "plain"]


@dataclass(frozen=True)
class VCpu:
    """One thread registered in the domain, alive or not yet recovered."""

    index: int
    pid: int
    tid: int
    alive: bool
    """What the kernel says by the thread's life word."""
    process: str | None
    """Name of its process; None: it is dead, or of another pid namespace, and can't be asked for."""
    command: str | None
    """Command line of its process."""
    state: str | None
    """"running", "sleeping", "stopped" ... as the kernel has it; None as for process."""
    cpu: int | None
    """Where it runs or last ran."""
    holds: tuple[int, ...]
    """Indices of the locks that it holds, and of semaphores and their like that say who does."""
    waits_for: tuple[tuple[int, int | None], ...]
    """(index of a lock, its ticket as Waiter.ticket), the innermost last: a signal handler may wait for
    another lock than the thread that it interrupted.  Semaphores and their like have no tickets."""
    waited_ns: int | None
    """For how long it has waited for the innermost."""
    parked: bool
    changing: bool
    """It was acquiring or releasing while it was looked at."""
    foreign: bool
    """It lives in another pid namespace, where its pid and tid count."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock."""

    vcpu: VCpu
    ticket: int
    held_at_least_ns: int | None
    """As far as it has been watched; None after one look: a lock does not record when it was taken."""


@dataclass(frozen=True)
class Waiter:
    """Who waits for a lock."""

    vcpu: VCpu
    ticket: int | None
    """None: just being taken; or it stands in the queue of a bounded lock, which has tickets of its own."""
    waited_ns: int | None


class WaitedFor:
    """What a lock and a SyncObject have in common."""

    index: int
    name: str | None
    waiters: tuple[Any, ...]

    @property
    def label(self) -> str:
        """Its name, or its index."""
        return self.name if self.name is not None else f"#{self.index}"

    @property
    def longest_wait_ns(self) -> int | None:
        """Of those who wait now."""
        return max((w.waited_ns for w in self.waiters if w.waited_ns is not None), default=None)


@dataclass(frozen=True)
class Lock(WaitedFor):
    """One lock and its queue."""

    index: int
    name: str | None
    policy: str
    head: int
    """The ticket now served."""
    tail: int
    """The next to be handed out; head == tail: free."""
    owner: Holder | None
    """None: free, or on its way to whoever is next."""
    waiters: tuple[Waiter, ...]
    """In the order in which they will be served."""
    queued: int
    """Tickets behind the holder's, the abandoned and the unknown included."""
    owner_died: bool
    """A thread died inside, and nobody has said since that the data is consistent."""
    tombstones: int
    """Tickets that their owners have abandoned."""
    changing: bool
    """It was acquired or released while it was looked at: owner and waiters may be of different moments."""
    rate: float | None = None
    """Tickets served a second between two looks; None after one."""

    @property
    def half_done(self) -> bool:
        """A thread died inside, and nobody has been told or has put things in order since."""
        return self.owner_died or (self.owner is not None and not self.owner.vcpu.alive)

    @property
    def busy(self) -> bool:
        """Held, or about to be."""
        return self.head != self.tail


@dataclass(frozen=True)
class Insider:
    """Who holds a Mutex, permits of an owned Semaphore, a side of an RWLock, or acts for a Barrier."""

    vcpu: VCpu
    what: str
    """"lock", "permit", "read", "write" or "action"."""
    count: int
    """So many permits; so many times, of an RMutex."""


@dataclass(frozen=True)
class Outsider:
    """Who waits for a semaphore, an event or their like."""

    vcpu: VCpu
    what: str
    """What for: "permit", "lock", "read", "write", "set", "notify" or "all"."""
    waited_ns: int | None
    """None: it is just looking whether its turn has come, or at its signals."""
    aside: bool
    """Its thread runs a signal handler: others go first meanwhile."""


@dataclass(frozen=True)
class SyncObject(WaitedFor):
    """A semaphore, an event, or their like: what is no lock with a queue of tickets."""

    index: int
    name: str | None
    kind: str
    """"Semaphore", "owned Semaphore", "Event" ...: as messages call it."""
    state: str
    """In words: "0 of 3 left", "not set", "held", "1 of 3 there", "2 reading" ..."""
    value: int
    """Permits left; 1 for an event that is set; how often it is held; parties there; readers inside."""
    of: int | None
    """Permits that a semaphore was made with; a barrier's parties."""
    lock: int | None
    """Index of a condition's lock."""
    holders: tuple[Insider, ...]
    """As far as they are known: whoever took a permit that is not owned may have passed it on."""
    waiters: tuple[Outsider, ...]
    """In order of arrival."""
    owner_died: bool
    """A thread died inside; of an RWLock, until one who writes says that the data is consistent."""
    lost: bool
    """Its holder is dead, and its slot is another thread's by now."""
    changing: bool
    """It was used while it was looked at: its parts may be of different moments."""

    @property
    def half_done(self) -> bool:
        """A thread died inside, and nobody has been told or has put things in order since."""
        dead = any(not each.vcpu.alive and each.what in ("lock", "write") for each in self.holders)
        return self.owner_died or self.lost or dead

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self.waiters)

    @property
    def busy(self) -> bool:
        """Somebody holds it, of whom it is known, or did until it died."""
        return bool(self.holders) or self.lost


@dataclass(frozen=True)
class Snapshot:
    """A domain at one moment, as far as it held still; what did not says so."""

    label: str
    """How to name it on the command line: its name, or "@" and the beginning of its uid."""
    name: str | None
    path: str
    uid: str
    owner: int
    """User id that the segment belongs to."""
    mode: int
    size: int
    """Bytes of the segment; the most that it can take."""
    memory: int
    """Bytes that it takes."""
    abi: int
    protocol: str
    barrier: str
    slow_path: str
    array: bool
    vcpu_limit: int
    lock_limit: int
    creator_pid: int
    created: float
    """Seconds since the epoch."""
    age_s: float
    unlinked: bool
    """It has no name (any more): it goes with the last process that uses it."""
    abandoned: bool
    """No thread registered in it is alive, and no process is seen to be attached."""
    service: int | None
    """vCPU index of its hypervisor service."""
    service_spin_ns: int | None
    """How long its service has waiters spin; None: as each sees fit."""
    service_preemption: str | None
    """By what its service has them tell that a holder does not run; None: as each sees fit."""
    taken_ns: int
    """CLOCK_MONOTONIC of the look."""
    locks: tuple[Lock, ...]
    objects: tuple[SyncObject, ...]
    """Semaphores, events and their like."""
    omitted: int
    """Further locks that were used at some time, free and unnamed: too many to list."""
    vcpus: tuple[VCpu, ...]

    @property
    def policy(self) -> str:
        """What its service has decided for all participants; "" if nothing."""
        spin = f"spin {spin_text(self.service_spin_ns)}" if self.service_spin_ns is not None else ""
        trust = f"preemption {self.service_preemption}" if self.service_preemption is not None else ""
        return ", ".join(filter(None, (spin, trust)))

    @property
    def everything(self) -> tuple[Lock | SyncObject, ...]:
        """Locks, and semaphores and their like."""
        return (*self.locks, *self.objects)

    def lock(self, which: str) -> Lock | None:
        """The lock of that name, or of that index if nothing has the name."""
        found = self.find(which)
        return found if isinstance(found, Lock) else None

    def find(self, which: str) -> Lock | SyncObject | None:
        """The lock, semaphore, event ... of that name, or of that index if none has the name."""
        by_name = next((each for each in self.everything if each.name == which), None)
        digits = which.removeprefix("#")
        if by_name is not None or not (digits.isascii() and digits.isdigit()):
            return by_name
        return next((each for each in self.everything if each.index == int(digits)), None)


def plain(snapshot: Snapshot) -> dict[str, Any]:
    """As JSON has it: threads stand in "vcpus", owners and waiters name them by vCPU index, pid and tid."""
    result = {
        name: value for name, value in vars(snapshot).items() if name not in ("locks", "objects", "vcpus")
    }
    result["mode"] = f"{snapshot.mode:#o}"
    result["locks"] = [plain_lock(lock) for lock in snapshot.locks]
    result["objects"] = [plain_object(each) for each in snapshot.objects]
    result["vcpus"] = [asdict(vcpu) for vcpu in snapshot.vcpus]
    return result


def plain_lock(lock: Lock) -> dict[str, Any]:
    """The same of one lock."""
    result = dict(vars(lock))
    result["owner"] = lock.owner and {
        **_who(lock.owner.vcpu),
        "ticket": lock.owner.ticket,
        "held_at_least_ns": lock.owner.held_at_least_ns,
    }
    result["waiters"] = [
        {**_who(waiter.vcpu), "ticket": waiter.ticket, "waited_ns": waiter.waited_ns}
        for waiter in lock.waiters
    ]
    return result


def plain_object(found: SyncObject) -> dict[str, Any]:
    """The same of a semaphore or its like."""
    result = dict(vars(found))
    result["holders"] = [
        {**_who(each.vcpu), "what": each.what, "count": each.count} for each in found.holders
    ]
    result["waiters"] = [
        {**_who(each.vcpu), "what": each.what, "waited_ns": each.waited_ns, "aside": each.aside}
        for each in found.waiters
    ]
    return result


def _who(vcpu: VCpu) -> dict[str, Any]:
    return {
        "vcpu": vcpu.index,
        "pid": vcpu.pid,
        "tid": vcpu.tid,
        "process": vcpu.process,
        "alive": vcpu.alive,
        "state": vcpu.state,
        "cpu": vcpu.cpu,
    }
