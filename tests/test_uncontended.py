"""A lock that is free costs no call, no system call and no memory: stepped through.

Where events are asked for, it costs two calls that nobody notices.

Every instruction of an uncontended pair is executed one by one, as compiled into somebody's
extension, and inside CPython as `with lock: pass`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from parties import Party, Step
from patching import Elf, build, have, instructions
from ptracing import SYS_MMAP, SYS_MPROTECT, SYS_PKEY_MPROTECT, Instruction, map_of, system_calls, why_not
from staging import CELL, Stage, Staging

from pylocks import _core

pytest_plugins = ["stage_fixtures"]

MODES = [
    pytest.param({"PYLOCKS_PROTOCOL": "native"}, 1, id="native"),
    pytest.param({"PYLOCKS_PROTOCOL": "native", "PYLOCKS_PATCH": "off"}, 2, id="native-unpatched"),
    pytest.param({"PYLOCKS_OPS": "unlock_barrier=fence"}, 2, id="fence"),
    pytest.param({"PYLOCKS_OPS": "unlock_barrier=fence", "PYLOCKS_PATCH": "off"}, 2, id="unpatched"),
    pytest.param({"PYLOCKS_OPS": "lock_event=trace", "PYLOCKS_PATCH": "off"}, 2, id="trace-unpatched"),
    pytest.param({}, None, id="automatic"),
]
"""Settings, and locked instructions in a pair where they do not depend on the machine."""


def code_of(party: Party, *names: str) -> list[tuple[int, int]]:
    """Where the modules of these file names lie in the process."""
    return [(a, b) for a, b, path in map_of(party.process.pid) if any(name in path for name in names)]


def check_pair(steps: list[Step], party: Party) -> None:
    own = code_of(party, "/stepping.")
    assert steps
    for step in steps:
        text = step.instruction.text
        assert not step.instruction.is_call and not step.instruction.is_syscall, text
        assert not text.startswith(("ret", "jmp r", "jmp q")), text
        assert any(start <= step.rip < end for start, end in own), f"{text} is somebody else's"
    assert len(steps) < 80


@pytest.mark.parametrize("operation", ["take_pair(0)", "try_pair(0)"])
@pytest.mark.parametrize(("settings", "locked"), MODES)
def test_a_pair_makes_no_call(
    stage: Staging, settings: dict[str, str], locked: int | None, operation: str
) -> None:
    s = stage(1, **settings)
    (party,) = s.parties
    assert party.ask(f"stepping.{operation}") == 0  # registers the thread
    party.begin(operation)
    steps = party.trail()
    assert party.end() == 0
    check_pair(steps, party)
    fences = [step for step in steps if re.match(r"lock |xchg .*ptr|mfence", step.instruction.text)]
    assert len(fences) == locked or (locked is None and len(fences) in (1, 2))


def test_head_is_stored_before_the_fence_and_slow_is_read_behind_it(stage: Staging) -> None:
    """[K1] [K2] The unlocker's half, as executed."""
    s = stage(1, PYLOCKS_OPS="unlock_barrier=fence")
    (party,) = s.parties
    assert party.ask("stepping.take(0)") == 0
    party.begin("unlock(0)")
    steps = party.trail()
    assert party.end() == 0
    head, slow = (party.segment + s.words.cell(CELL, name) for name in ("head", "slow"))
    stores = [n for n, step in enumerate(steps) if (head, True) in step.addresses]
    fences = [n for n, step in enumerate(steps) if step.instruction.text.startswith("lock or ")]
    looks = [n for n, step in enumerate(steps) if (slow, False) in step.addresses]
    assert len(stores) == len(fences) == 1
    assert stores[0] < fences[0] < looks[-1]


def test_nothing_of_the_cell_is_written_once_it_is_released(stage: Staging) -> None:
    """Linux had to redesign an unlock that touched the lock after its release (d6abfdb20223)."""
    s = stage(1)
    (party,) = s.parties
    assert party.ask("stepping.take(0)") == 0
    s.words.put32(s.words.cell(CELL, "slow"), 2)
    party.begin("unlock(0)")
    steps = party.trail()
    assert party.end() == 0
    start = party.segment + s.words.cell(CELL, "tail")
    head = party.segment + s.words.cell(CELL, "head")
    released = next(n for n, step in enumerate(steps) if (head, True) in step.addresses)
    for step in steps[released + 1 :]:
        assert not any(start <= at < start + 32 and written for at, written in step.addresses), step


@pytest.mark.parametrize("compiler", ["clang"])
def test_a_pair_makes_no_call_whoever_compiles_it(
    tmp_path: Path, staged_with: Callable[[Path], Stage], compiler: str
) -> None:
    if not have(compiler):
        pytest.skip(f"no {compiler} here")
    s = staged_with(build("stepping", ["stepping.c"], tmp_path, command=[compiler]))
    (party,) = s.parties
    for operation in ("take_pair(0)", "try_pair(0)"):
        assert party.ask(f"stepping.{operation}") == 0
        party.begin(operation)
        steps = party.trail()
        assert party.end() == 0
        check_pair(steps, party)


@pytest.fixture
def staged_with() -> Iterator[Callable[[Path], Stage]]:
    """A stage of one party that uses another build of the extension."""
    made: list[Stage] = []

    def make(extension: Path) -> Stage:
        if why_not():
            pytest.skip(why_not())
        made.append(Stage(extension, 1, None, True))
        return made[-1]

    yield make
    for one in made:
        one.close()


PYTHON = """
import ctypes
lock = domain.lock("x")
def with_statement():
    stepping.trap()
    with lock:
        pass
    stepping.trap()
def calls():
    stepping.trap()
    lock.acquire()
    lock.release()
    stepping.trap()
def address(name):
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
with lock:
    pass
"""


@pytest.mark.parametrize("what", ["with_statement", "calls"])
@pytest.mark.parametrize("settings", [{}, {"PYLOCKS_PATCH": "off"}, {"PYLOCKS_PROTOCOL": "native"}], ids=str)
def test_python_keeps_the_gil_and_stays_out_of_the_core(
    stage: Staging, settings: dict[str, str], what: str
) -> None:
    """Between entering and leaving: no system call, nothing of pylocks._core, no release of the GIL."""
    s = stage(1, **settings)
    (party,) = s.parties
    party.define(PYTHON)
    party.ask(f"{what}.__name__")
    gil = {party.ask(f"address({name!r})") for name in ("PyEval_SaveThread", "PyEval_RestoreThread")}
    lock_code, core = code_of(party, "/_lock."), code_of(party, "/_core.")
    party.start(f"{what}()")
    steps = party.trail()
    assert party.end() is None

    inside = [any(a <= step.rip < b for a, b in lock_code) for step in steps]
    assert any(inside), "the lock was not used"
    for step in steps:
        assert not step.instruction.is_syscall
        assert step.rip not in gil
        assert not any(a <= step.rip < b for a, b in core), step
    # What the lock's own code calls is the interpreter's: no C library, no allocator of its own.
    places = map_of(party.process.pid)
    beyond = {
        path
        for one, step, was in zip(steps[1:], steps, inside[1:], strict=False)
        if not was and any(a <= step.rip < b for a, b in lock_code)
        for a, b, path in places
        if a <= one.rip < b
    }
    assert len(beyond) == 1 and re.search(r"/(lib)?python3[^/]*$", beyond.pop())


def test_no_memory_is_ever_made_writable_and_executable() -> None:
    """Every mapping and protection that importing, attaching, patching and locking ask for."""
    if why_not():
        pytest.skip(why_not())
    calls = system_calls("import pylocks\nwith pylocks.TicketLock():\n    pass\n")
    protections = [
        registers["rdx"]
        for number, registers in calls
        if number in (SYS_MMAP, SYS_MPROTECT, SYS_PKEY_MPROTECT)
    ]
    assert len(protections) > 10, "the tracing missed the loading of modules"
    assert not [prot for prot in protections if prot & 2 and prot & 4]


def steps_with_registers(party: Party) -> list[tuple[int, Instruction, dict[str, int]]]:
    """(rip, instruction, registers before it) of each that the operation executes."""
    tracee = party.tracee
    assert tracee is not None
    found = []
    while True:
        registers = tracee.registers()
        instruction = tracee.instruction(registers["rip"])
        if instruction.is_trap:
            tracee.step()
            party.ended = True
            return found
        found.append((registers["rip"], instruction, registers))
        tracee.step()


@pytest.mark.parametrize("operation", ["take_pair(0)", "try_pair(0)"])
@pytest.mark.parametrize("choice", ["counters", "trace"])
def test_events_of_a_free_lock_change_no_register(stage: Staging, choice: str, operation: str) -> None:
    """Two calls where events are asked for, no system call, and the caller finds all as it was."""
    s = stage(1, PYLOCKS_OPS=f"lock_event={choice}")
    (party,) = s.parties
    for _ in range(130):  # one of them is sampled
        assert party.ask(f"stepping.{operation}") == 0
    own = code_of(party, "/stepping.")
    core = code_of(party, "/_core.")
    party.begin(operation)
    steps = steps_with_registers(party)
    assert party.end() == 0
    mine = [n for n, (rip, _, _) in enumerate(steps) if any(a <= rip < b for a, b in own)]
    calls = [n for n in mine if steps[n][1].is_call]
    assert len(calls) == 2
    for rip, instruction, _ in steps:
        assert not instruction.is_syscall
        assert any(a <= rip < b for a, b in own + core)
    for call in calls:
        back = next(n for n in mine if n > call)
        before, after = steps[call][2], steps[back][2]
        changed = {name for name in before if before[name] != after[name]}
        assert changed <= {"rip", "eflags", "orig_rax"}, changed


def test_what_is_called_from_the_uncontended_path_uses_no_vector_register() -> None:
    elf = Elf.read(str(_core.__file__))
    if not elf.functions:
        pytest.skip("_core has no symbol table")
    names = re.compile(r"plk_((counters|trace)_(entered|left)|timed_(sample|over)|clock_bare)\b")
    found = [f for f in elf.functions if names.match(f.name)]
    assert len(found) >= 6
    for function in found:
        for i in instructions(elf.code(function.address, function.size), function.address):
            assert not re.search(r"[xyz]mm\d|\bst\b|\bmm\d", i.op_str), (
                f"{function.name}: {i.mnemonic} {i.op_str}"
            )
            if i.mnemonic == "call":  # nobody who does not know of this
                assert names.match(elf.function_at(i.operands[0].imm).name)
