"""A dead vCPU on the stage, laid out as if it had died at this point or that.

It is a process that has used the lock and was then killed while it held nothing: its slot is
online, and the kernel has marked its life word.  What it is supposed to have been doing is then
written into its slot and the cell from outside, as often as a test wants it to die.
"""

from __future__ import annotations

from staging import CELL, Stage, idle, until

ONLINE, NO_TICKET, OWNER_DIED = 2, 2**64 - 1, 2
LOCK = CELL + 1
"""What slots call the lock."""


class Corpse:
    """The slot of a thread that has died."""

    def __init__(self, s: Stage) -> None:
        self.words = s.words
        for party in s.parties:  # all have slots before one comes free
            assert party.ask("stepping.take_pair(0)") == 0
        party = s.parties.pop()
        self.index = s.words.vcpu_of(party.process.pid)
        party.kill()
        party.close()
        until("the kernel marks the life word", lambda: self._life() & 0x40000000 != 0)

    def _life(self) -> int:
        return self.words.u32(self.words.vcpu(self.index, "life"))

    @property
    def tag(self) -> int:
        """What owner records call it."""
        return self.index + 1

    def put(self, **fields: int) -> None:
        """Write fields of the slot."""
        for name, value in fields.items():
            wide = name == "ticket"
            (self.words.put64 if wide else self.words.put32)(self.words.vcpu(self.index, name), value)

    def get(self, name: str) -> int:
        return self.words.u32(self.words.vcpu(self.index, name))

    @property
    def buried(self) -> bool:
        """Recovered, and the slot given back."""
        return self.get("state") == 0 and self.get("held") == 0

    def draw(self) -> int:
        """A ticket of its own, the last in the queue."""
        at = self.words.cell(CELL, "tail")
        ticket = self.words.u64(at)
        self.words.put64(at, ticket + 1)
        return ticket

    def lie(self, **fields: int) -> None:
        """Be dead with these fields in the slot, and have the next waiter look."""
        self.put(**{"pending": 0, "ticket": NO_TICKET, "held": 1, **fields})
        self.put(state=ONLINE)
        self.words.put64(self.words.layout["header.looked_ns"], 0)

    def dies_at_its_xadd(self, drawn: bool = True) -> None:
        """Killed between announcing an acquisition and noting the ticket."""
        if drawn:
            self.draw()
        self.lie(pending=LOCK)

    def dies_waiting(self) -> None:
        """Killed in the queue."""
        self.lie(pending=LOCK, ticket=self.draw())

    def dies_holding(self) -> None:
        """Killed inside the critical section."""
        ticket = self.draw()
        self.words.put64(self.words.cell(CELL, "owner"), ticket << 16 | self.tag)
        self.lie(ticket=ticket)


def buried(s: Stage, corpse: Corpse) -> None:
    """The dead has been recovered, if not before then now, and nothing is left of it."""
    s.words.put64(s.words.layout["header.looked_ns"], 0)
    s.parties[0].ask("domain.recover()")
    assert corpse.buried
    idle(s)
