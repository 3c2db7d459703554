"""What doctor looks at: each check says what was found, what pylocks chose, why, and what would be better."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pylocks import errors, machine, monitor, segment
from pylocks._core import lib
from pylocks.observe import stacks, tables
from pylocks.observe.survey import Survey
from pylocks.ops import Decision, Op, ops, process

__all__ = ["GRADES", "Check", "Facts", "checks"]

GRADES = ("ok", "note", "bad")
"""ok: as it should be; note: works, but something would be better; bad: pylocks can't work here."""

_ROOM = 16 << 20
"""Bytes that /dev/shm should have left: a domain with ten thousand locks in use takes less than two."""
_DESCRIPTORS = 256


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    grade: str
    found: str
    chosen: str = ""
    """What pylocks does in this process because of it; "" if nothing is chosen by it."""
    better: str = ""
    """What to do about it; "" if nothing."""


@dataclass(frozen=True)
class Facts:
    """What the checks go by; tests make up others."""

    machine: machine.Machine
    rows: tuple[Op, ...]
    """The patch table after an attach; empty if there was none."""
    decision: Decision | None
    trouble: Exception | None
    """Why no domain could be made and used."""
    root: Path = Path("/")

    @classmethod
    def look(cls) -> Facts:
        """Of this machine; makes an anonymous domain and takes a lock of it."""
        import pylocks

        trouble: Exception | None = None
        try:
            with pylocks.Domain(vcpus=16, locks=16) as domain, pylocks.TicketLock(domain=domain):
                pass
        except (errors.PylocksError, OSError) as error:
            trouble = error
        rows = ops() if process.decision is not None else ()
        return cls(machine.look(), rows, process.decision, trouble)

    def chosen(self, op: str) -> str:
        """``op=choice: why``, or "" before there is a choice."""
        if self.decision is None:
            return ""
        choice, reason = self.decision.choices[op]
        return f"{op}={choice.name}: {reason}"


def checks(facts: Facts) -> Iterator[Check]:
    """All of them, in the order in which they are shown."""
    yield _domain(facts)
    yield from (_kernel(), _cpu(facts), _affinity(facts), _quota(facts), _hypervisor(facts))
    yield from (_futex(facts), _robust(), _membarrier(facts), _rseq(facts))
    yield from (_shm(facts), _memory(), _descriptors(), _patching(facts), _preempted(facts))
    yield from (_services(), _settings(facts), _extras())


def _domain(facts: Facts) -> Check:
    if facts.trouble is not None:
        found = f"{type(facts.trouble).__name__}: {tables.words(facts.trouble)}"
        return Check("a lock", "bad", found, "", "what the message says")
    assert facts.decision is not None
    chosen = f"{facts.decision.protocol} protocol; {facts.chosen('lock_spinning')}"
    return Check("a lock", "ok", "a domain was made, a lock of it taken and released", chosen)


def _kernel() -> Check:
    found = f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}".strip(", ")
    return Check("kernel", "ok", f"{found}, Python {platform.python_version()}")


def _cpu(facts: Facts) -> Check:
    kind = facts.machine.architecture
    models = (line for line in _lines(facts, "proc/cpuinfo") if line.startswith("model name"))
    found = ", ".join(filter(None, (kind, next(models, "").partition(":")[2].strip())))
    if kind == "x86_64":
        return Check("processor", "ok", found, facts.chosen("cpu_relax"))
    better = "nothing: call sites are patched on x86-64 only, and are indirect calls elsewhere"
    return Check("processor", "note", found, facts.chosen("cpu_relax"), better)


def _affinity(facts: Facts) -> Check:
    online = os.cpu_count() or facts.machine.cpus
    spin = facts.decision.spin if facts.decision is not None else None
    chosen = f"spin {spin.ns} ns: {spin.reason}" if spin is not None else ""
    found = f"{facts.machine.cpus} of {online} CPUs"
    if facts.machine.cpus == 1 and online > 1:
        better = "more CPUs in the affinity mask (taskset): on one, a holder and a waiter never run together"
        return Check("affinity", "note", found, chosen, better)
    return Check("affinity", "ok", found, chosen)


def _quota(facts: Facts) -> Check:
    quota = facts.machine.quota
    if quota is None:
        return Check("CPU quota", "ok", "none")
    found = f"{quota:g} CPUs' worth of time for {facts.machine.cpus} CPUs"
    if quota >= facts.machine.cpus:
        return Check("CPU quota", "ok", found)
    better = "as much quota as CPUs, or fewer CPUs: when it is used up, holders stop in the middle of things"
    return Check("CPU quota", "note", found, "spins are kept short", better)


def _hypervisor(facts: Facts) -> Check:
    if facts.machine.hypervisor:
        return Check("hypervisor", "ok", "runs below", "waiters spin longer: a wake across CPUs is dear")
    return Check("hypervisor", "ok", "none")


def _futex(facts: Facts) -> Check:
    if facts.machine.futex:
        return Check("futex", "ok", "the calls that parking needs are there", facts.chosen("lock_spinning"))
    better = "let the sandbox permit futex: waiters can't sleep without it"
    return Check("futex", "bad", "FUTEX_WAIT_BITSET fails", facts.chosen("lock_spinning"), better)


def _robust() -> Check:
    head, size = ctypes.c_void_p(), ctypes.c_size_t()
    number = {"x86_64": 274, "aarch64": 100}.get(platform.machine())
    if number is None:
        return Check("robust futex", "ok", "not looked at on this processor")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, 0, ctypes.byref(head), ctypes.byref(size)) == 0 and head.value:
        return Check("robust futex", "ok", "the kernel marks the life words of threads that die")
    why = os.strerror(ctypes.get_errno()) if ctypes.get_errno() else "no list is registered"
    better = "let the sandbox permit set_robust_list: without it nobody hears of deaths"
    return Check("robust futex", "bad", why, "", better)


def _membarrier(facts: Facts) -> Check:
    if facts.machine.membarrier:
        return Check("membarrier", "ok", "GLOBAL_EXPEDITED works", facts.chosen("unlock_barrier"))
    better = "Linux 4.16 or a sandbox that permits membarrier: an unlock would need no fence"
    return Check("membarrier", "note", "does not work", facts.chosen("unlock_barrier"), better)


def _rseq(facts: Facts) -> Check:
    try:
        size = ctypes.c_uint.in_dll(ctypes.CDLL(None), "__rseq_size").value
    except ValueError:
        size = 0
    if size:
        return Check("rseq", "ok", "registered by the C library", "asking for the CPU takes no system call")
    better = "glibc 2.35 or later on Linux 4.18 or later: asking for the CPU would be quicker"
    return Check("rseq", "note", "not registered by the C library", "the CPU is asked for by getcpu", better)


def _shm(facts: Facts) -> Check:
    try:
        status = os.statvfs(segment.SHM)
    except OSError as error:
        better = f"mount a tmpfs at {segment.SHM}: named domains live there"
        return Check(segment.SHM, "bad", f"{error.strerror}", "anonymous domains alone", better)
    free, size = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    mounts = (line.split() for line in _lines(facts, "proc/mounts"))
    kind = next((words[2] for words in mounts if words[1:2] == [segment.SHM]), "no mount of its own")
    found = f"{kind}, {tables.memory(free)} of {tables.memory(size)} free"
    if status.f_flag & os.ST_RDONLY or not os.access(segment.SHM, os.W_OK):
        better = "mount it writable"
        return Check(segment.SHM, "bad", f"{found}, not writable", "anonymous domains alone", better)
    if kind not in ("tmpfs", "ramfs"):
        return Check(segment.SHM, "note", found, "", "a tmpfs: on a disk, pages of a domain are written back")
    if size > 0 and free < _ROOM:
        return Check(segment.SHM, "note", found, "", "free some, or raise its limit (docker run --shm-size)")
    return Check(segment.SHM, "ok", found, "named domains")


def _memory() -> Check:
    try:
        fd = os.memfd_create("pylocks", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as error:
        better = "let the sandbox permit memfd_create"
        return Check("memfd", "note", error.strerror or "", "an unlinked file in /dev/shm instead", better)
    os.close(fd)
    return Check("memfd", "ok", "works", "anonymous domains, sealed against truncation")


def _descriptors() -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = "no limit" if soft == resource.RLIM_INFINITY else f"{soft} for a process"
    chosen = f"a domain keeps one open; a process can have {lib.PLK_MAX_DOMAINS} domains"
    if soft != resource.RLIM_INFINITY and soft < _DESCRIPTORS:
        return Check("descriptors", "note", found, chosen, "raise the limit (ulimit -n)")
    return Check("descriptors", "ok", found, chosen)


def _patching(facts: Facts) -> Check:
    if facts.decision is None:
        return Check("patching", "bad", "not tried: no domain could be made", "", "see above")
    kinds = [row.kind for row in facts.rows]
    patched = sum(kind not in ("indirect", "compiled") for kind in kinds)
    found = f"{patched} of {len(kinds)} call sites are patched"
    if patched == len(kinds):
        return Check("patching", "ok", found, "direct calls, inlined instructions and nops")
    reason = next(row.reason for row in facts.rows if row.kind in ("indirect", "compiled")).rpartition("; ")[
        2
    ]
    if "PYLOCKS_PATCH=off" in reason:
        better = "leave PYLOCKS_PATCH at auto, unless a debugger needs the text as compiled"
    elif "can't be written" in reason:
        better = "permit writes through /proc/self/mem: a kernel or SELinux policy forbids them"
    else:
        better = "nothing: sites that stay as compiled do the same, some nanoseconds slower"
    return Check("patching", "note", f"{found} ({reason})", "indirect calls at the others", better)


def _preempted(facts: Facts) -> Check:
    choice = facts.chosen("vcpu_preempted")
    found = monitor.found()
    kernel = (facts.root / "sys/kernel/btf/vmlinux").exists()
    if not kernel:
        found = f"{found}; the kernel has no type information (BTF), so none can run here"
    return Check("preemption monitor", "ok", found, choice)


def _services() -> Check:
    """Of this user's domains; what they have decided is honoured there, not in this process."""
    served = [row.domain for row in Survey().look() if row.domain is not None]
    said = [
        f"{domain.label}: process {vcpu.pid}, {domain.policy or 'waiters wait as they see fit'}"
        for domain in served
        for vcpu in domain.vcpus
        if vcpu.index == domain.service and vcpu.alive
    ]
    return Check("services", "ok", "; ".join(said) or "none runs: waiters look after each other")


def _settings(facts: Facts) -> Check:
    given = {name: os.environ[name] for name in sorted(os.environ) if name.startswith("PYLOCKS_")}
    found = ", ".join(f"{name}={value}" for name, value in given.items()) or "none"
    if isinstance(facts.trouble, (errors.UnknownOpError, errors.ProtocolMismatchError)):
        return Check("settings", "bad", found, "", str(facts.trouble))
    unknown = set(given) - {"PYLOCKS_OPS", "PYLOCKS_PATCH", "PYLOCKS_PROTOCOL"}
    if unknown:
        return Check("settings", "note", found, "", f"nothing reads {', '.join(sorted(unknown))}")
    return Check("settings", "ok", found)


def _extras() -> Check:
    missing = []
    try:
        import rich  # noqa: F401
    except ImportError:
        missing.append('rich (pip install "pylocks[cli]") for pylocks top')
    try:
        stacks.program()
    except stacks.StacksError:
        missing.append('py-spy (pip install "pylocks[stacks]") for pylocks inspect --stacks')
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        missing.append("a C compiler for pylocks bench")
    if missing:
        return Check("optional programs", "note", "some are missing", "", "; ".join(missing))
    return Check("optional programs", "ok", "all there")


def _lines(facts: Facts, path: str) -> list[str]:
    try:
        return (facts.root / path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
