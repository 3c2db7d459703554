"""The patch table: which choice each op has in this process, why, and what its sites hold.

The mechanism is in C (csrc/patch); the decision is made here, once, at the process's first
attach: an explicit setting, else the domain's, else by what the machine is.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pylocks import machine, monitor
from pylocks._core import ffi, lib
from pylocks.errors import ProtocolMismatchError, UnknownOpError
from pylocks.spin import Spin, spin_for

if TYPE_CHECKING:
    from pylocks._core import CData

__all__ = ["Choice", "Decision", "Op", "Spin", "Traits", "choices", "decide", "ops", "slow_paths"]

KINDS = ("nop", "inline", "call")
PROTOCOLS: dict[str, int] = {"native": int(lib.PLK_NATIVE), "enlightened": int(lib.PLK_ENLIGHTENED)}
PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}
BARRIERS: dict[str, int] = {
    "fence": int(lib.PLK_BARRIER_FENCE),
    "membarrier": int(lib.PLK_BARRIER_MEMBARRIER),
}
BARRIER_NAMES = {number: name for name, number in BARRIERS.items()}

if lib.plk_core_register() != 0:  # the core's own sites come first in the table
    raise MemoryError("pylocks: no memory to register the core's patch sites")

HOSTED = "hosted"
"""The choice of lock_spinning, and of unlock_kick, that asks a service."""

# A native waiter never stops; this is how often it looks for abandoned tickets.
SPIN_TURNS_NATIVE = 4096


@dataclass(frozen=True)
class Choice:
    """One thing that an op can be."""

    op: str
    name: str
    meaning: str
    kind: str
    """"nop", "inline" or "call": what a patched site becomes."""
    protocol: str | None
    """The unlock protocol it needs; None: either."""
    sound: bool
    """False: broken on purpose, for tests of tests."""
    available: bool
    """The processor has what it needs."""
    index: int


@dataclass(frozen=True)
class Op:
    """One patch site as it is now."""

    op: str
    module: str
    address: int
    before: bytes
    """As compiled; empty where sites are not recorded."""
    after: bytes
    """Read back from the live text."""
    choice: str
    """Name of the choice; "" before the first attach."""
    kind: str
    """"nop", "inline" or "call" if patched; "indirect" or "compiled" if not."""
    reason: str


@dataclass(frozen=True)
class Traits:
    """What an existing domain asks of those who attach it."""

    protocol: str
    barrier: str
    """"fence": unlockers must fence; "membarrier": waiters do it for them."""
    slow_path: str
    """What its creator uses: a preference."""


@dataclass(frozen=True)
class Decision:
    """All that is chosen at the first attach."""

    protocol: str
    choices: Mapping[str, tuple[Choice, str]]
    """op -> (choice, reason)"""
    spin: Spin

    @property
    def slow_path(self) -> str:
        """The choice for lock_spinning."""
        return self.choices["lock_spinning"][0].name

    @property
    def barrier(self) -> str:
        """What a domain made by this process lives by: its unlockers may have no fence."""
        return "membarrier" if self.choices["unlock_barrier"][0].name == "membarrier" else "fence"


def _text(pointer: CData) -> str:
    return ffi.string(pointer).decode()


def _read_choices() -> tuple[Choice, ...]:
    view = ffi.new("struct plk_choice_view *")
    found = []
    for index in range(lib.plk_choice_count()):
        lib.plk_choice_view(index, view)
        found.append(
            Choice(
                op=_text(view.op),
                name=_text(view.name),
                meaning=_text(view.meaning),
                kind=KINDS[view.kind],
                protocol=PROTOCOL_NAMES.get(view.protocol),
                sound=bool(view.sound),
                available=bool(view.available),
                index=index,
            )
        )
    return tuple(found)


_CHOICES = _read_choices()
_OPS = tuple(_text(lib.plk_op_name(op)) for op in range(lib.plk_op_count()))


def choices(op: str | None = None) -> tuple[Choice, ...]:
    """All choices, or those of one op, in table order."""
    return tuple(c for c in _CHOICES if op is None or c.op == op)


def slow_paths(*, sound_only: bool = True) -> tuple[str, ...]:
    """Names of the slow paths, that is, of the choices for lock_spinning."""
    return tuple(c.name for c in choices("lock_spinning") if c.sound or not sound_only)


def _find(op: str, name: str) -> Choice:
    return next(c for c in _CHOICES if c.op == op and c.name == name)


def parse(text: str) -> dict[str, Choice]:
    """Read PYLOCKS_OPS: "op=choice,op=choice".

    Raises UnknownOpError for an op or choice that does not exist, one given twice, or one that
    this processor does not have.
    """
    asked: dict[str, Choice] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        op, equals, name = (piece.strip() for piece in item.partition("="))
        if not equals or not name:
            raise UnknownOpError(f"PYLOCKS_OPS: {item!r} is not of the form op=choice")
        if op not in _OPS:
            raise UnknownOpError(f"PYLOCKS_OPS: unknown op {op!r}; there are {', '.join(_OPS)}")
        if op in asked:
            raise UnknownOpError(f"PYLOCKS_OPS: op {op!r} is given twice")
        names = [c.name for c in choices(op)]
        if name not in names:
            raise UnknownOpError(
                f"PYLOCKS_OPS: unknown choice {name!r} for {op}; there are {', '.join(names)}"
            )
        choice = _find(op, name)
        if not choice.available:
            raise UnknownOpError(f"PYLOCKS_OPS: this processor has no {name!r} for {op}")
        asked[op] = choice
    return asked


def _one_of(variable: str, default: str, allowed: tuple[str, ...]) -> str:
    value = os.environ.get(variable, "").strip() or default
    if value not in allowed:
        raise UnknownOpError(f"{variable}: {value!r} is not one of {', '.join(allowed)}")
    return value


def _agree(asked: Mapping[str, Choice], protocol: str) -> None:
    """Refuse explicit choices that the protocol makes unsafe."""
    for choice in asked.values():
        if choice.protocol not in (None, protocol):
            raise ProtocolMismatchError(
                f"{choice.op}={choice.name} needs the {choice.protocol} unlock protocol, but this "
                f"process uses the {protocol} one: an unlocker and its waiters must agree. "
                f"Change PYLOCKS_OPS or PYLOCKS_PROTOCOL."
            )


def decide(
    asked: Mapping[str, Choice],
    protocol: str,
    facts: machine.Machine,
    domain: Traits | None = None,
    patch: bool = True,
) -> Decision:
    """Choose for every op: what was asked for, else the domain's, else by the facts.

    `protocol` is "native" or "enlightened"; `domain` the one to be attached, if it exists; `patch`
    whether sites will be rewritten.  Raises ProtocolMismatchError if an explicit choice does not go
    with the protocol.
    """
    _agree(asked, protocol)
    native = protocol == "native"
    spin = spin_for(facts)
    automatic = {
        "cpu_relax": ("pause", "the processor's spin hint"),
        "unlock_barrier": ("off", "native: nobody sleeps") if native else _barrier(facts, domain, patch),
        "lock_spinning": _slow_path(native, facts, domain),
        "unlock_kick": _kick(native, asked, facts, domain),
        "vcpu_preempted": ("off", "native: waiters always spin")
        if native
        else ("off", spin.reason)
        if spin.ns == 0
        else ("same_cpu", f"{facts.cpus} CPUs: don't spin on a holder last seen on one's own"),
        "lock_event": ("off", "no statistics unless asked for"),
    }
    chosen = {
        op: (asked[op], "explicit: PYLOCKS_OPS")
        if op in asked
        else (_find(op, automatic[op][0]), automatic[op][1])
        for op in _OPS
    }
    return Decision(protocol, chosen, spin)


def _barrier(facts: machine.Machine, domain: Traits | None, patch: bool) -> tuple[str, str]:
    if domain is not None:
        return domain.barrier, "the domain's members live by it"
    if not facts.membarrier:
        return "fence", "no membarrier here: an unlocker must not miss a sleeper"
    if facts.architecture != "x86_64" or not patch:
        return "fence", "unlock sites keep the fence that they are compiled with"
    return "membarrier", "an unlock without a fence: waiters interrupt the other CPUs before they sleep"


def _slow_path(native: bool, facts: machine.Machine, domain: Traits | None) -> tuple[str, str]:
    if native:
        return "native", "native protocol: the unlocker never kicks"
    if domain is not None and domain.slow_path in slow_paths() and domain.slow_path != "native":
        return domain.slow_path, "the domain's creator uses it"
    if not facts.futex:
        return "yield", "no futex here, so nobody could be woken"
    return "futex", "waiters sleep: right whether or not there are more threads than CPUs"


def _kick(
    native: bool, asked: Mapping[str, Choice], facts: machine.Machine, domain: Traits | None
) -> tuple[str, str]:
    if native:
        return "off", "native: waiters look for themselves"
    if (
        asked["lock_spinning"].name if "lock_spinning" in asked else _slow_path(native, facts, domain)[0]
    ) == HOSTED:
        return HOSTED, "lock_spinning=hosted: the service kicks as well"
    return "kick", "enlightened: waiters may sleep"


class _Process:
    """This process's decision, made once."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a signal handler may come this way, too
        self.decision: Decision | None = None
        self.ns_per_turn = 0.0

    def start(self, protocol: str, domain: Traits | None, where: str) -> Decision:
        """Decide and patch if that has not been done; return the decision.

        `protocol` is what the caller asks for ("auto" or a name), `domain` what `where` asks if it
        exists already.  Raises ProtocolMismatchError, UnknownOpError.
        """
        with self.lock:
            if self.decision is None:
                return self._first(protocol, domain, where)
            self._compare(protocol, domain, where, self.decision.protocol)
            self._compare_barrier(domain, where, self.decision.barrier)
            return self.decision

    @staticmethod
    def _compare(protocol: str, domain: Traits | None, where: str, mine: str) -> None:
        if domain is not None and domain.protocol != mine:
            raise ProtocolMismatchError(
                f"{where} uses the {domain.protocol} unlock protocol, but this process uses the {mine} "
                "one: a waiter that sleeps behind an unlocker that never kicks would sleep for ever. "
                f"Start this process with PYLOCKS_PROTOCOL={domain.protocol}, or use another domain."
            )
        if protocol not in ("auto", mine):
            raise ProtocolMismatchError(
                f"{where} is asked for with the {protocol} unlock protocol, but this process "
                f"uses the {mine} one, chosen at its first attach; a process has one protocol. "
                f"Start it with PYLOCKS_PROTOCOL={protocol}."
            )

    @staticmethod
    def _compare_barrier(domain: Traits | None, where: str, mine: str) -> None:
        if domain is None:
            return
        if domain.barrier == "fence" and mine == "membarrier":
            raise ProtocolMismatchError(
                f"{where} has waiters that rely on unlockers with unlock_barrier=fence, but this process "
                "uses unlock_barrier=membarrier: its unlocks could miss them. "
                "Start this process with PYLOCKS_OPS=unlock_barrier=fence."
            )
        if domain.barrier == "membarrier" and not lib.plk_membarrier_works():
            raise ProtocolMismatchError(
                f"{where} has unlockers with unlock_barrier=membarrier, and this kernel or sandbox does "
                "not let this process call membarrier as a waiter must. "
                "Start the others with PYLOCKS_OPS=unlock_barrier=fence."
            )

    def _first(self, protocol: str, domain: Traits | None, where: str) -> Decision:
        asked = parse(os.environ.get("PYLOCKS_OPS", ""))
        patch = _one_of("PYLOCKS_PATCH", "auto", ("auto", "off")) == "auto"
        wanted = _one_of("PYLOCKS_PROTOCOL", "auto", ("auto", *PROTOCOLS))
        if wanted == "auto":
            needs = [c.protocol for c in asked.values() if c.op == "lock_spinning"]
            wanted = (needs[0] if needs else None) or "auto"
        if wanted == "auto":
            found = domain.protocol if domain is not None else "enlightened"
            wanted = protocol if protocol != "auto" else found
        self._compare(protocol, domain, where, wanted)
        decision = decide(asked, wanted, machine.look(), domain, patch)
        self._compare_barrier(domain, where, decision.barrier)
        rc = lib.plk_apply([decision.choices[op][0].index for op in _OPS], patch)
        if rc == -errno.EBUSY:
            return self._adopt_applied(protocol, domain, where)
        if rc != 0:
            raise OSError(-rc, f"the patch table can't be applied: {os.strerror(-rc)}")
        self.decision = decision
        return decision

    def _adopt_applied(self, protocol: str, domain: Traits | None, where: str) -> Decision:
        """A signal handler was quicker, or has interrupted us before we could say what we did."""
        applied = {op: _CHOICES[lib.plk_chosen(i)] for i, op in enumerate(_OPS)}
        mine = applied["lock_spinning"].protocol or "enlightened"
        self._compare(protocol, domain, where, mine)
        decision = decide(applied, mine, machine.look())
        self._compare_barrier(domain, where, decision.barrier)
        self.decision = decision
        return decision

    def look_for_monitor(self) -> None:
        """Have this process find the marks that vcpu_preempted=bpf reads, if that is chosen; never waits."""
        if self.decision is not None and self.decision.choices["vcpu_preempted"][0].name == "bpf":
            lib.plk_monitor_look()

    def tune(self, segment: CData) -> None:
        """Tell a segment that this process has attached how to wait."""
        assert self.decision is not None
        if self.ns_per_turn == 0:
            self.ns_per_turn = lib.plk_calibrate()
        if self.decision.protocol == "native":
            lib.plk_segment_spin(segment, SPIN_TURNS_NATIVE, 1)
            return
        spin = self.decision.spin
        lib.plk_segment_spin(segment, int(spin.ns / self.ns_per_turn), spin.near)
        lib.plk_segment_learn(segment, spin.ns, self.ns_per_turn)
        # Whom the service kicks is its own affair: those who park do not kick each other as well.
        ahead = 0 if self.decision.slow_path == HOSTED else spin.ahead
        lib.plk_segment_crowd(segment, spin.crowd, ahead, spin.cpus)


process = _Process()
os.register_at_fork(after_in_child=lambda: setattr(process, "lock", threading.RLock()))

# What enum plk_site_status means, in its order.
_STATUS = (
    "not patched yet: no domain is attached",
    "patched",
    "not patched: PYLOCKS_PATCH=off",
    "not patched: the text can't be written",
    "not patched: the target is too far for a direct call",
    "not patched: unexpected bytes",
)
_PATCHED = 1
_UNWRITABLE = 3


def _choice_of(op: int) -> tuple[str, str, str]:
    """(name, kind, reason) of what is chosen for the op."""
    index = lib.plk_chosen(op)
    if index < 0 or process.decision is None:
        return "", "", ""
    choice, reason = process.decision.choices[_OPS[op]]
    if (choice.op, choice.name) == ("vcpu_preempted", "bpf"):
        reason += f"; {monitor.found()}"
    return choice.name, choice.kind, reason + "; "


def _unrecorded(module: str, op: int) -> Op:
    name, _, reason = _choice_of(op)
    return Op(_OPS[op], module, 0, b"", b"", name, "indirect", reason + "no patcher for this processor")


def ops() -> tuple[Op, ...]:
    """The patch table: one row a patch site of every registered module, as it is now."""
    row = ffi.new("struct plk_site_row *")
    rows = []
    for index in range(lib.plk_site_count()):
        lib.plk_site_at(index, row)
        name, kind, reason = _choice_of(row.op)
        status = _STATUS[row.status]
        if row.status == _UNWRITABLE and row.error:
            status += f" ({os.strerror(row.error)})"
        if name:
            kind = KINDS[row.kind]
        if row.place and name:
            reason += "in the uncontended path; "
        if row.status != _PATCHED:
            kind = "compiled" if _OPS[row.op] == "unlock_barrier" or row.place else "indirect"
        rows.append(
            Op(
                op=_OPS[row.op],
                module=_text(row.module),
                address=row.address,
                before=bytes(row.before),
                after=bytes(row.after),
                choice=name,
                kind=kind,
                reason=reason + status,
            )
        )
    if not rows:
        names = [_text(lib.plk_module_name(i)) for i in range(lib.plk_module_count())]
        rows = [_unrecorded(module, op) for module in names for op in range(len(_OPS))]
    return tuple(rows)
