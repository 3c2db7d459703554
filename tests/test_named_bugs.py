"""Bugs that other locks already had, each by its name: the table, and the tests that no other file has.

Schedules are forced by stopping the shipped binary between two instructions (ptrace), as in
test_schedule.py.  What ptrace alone can't show, a store that lingers in a store buffer, is played
here: the store is taken back from memory and comes out when a fence, or somebody's membarrier,
flushes it.
"""

from __future__ import annotations

import ast
import contextlib
import errno
import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from parties import Access, Party
from ptracing import SYSCALL_STOP, Instruction
from schedules import ATTEMPTS, QUEUE, Overslept, explore, overslept
from staging import CELL, Stage, Staging, idle
from support import header
from words import Words

from pylocks.ops import choices

pytest_plugins = ["stage_fixtures"]

BUGS: dict[str, tuple[str, ...]] = {
    "a barrier for the compiler only, between release and the look for waiters (Linux 2496afbf1e50)": (
        "test_named_bugs.py::test_a_store_of_head_that_lingers_loses_no_kick",
        "test_named_bugs.py::test_a_barrier_for_the_compiler_only_is_found",
        "test_patch.py::test_the_fence_stands_between_the_store_of_head_and_the_look_at_slow",
        "test_uncontended.py::test_head_is_stored_before_the_fence_and_slow_is_read_behind_it",
    ),
    "a nested taker consumes the wake of the wait that it interrupted (Linux 168d2f464ab9)": (
        "test_named_bugs.py::test_a_nested_taker_loses_no_kick_of_the_outer_wait",
        "test_queue.py::test_a_nested_taker_consumes_no_kick_of_the_wait_it_interrupts",
        "test_leave.py::test_handlers_that_wait_in_handlers_that_wait",
    ),
    "the slow flag is set after the last look at head (Linux 96f853eaa889)": (
        "test_schedule.py::test_no_kick_is_lost_between_looking_and_sleeping",
        "test_schedule.py::test_the_holder_clears_slow_while_others_arrive",
        "test_schedule.py::test_only_the_holder_clears_slow",
    ),
    "unlock touches the lock after its release, when its memory may be gone (Linux d6abfdb20223)": (
        "test_named_bugs.py::test_no_memory_goes_away_under_an_unlock",
        "test_uncontended.py::test_nothing_of_the_cell_is_written_once_it_is_released",
        "test_schedule.py::test_a_kick_that_comes_late_finds_the_cell_used_by_another_lock",
    ),
    "patching is used before it is initialised (Linux a945928ea270)": (
        "test_patch.py::test_before_any_attach_the_rows_say_so",
        "test_patch.py::test_the_table_is_applied_once",
        "test_third_party.py::test_its_sites_are_patched_whenever_it_is_loaded",
        "test_third_party.py::test_use_without_registration_ends_the_program_with_a_message",
    ),
    "a reset of statistics races with counting (Linux 92b75202e5e8)": (
        "test_named_bugs.py::test_counters_are_not_reset_where_a_slot_is_used_again",
        "test_named_bugs.py::test_sums_go_on_over_reused_slots",
    ),
    "paravirtual locking is left on where there is one CPU (Linux 3553ae5690a8)": (
        "test_named_bugs.py::test_where_there_is_one_cpu_nobody_spins",
        "test_machine.py::test_one_cpu_never_spins",
        "test_contract.py::test_contract_on_one_cpu",
    ),
    "the wrong variant on bare metal (Linux e639222a5119)": (
        "test_machine.py::test_native_does_nothing_for_sleepers",
        "test_machine.py::test_what_does_not_go_with_the_protocol_is_refused",
        "test_bad_settings.py::test_protocols_are_not_mixed",
    ),
    "a missed wake that is slept off, up to a bound (gperftools 93a69c4df287)": (
        "test_schedule.py::test_no_kick_is_lost_between_looking_and_sleeping",
        "test_schedule.py::test_no_ticket_is_lost_between_leaving_and_being_served",
        "test_queue.py::test_two_tickets_of_two_locks_on_one_channel",
    ),
    "an undersized segment ends its users with SIGBUS (posix_ipc #51)": (
        "test_bad_input.py::test_another_length",
        "test_memory.py::test_no_memory_for_what_is_used_next",
        "test_memory.py::test_an_anonymous_segment_keeps_its_length",
    ),
    "fork between attach and use": (
        "test_named_bugs.py::test_fork_between_attach_and_use",
        "test_patch.py::test_a_forked_child_inherits_the_patches",
        "test_patch.py::test_a_child_forked_before_the_first_attach_decides_by_itself",
        "support/contract_fork.py::forks_before_anybody_has_used_the_domain",
    ),
}


def test_every_test_of_the_table_exists() -> None:
    here = Path(__file__).parent
    named = [each for tests in BUGS.values() for each in tests]
    for file in {each.partition("::")[0] for each in named}:
        functions = {
            node.name
            for node in ast.parse((here / file).read_text()).body
            if isinstance(node, ast.FunctionDef)
        }
        missing = {each.partition("::")[2] for each in named if each.startswith(f"{file}::")} - functions
        assert not missing, f"{file}: {missing}"
    mine = {f"{Path(__file__).name}::{name}" for name in globals() if name.startswith("test_")}
    assert mine - set(named) == {f"{Path(__file__).name}::test_every_test_of_the_table_exists"}


# ------------------------------------------------------------------ a store that lingers

SYS_MEMBARRIER = 324


def _flushes(instruction: Instruction) -> bool:
    text = instruction.text
    return text.startswith(("lock ", "mfence")) or (text.startswith("xchg") and "ptr" in text)


class StoreBuffer:
    """Keeps a thread's store of head from all others until a fence lets it out."""

    def __init__(self, words: Words, unlocker: Party, waiter: Party, honest: bool) -> None:
        self._words, self._unlocker, self._honest = words, unlocker, honest
        self._place = words.cell(CELL, "head")
        self._kept: int | None = None
        assert unlocker.tracee is not None and waiter.tracee is not None
        stopped, tracee = waiter._stopped, waiter.tracee

        def and_flush(stop: int) -> None:
            stopped(stop)
            if (
                stop == SYSCALL_STOP
                and tracee.in_syscall
                and tracee.registers()["orig_rax"] == SYS_MEMBARRIER
            ):
                self.flush()

        waiter._stopped = and_flush  # type: ignore[method-assign]

    def flush(self, anyway: bool = False) -> None:
        """A fence: the store is seen by all, unless fences are only for the compiler."""
        if self._kept is not None and (self._honest or anyway):
            self._words.put64(self._place, self._kept)
            self._kept = None

    def step(self) -> bool:
        """Execute one instruction of the unlock; False: it has ended."""
        tracee = self._unlocker.tracee
        assert tracee is not None
        registers = tracee.registers()
        instruction = tracee.instruction(registers["rip"])
        if instruction.is_trap:
            tracee.step()
            self._unlocker.ended = True
            return False
        if _flushes(instruction) or instruction.is_syscall:
            self.flush()
        if self._unlocker.is_foreign(registers["rip"]):
            tracee.return_from(registers)
            return True
        before = self._words.u64(self._place)
        tracee.step()
        after = self._words.u64(self._place)
        if after != before:
            self._kept = after
            self._words.put64(self._place, before)
        return True


def _lingering(s: Stage, honest: bool, stop: int) -> tuple[bool, bool]:
    """Run an unlock by `stop` instructions, the waiter to its sleep, and both to their ends.

    Whether the unlock got that far, and whether the waiter was kicked, or needed none.
    """
    holder, waiter = s.parties
    assert holder.ask("stepping.take(0)") == 0
    assert waiter.ask("stepping.take(0)") == 1
    buffer = StoreBuffer(s.words, holder, waiter, honest)
    holder.begin("unlock(0)")
    further = all(buffer.step() for _ in range(stop))
    waiter.begin("turn(0)")
    waiter.sleep_or_end()
    while not holder.ended and buffer.step():
        pass
    buffer.flush(anyway=True)  # a buffer empties by itself in the end
    assert holder.end() == 0
    assert waiter.end() == 0
    del waiter._stopped
    assert waiter.ask("stepping.unlock(0)") == 0
    if honest:
        overslept(waiter)
    return further, not waiter.overslept


BARRIERS = [c.name for c in choices("unlock_barrier") if c.protocol != "native" and c.available]


@pytest.mark.parametrize("barrier", BARRIERS)
def test_a_store_of_head_that_lingers_loses_no_kick(stage: Staging, barrier: str) -> None:
    """[K1] Whoever fences, unlocker or waiter: one sees the other, wherever the unlock is stopped."""
    s = stage(2, PYLOCKS_OPS=f"unlock_barrier={barrier}")
    stop, further = 0, True
    while further:
        for _ in range(ATTEMPTS):
            with contextlib.suppress(Overslept):
                further, kicked = _lingering(s, True, stop)
                break
        else:
            raise AssertionError(f"{stop}: the watchdog ended the sleep again and again")
        assert kicked, f"a kick was lost: the unlock was stopped after {stop} instructions"
        idle(s)
        stop += 1
    assert stop > 10


@pytest.mark.parametrize("barrier", BARRIERS)
def test_a_barrier_for_the_compiler_only_is_found(stage: Staging, barrier: str) -> None:
    """The same with fences that flush nothing loses kicks: the test above can fail."""
    s = stage(2, PYLOCKS_OPS=f"unlock_barrier={barrier}")
    lost, stop, further = 0, 0, True
    while further and not lost:
        further, kicked = _lingering(s, False, stop)
        lost += not kicked
        stop += 1
    assert lost, "no schedule lost a kick"


# ------------------------------------------------------------------ a nested taker


def _on_one_channel(words: Words) -> int:
    """A ticket of the second lock that shares channel and bit with ticket 1 of the first."""
    wanted = words.channel(CELL, 1)
    return next(t for t in range(1, 10_000_000) if words.channel(1, t) == wanted)


@pytest.mark.parametrize("shared", (False, True), ids=("any-channels", "one-channel"))
def test_a_nested_taker_loses_no_kick_of_the_outer_wait(stage: Staging, shared: bool) -> None:
    """The outer lock is released anywhere in a handler's wait for another, which ends later."""
    s = stage(3)
    holder, inner, waiter = s.parties
    for party in s.parties:
        assert party.ask('(bind("y"), domain.lock("y").index)') == [1, 1]
    ticket = _on_one_channel(s.words) if shared else 1

    def prepare() -> None:
        for index, next_ticket in ((CELL, 0), (1, ticket - 1)):
            for word, value in (("tail", next_ticket), ("head", next_ticket), ("owner", 0)):
                s.words.put64(s.words.cell(index, word), value)
        assert holder.ask("stepping.take(0)") == 0
        assert inner.ask("stepping.take(1)") == 0
        assert waiter.ask("stepping.take(0)") == 1

    def conclude() -> None:
        if not shared:
            assert holder.end() == 0
        assert not waiter.ended, "the inner wait has ended, and nobody let it in"
        assert inner.ask("stepping.unlock(1)") == 0
        assert waiter.end() == 0
        assert waiter.ask("stepping.unlock(0)") == 0
        idle(s)
        inside = s.words.read(1)
        assert inside["head"] == inside["tail"] == ticket + 1
        overslept(waiter)

    def between() -> None:
        assert holder.ask("stepping.unlock(0)") == 0

    if shared:
        schedules = explore(s.words, QUEUE, waiter, "nested(0)", waiter, "", prepare, conclude, between)
    else:
        schedules = explore(s.words, QUEUE, waiter, "nested(0)", holder, "unlock(0)", prepare, conclude)
    assert len({a for a, _ in schedules}) >= 8


# ------------------------------------------------------------------ one CPU


def _spins(party: Party) -> int:
    """`pause` instructions that its wait executes before it sleeps."""
    tracee, count = party.tracee, 0
    assert tracee is not None
    party.begin("turn(0)")
    while True:
        registers = tracee.registers()
        instruction = tracee.instruction(registers["rip"])
        if instruction.is_syscall and registers["rax"] == 202:
            return count
        if party.is_foreign(registers["rip"]):
            tracee.return_from(registers)
            continue
        count += instruction.text == "pause"
        tracee.step()


@pytest.mark.parametrize("spinning", (False, True), ids=("as-decided", "made-to-spin"))
def test_where_there_is_one_cpu_nobody_spins(stage: Staging, spinning: bool) -> None:
    """The processes of a forced schedule have one CPU; each waits without a turn of a spin."""
    s = stage(2, PYLOCKS_OPS="cpu_relax=pause,vcpu_preempted=off")
    holder, waiter = s.parties
    if spinning:  # and then sleep at once: who stays awake looks again and again
        waiter.define(
            "from pylocks._core import lib\n"
            "lib.plk_segment_spin(domain._segment, 20, 8)\n"
            "lib.plk_segment_crowd(domain._segment, 0, 0, 1)"
        )
    assert holder.ask("stepping.take(0)") == 0
    assert waiter.ask("stepping.take(0)") == 1
    assert _spins(waiter) == (20 if spinning else 0)
    waiter.sleep_or_end()
    assert holder.ask("stepping.unlock(0)") == 0
    assert waiter.end() == 0


# ------------------------------------------------------------------ counters


def _slot_accesses(access: Access) -> bool:
    return access.region in ("vcpus", "header")


def test_counters_are_not_reset_where_a_slot_is_used_again(stage: Staging) -> None:
    """Wherever the registration is stopped that takes over a dead thread's slot, the sum stands."""
    s = stage(2, PYLOCKS_OPS="lock_event=counters")
    reader, victim = s.parties
    assert reader.ask("stepping.take(0)") == 0
    assert victim.ask("stepping.give_up(0)") == -errno.ETIMEDOUT
    assert reader.ask("(domain.stats().waits, domain.stats().abandons)") == [1, 1]
    assert reader.ask("stepping.unlock(0)") == 0
    index = s.words.vcpu_of(victim.process.pid)
    victim.kill()
    heir = s.add_party()
    heir.begin("try_pair(0)")
    stops = 0
    while heir.next_access(_slot_accesses) is not None:
        assert reader.ask("(domain.stats().waits, domain.stats().abandons)") == [1, 1]
        assert len(reader.ask("[v.index for v in domain.vcpus()]")) in (1, 2)
        assert heir.tracee is not None
        heir.tracee.step()
        stops += 1
    assert heir.end() == 0
    assert s.words.vcpu_of(heir.process.pid) == index
    assert stops > 20
    idle(s)


def test_sums_go_on_over_reused_slots(stage: Staging) -> None:
    """One process after the other, half of them killed: two slots, and nothing uncounted."""
    s = stage(1, traced=False, PYLOCKS_OPS="lock_event=counters")
    reader = s.parties[0]
    assert reader.ask("stepping.take(0)") == 0
    for number in range(6):
        party = s.add_party()
        assert party.ask("domain.lock('x').acquire(timeout=0.001)") is False
        if number % 2:
            party.kill()
        else:
            assert party.process.stdin is not None
            party.process.stdin.close()
            assert party.process.wait() == 0
        assert reader.ask("(domain.stats().waits, domain.stats().abandons)") == [number + 1] * 2
    assert header.read(s.path).vcpus_next == 2
    assert reader.ask("stepping.unlock(0)") == 0
    idle(s)


# ------------------------------------------------------------------ beside a thread that stands still

ASSISTANT = """
import os, threading
def assist(requests, answers):
    with open(requests) as lines, open(answers, "w") as out:
        for line in lines:
            try:
                said = repr(eval(line))
            except Exception as error:
                said = type(error).__name__
            print(said, file=out, flush=True)
threading.Thread(target=assist, args={pipes!r}, daemon=True).start()
lock = domain.lock("x")
children = []
def fork():
    child = os.fork()
    if child == 0:
        well = False
        try:
            well = lock.acquire(timeout=30) and lock.owner.pid == os.getpid()
            lock.release()
        finally:
            os._exit(0 if well else 1)
    children.append(child)
def ends():
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
"""


@contextmanager
def assistant(party: Party, folder: Path) -> Iterator[Callable[[str], Any]]:
    """Another thread of the party's process, which evaluates expressions while the first stands still."""
    pipes = tuple(str(folder / name) for name in ("requests", "answers"))
    for pipe in pipes:
        os.mkfifo(pipe)
    party.define(ASSISTANT.format(pipes=pipes))
    with open(pipes[0], "w") as requests, open(pipes[1]) as answers:

        def ask(expression: str) -> Any:
            print(expression, file=requests, flush=True)
            heard, _, _ = select.select([answers], [], [], 60)
            assert heard, f"no answer: {expression}"
            return answers.readline().strip()

        yield ask


def test_no_memory_goes_away_under_an_unlock(stage: Staging, tmp_path: Path) -> None:
    """Until its last access, another thread that closes the domain is refused."""
    s = stage(2)
    (party, other) = s.parties
    assert party.ask("stepping.take(0)") == 0
    s.words.put32(s.words.cell(CELL, "slow"), 2)  # it goes the long way
    with assistant(party, tmp_path) as ask:
        party.begin("unlock_aside(0)")
        stops = 0
        while party.next_access(lambda access: True) is not None:
            assert ask("domain.close()") == "DomainBusyError"
            assert party.tracee is not None
            party.tracee.step()
            stops += 1
        assert party.end() == 0
        assert stops > 6
        assert ask("domain.close()") == "None"
    assert other.ask("stepping.try_pair(0)") == 0


def test_fork_between_attach_and_use(stage: Staging, tmp_path: Path) -> None:
    """Another thread forks wherever the first use stands still: children register as themselves."""
    s = stage(1)
    (party,) = s.parties
    with assistant(party, tmp_path) as ask:
        party.begin("acquire_aside(0)")
        stops = 0
        while party.next_access(_slot_accesses) is not None:
            assert ask("fork()") == "None"
            assert party.tracee is not None
            party.tracee.step()
            stops += 1
        assert party.end() == 0
        assert stops > 20
        assert party.ask("stepping.unlock(0)") == 0
        assert ask("ends()") == repr([0] * stops)
    assert s.words.read(CELL)["tail"] == stops + 1
    idle(s)
