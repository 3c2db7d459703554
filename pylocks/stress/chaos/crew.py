"""The processes of a row of chaos: started, killed, stopped, interrupted and replaced."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pylocks._core import ffi, lib

from ..crew import Ended
from ..shared import now
from . import worker
from .area import ChaosArea
from .plan import ChaosPlan, Death, Stop

#: An interpreter started afresh looks for modules where this one does.
SPAWN = "import sys; sys.path[:] = sys.argv[2:]; from pylocks.stress.chaos.worker import main; main()"


@dataclass
class Sitter:
    """The process in a seat."""

    seat: int
    generation: int
    life: int
    pid: int
    stopped: int = 0  #: CLOCK_MONOTONIC ns; 0: it runs


class Crew:
    """One process a seat, always; must be used by a process with a single thread.

    ``close`` leaves nobody behind.
    """

    def __init__(self, area: ChaosArea, plan: ChaosPlan, domain: Any, locks: Sequence[Any]) -> None:
        self._area, self._plan, self._domain, self._locks = area, plan, domain, locks
        self._sitters: dict[int, Sitter] = {}
        self._dying: list[Sitter] = []
        self._generations = [0] * plan.processes
        self.lives = 0  #: processes started so far
        self.spawned = 0  #: of those, by a fresh interpreter
        self.deaths: list[Death] = []
        self.stops: list[Stop] = []
        self.ended: list[Ended] = []
        self.unexpected: list[tuple[int, int, int]] = []  #: (seat, life, exit code) of who ended by itself
        os.set_inheritable(area.fd, True)
        gc.freeze()  # a collection in a worker would only copy the pages it looks at

    def start(self, seat: int, *, spawn: bool = False) -> None:
        """Put a fresh process in an empty seat; OSError."""
        life, generation = self.lives, self._generations[seat]
        self.lives += 1
        self._generations[seat] += 1
        part = worker.Part(
            parent=os.getpid(),
            seed=self._plan.seed,
            seat=seat,
            generation=generation,
            life=life,
            processes=self._plan.processes,
            outside_loops=self._plan.outside_loops,
        )
        self._area.life(life).seat = seat
        pid = self._spawn(part) if spawn else self._fork(part)
        self._sitters[seat] = Sitter(seat, generation, life, pid)

    def _fork(self, part: worker.Part) -> int:
        pid = os.fork()
        if pid == 0:
            worker.run(self._area, part, self._locks)
        return pid

    def _spawn(self, part: worker.Part) -> int:
        self.spawned += 1
        given = part.argument(self._area, self._domain)
        command = [sys.executable, "-c", SPAWN, given, *sys.path]
        pid = os.fork()
        if pid == 0:
            # Before anything else, as it may be stopped at once, and nobody would continue it after its
            # parent's death; the new program keeps the wish.
            try:
                if lib.plk_probe_die_with(part.parent) == 0:
                    nowhere = os.open(os.devnull, os.O_RDWR)
                    os.dup2(nowhere, 0)
                    os.dup2(nowhere, 1)
                    os.execv(sys.executable, command)
            finally:
                os._exit(127)
        return pid

    def sits(self, sitter: Sitter) -> bool:
        """Whether that process is still in its seat."""
        return self._sitters.get(sitter.seat) is sitter

    def sitting(self) -> list[Sitter]:
        """Who has not been reaped."""
        return list(self._sitters.values())

    def kill(self, seats: Iterable[int]) -> list[int]:
        """Kill the processes in these seats, as nearly at once as can be; where there were any.

        Their seats are empty from now on; ``buried`` tells when they are dead.
        """
        victims = [self._sitters.pop(seat) for seat in seats if seat in self._sitters]
        for victim in victims:
            # Before the signal: whoever is let in because of this death finds it.
            self._area.life(victim.life).condemned = now()
            os.kill(victim.pid, signal.SIGKILL)
        self._dying += victims
        return [victim.seat for victim in victims]

    @property
    def dying(self) -> list[Sitter]:
        """Who has been killed and is not dead yet: that takes some CPU time."""
        return list(self._dying)

    def buried(self) -> list[Death]:
        """Those of the killed that have died since the last call."""
        fresh, still = [], []
        for victim in self._dying:
            code = self._wait(victim, os.WNOHANG)
            if code is None:
                still.append(victim)
            elif code == -signal.SIGKILL:
                fresh.append(self._death(victim))
            else:
                self._note_end(victim, code)
        self._dying = still
        self.deaths += fresh
        return fresh

    def _death(self, victim: Sitter) -> Death:
        me = self._area.life(victim.life)
        claims = self._area.claims(victim.life)
        if victim.stopped:
            self._note_stop(victim)
        return Death(
            victim.life, victim.seat, me.condemned, now(), claims, me.turns, stopped=bool(victim.stopped)
        )

    def interrupt(self, seat: int) -> bool:
        """What Ctrl-C does; whether somebody was there."""
        sitter = self._sitters.get(seat)
        if sitter is not None:
            os.kill(sitter.pid, signal.SIGINT)
        return sitter is not None

    def stop(self, seat: int) -> Sitter | None:
        """Stop the process in the seat; None if it is stopped already, or gone."""
        sitter = self._sitters.get(seat)
        if sitter is None or sitter.stopped:
            return None
        sitter.stopped = now()
        os.kill(sitter.pid, signal.SIGSTOP)
        return sitter

    def go_on(self, sitter: Sitter) -> None:
        """Continue a process that was stopped, unless it has been killed meanwhile."""
        if self.sits(sitter) and sitter.stopped:
            self._note_stop(sitter)
            sitter.stopped = 0
            os.kill(sitter.pid, signal.SIGCONT)

    def go_on_all(self) -> None:
        """Continue everybody."""
        for sitter in self.sitting():
            self.go_on(sitter)

    def _note_stop(self, sitter: Sitter) -> None:
        """While it can't do anything: what did it have in hand?"""
        locks = frozenset(claim.lock for claim in self._area.claims(sitter.life))
        guard = self._guard_holder() == sitter.pid
        self.stops.append(Stop(sitter.seat, sitter.stopped, now(), locks, guard))

    def _guard_holder(self) -> int:
        residue = ffi.new("struct plk_residue *")
        lib.plk_residue(self._domain.address, residue)
        return int(residue.guard_tid)

    def reap(self) -> int:
        """Take note of those who ended by themselves; how many still sit."""
        for sitter in self.sitting():
            code = self._wait(sitter, os.WNOHANG)
            if code is not None:
                del self._sitters[sitter.seat]
                # What it left behind is a dead man's; how it came to die is judged elsewhere.
                self._area.life(sitter.life).condemned = now()
                self._note_end(sitter, code)
        return len(self._sitters)

    def _note_end(self, sitter: Sitter, code: int) -> None:
        if code != 0 or self._area.control.stop == 0:
            self.unexpected.append((sitter.seat, sitter.life, code))

    def _wait(self, sitter: Sitter, flags: int) -> int | None:
        """Exit code of a process that has ended; None: it has not."""
        found, status, used = os.wait4(sitter.pid, flags)
        if found == 0:
            return None
        code = os.waitstatus_to_exitcode(status)
        self.ended.append(
            Ended(
                status=code,
                killed=code == -signal.SIGKILL,
                cpu_seconds=used.ru_utime + used.ru_stime,
                voluntary=used.ru_nvcsw,
                involuntary=used.ru_nivcsw,
            )
        )
        return code

    def close(self) -> None:
        """Leave nobody behind; nothing counts from now on."""
        self._area.control.closed = 1
        for sitter in self.sitting():
            with contextlib.suppress(ProcessLookupError):
                os.kill(sitter.pid, signal.SIGKILL)
        for sitter in [*self.sitting(), *self._dying]:
            self._wait(sitter, 0)
        self._sitters, self._dying = {}, []
