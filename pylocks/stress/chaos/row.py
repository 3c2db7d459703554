"""The process of one row of chaos: ``python -m pylocks.stress.chaos.row``, started by the runner.

It keeps a process in every seat, kills, stops and interrupts them as the seed
decides, and watches.  In the end it takes every lock itself, to see that it can.
Its input and output are those of the ordinary row.
"""

from __future__ import annotations

import heapq
import sys
import time
from typing import Any

from pylocks._core import ffi, lib

from ..row import COLLAPSE_GRACE, DRAIN_TICK, STALL, TICK, Machine, asked_to_stop, serve, tell
from ..shared import now
from ..subjects import Opened, Subject
from . import decisions, judge, sight, worker
from .area import ChaosArea
from .crew import Crew, Sitter
from .plan import ChaosPlan, Death, Stall
from .report import GOAL, build

LOOK = 0.01  #: seconds between two looks at the stalls, at most
#: Seconds of waiting for a lock that nobody is granted, while nobody is stopped, after which it is stuck.
PATIENCE = STALL
LONG = 0.5  #: seconds between two looks for stuck locks, of which more are not counted
AFTERMATH = 1.0  #: seconds for which a row goes on after the first violation
LATE = 10.0  #: times the seconds asked for, after which a row ends without the kills asked for
SIGHTS = 50  #: stalls beyond the goal of which it is noted how the lock stood
AUDIT = 10.0  #: seconds that the auditor waits for a lock


class Storm:
    """One row of chaos from the start to its result."""

    def __init__(self, plan: ChaosPlan, subject: Subject, opened: Opened) -> None:
        self.plan, self.subject, self.opened = plan, subject, opened
        self.domain: Any = opened.domain
        self.auditor_seat = plan.processes
        self.area = ChaosArea(
            plan.processes + 1,
            plan.locks,
            plan.lives,
            seed=plan.seed,
            cs_loops=plan.cs_loops,
            outside_loops=plan.outside_loops,
        )
        self.locks = worker.handles(self.domain, plan.locks)
        self.crew = Crew(self.area, plan, self.domain, self.locks)
        self.decided: list[decisions.Decision] = []
        self.moot = 0  #: decisions about a seat whose process could not be dealt with so
        self.stalls: list[Stall] = []
        self.pending: list[tuple[int, Death, str]] = []  # of stalls: lock, who died, how
        self._starved: dict[int, sight.Starvation] = {}  # by life that was killed
        self.sights: dict[tuple[int, int], dict[str, Any]] = {}  # lock, begin of a stall that got long
        self.stuck = judge.Stuck(int(PATIENCE * 1e9))
        self.stuck_state: dict[int, dict[str, Any]] = {}
        self.lost: list[dict[str, Any]] = []  #: who did not come out in the end
        self.after: dict[str, Any] = {}  #: what was found when everybody had gone
        self.ended = "deadline"
        self.started = self.stopped = 0  # CLOCK_MONOTONIC, ns
        self._continue: list[tuple[int, int, Sitter]] = []  # heap of (when, number, who)
        self._spawns: dict[int, bool] = {}  # by seat: how its next process is started
        self._wrong = False  # violated(), as of the last look
        self._looked = self._settled = 0
        self._told = self._counted = 0.0

    def run(self) -> dict[str, Any]:
        """Run the row and return its result; no process is left afterwards.

        Raises RunnerGone, or OSError if processes can't be started.
        """
        try:
            before = Machine.look()
            self.started = self._looked = self.area.control.opened = now()
            for seat in range(self.plan.processes):
                self.crew.start(seat)
            self._rage()
            self._bury()
            self.crew.go_on_all()
            self.area.control.stop = 1
            self.stopped = now()
            self._drain()
            if not self.violated():
                # Whoever was not waited for dies like all the others.
                self.crew.kill(range(self.plan.processes))
                self._bury()
                self._audit()
            self.crew.close()
            return build(self, before, Machine.look())
        finally:
            self.crew.close()
            self.area.close()

    def violated(self) -> bool:
        """Whether anything is wrong already."""
        return bool(self.stuck.found or self.lost or self.crew.unexpected or self.area.violations())

    # ------------------------------------------------------------ the storm

    def _rage(self) -> None:
        plan = self.plan
        killer = decisions.Killer(plan.seed, plan.processes, self._seconds, plan.kills)
        decision = killer.decision()
        due = self.started + int(decision.pause * 1e9)
        end: float | None = None
        while True:
            at = now()
            elapsed = (at - self.started) / 1e9
            if end is None and self._wrong:
                self.ended, end = "violated", elapsed + AFTERMATH
            if end is not None and elapsed >= end:
                return
            kills = len(self.crew.deaths)
            if elapsed >= self._seconds and kills >= plan.kills and end is None:
                return
            if elapsed >= LATE * self._seconds + PATIENCE:
                self.ended = "short"
                return
            if at >= due:
                self._carry_out(decision)
                decision = killer.decision()
                due += int(decision.pause * 1e9)
            if self._look(min(due, self._next_continue())):
                self.ended = "interrupted"
                return

    @property
    def _seconds(self) -> float:
        assert self.plan.seconds is not None  # chaos has no count of acquisitions to go by
        return self.plan.seconds

    def _carry_out(self, decision: decisions.Decision) -> None:
        self.decided.append(decision)
        if decision.what == "kill":
            self._kill(decision)
        elif decision.what == "interrupt":
            self.moot += not self.crew.interrupt(decision.seats[0])
        else:
            sitter = self.crew.stop(decision.seats[0])
            if sitter is None:
                self.moot += 1
            else:
                when = now() + int(decision.stop * 1e9)
                heapq.heappush(self._continue, (when, len(self.decided), sitter))

    def _kill(self, decision: decisions.Decision) -> None:
        killed = len(self.crew.deaths) + len(self.crew.dying)
        if killed + len(decision.seats) > self.plan.most_kills:
            self.moot += 1
            return
        starvation = sight.Starvation(self.crew, self.area)
        for sitter in self.crew.sitting():
            if sitter.seat in decision.seats:
                self._starved[sitter.life] = starvation
        seats = self.crew.kill(decision.seats)
        self.moot += len(seats) < len(decision.seats)  # somebody was not there yet
        self._spawns |= dict.fromkeys(seats, decision.spawn)

    def _replace_the_dead(self) -> None:
        for death in self.crew.buried():
            if self.area.control.stop == 0:
                self.crew.start(death.seat, spawn=self._spawns[death.seat])
            self._expect_grants(death)

    def _expect_grants(self, death: Death) -> None:
        for claim in death.claims:
            how = "inside" if claim.marked else claim.phase
            self.pending.append((claim.lock, death, how))

    # ------------------------------------------------------------ looking

    def _next_continue(self) -> int:
        return self._continue[0][0] if self._continue else sys.maxsize

    def _look(self, until: int) -> bool:
        """Do what is due every now and then, and sleep; True: the runner wants us to stop."""
        at = now()
        while self._continue and self._continue[0][0] <= at:
            self.crew.go_on(heapq.heappop(self._continue)[2])
        self._replace_the_dead()
        if at - self._settled >= LOOK * 1e9:
            self._settled = at
            waiting = self._waiting()
            self._settle_stalls(waiting)
            if at / 1e9 - self._counted >= TICK / 2:
                self._counted = at / 1e9
                self.crew.reap()
                self._look_for_stuck(at, waiting)
                self._wrong = self.violated()
            self._tell_progress(at)
        pause = DRAIN_TICK / 2 if self.crew.dying else LOOK
        return asked_to_stop(min(pause, max(0, until - now()) / 1e9))

    def _waiting(self) -> list[tuple[int, int]]:
        """(lock, since) of everybody who waits now."""
        return [
            (claim.lock, claim.since)
            for sitter in self.crew.sitting()
            for claim in self.area.claims(sitter.life)
            if claim.phase == "waiting"
        ]

    def _settle_stalls(self, waiting: list[tuple[int, int]]) -> None:
        """``waiting`` must be older than this look at the grants."""
        open_still = []
        for lock, death, how in self.pending:
            begin = death.condemned
            granted = self.area.first_grant(lock, begin)
            if granted is not None:
                if (lock, begin) in self.sights:
                    sight.later(self.sights[lock, begin])
                starved = self._starved[death.life].of(lock, granted.life)
                free = max(begin, granted.freed)
                self.stalls.append(Stall(lock, death.life, how, begin, free, granted.at, starved))
            elif any(other == lock and since <= begin for other, since in waiting):
                open_still.append((lock, death, how))
                if now() - begin > GOAL and len(self.sights) < SIGHTS and (lock, begin) not in self.sights:
                    self.sights[lock, begin] = self.state_of(lock)
            # Else nobody waited then, or all who did have given up or died.
        self.pending = open_still
        kept = {death.life for _, death, _ in open_still}
        dying = {sitter.life for sitter in self.crew.dying}
        self._starved = {life: each for life, each in self._starved.items() if life in kept | dying}

    def _look_for_stuck(self, at: int, waiting: list[tuple[int, int]]) -> None:
        stopped = any(sitter.stopped for sitter in self.crew.sitting())
        # Where we did not come to look ourselves, the machine was stopped.
        elapsed = 0 if stopped else min(at - self._looked, int(LONG * 1e9))
        self._looked = at
        grants = {lock: int(self.area.marks(lock).entered) for lock, _ in waiting}
        for lock in self.stuck.look(grants, grants, elapsed):
            self.stuck_state[lock] = self.state_of(lock)

    def state_of(self, lock: int) -> dict[str, Any]:
        """The lock as its domain sees it, for findings."""
        return sight.take(lock, self.locks[lock].index, self.domain, self.area, self.crew)

    def _tell_progress(self, at: int) -> None:
        if at / 1e9 - self._told < TICK:
            return
        self._told = at / 1e9
        tell(
            {
                "progress": {
                    "elapsed": (at - self.started) / 1e9,
                    "acquisitions": self.area.acquisitions(),
                    "kills": len(self.crew.deaths),
                }
            }
        )

    # ------------------------------------------------------------ the end

    def _drain(self) -> None:
        """Everybody is told to leave, and is waited for as long as there is progress."""
        since = moved = time.monotonic()
        done = (-1, -1)
        impatient = self.subject.collapses or self.ended in ("interrupted", "violated")
        while self.crew.reap() or self.crew.dying:
            self._replace_the_dead()
            waiting = self._waiting()
            self._settle_stalls(waiting)
            if done != (state := (self.area.acquisitions(), len(self.crew.sitting()))):
                done, moved = state, time.monotonic()
            if impatient and time.monotonic() - since >= COLLAPSE_GRACE:
                return
            if time.monotonic() - moved >= PATIENCE:
                self.lost = [self._describe(sitter) for sitter in self.crew.sitting()]
                return
            self._tell_progress(now())
            if asked_to_stop(DRAIN_TICK):
                self.ended = "interrupted"
                return

    def _bury(self) -> None:
        """Wait for the killed to die."""
        while self.crew.dying:
            self._replace_the_dead()
            time.sleep(DRAIN_TICK / 2)

    def _describe(self, sitter: Sitter) -> dict[str, Any]:
        """Somebody who did not come out."""
        claims = self.area.claims(sitter.life)
        about: dict[str, Any] = {"worker": sitter.seat, "life": sitter.life, "pid": sitter.pid}
        if claims:
            inmost = claims[-1]
            about |= {
                "lock": inmost.lock,
                "phase": inmost.phase,
                "waited_ns": now() - inmost.since,
                "holds": [claim.lock for claim in claims[:-1]],
                "state": self.state_of(inmost.lock),
            }
        return about

    def _audit(self) -> None:
        """Everybody has gone: nothing of the dead may be left, and every lock must be to be had."""
        self.after["recovered"] = self.domain.recover()
        part = worker.Part(
            parent=0,
            seed=self.plan.seed,
            seat=self.auditor_seat,
            generation=0,
            life=self.plan.lives - 1,
            processes=self.plan.processes,
            outside_loops=0,
        )
        self.area.life(part.life).seat = part.seat
        auditor = worker.Participant(self.area, part, self.locks)
        with auditor.listening():
            for lock in range(self.plan.locks):
                auditor.turn(decisions.Turn("within", lock, None, AUDIT, 0.0))
                self._tell_progress(now())
                if auditor.failed or self.area.life(part.life).timeouts:
                    self.after["refused"] = {"lock": lock, "state": self.state_of(lock)}
                    return
        residue = ffi.new("struct plk_residue *")
        lib.plk_residue(self.domain.address, residue)
        self.after |= {
            "tombstones": residue.tombs,
            "tombstones_counted": residue.tombs_live,
            "parked": residue.parked,
            "slots_of_the_dead": sum(not vcpu.alive for vcpu in self.domain.vcpus()),
            "not_free": [lock for lock in range(self.plan.locks) if self._in_use(lock)],
        }

    def _in_use(self, lock: int) -> bool:
        index = self.locks[lock].index
        cell = self.domain.cell(index)
        if self.plan.policy == "bounded":
            queue = self.domain.cell(index + 1)
            if queue.head != queue.tail:
                return True
        return bool(cell.head != cell.tail or cell.flags & lib.PLK_CELL_OWNER_DIED)


def main() -> int:
    """Entry point of the row process; returns its exit status."""
    return serve(ChaosPlan, Storm)


if __name__ == "__main__":
    sys.exit(main())
