"""How long a waiter spins, and who stays awake, by the facts of the machine."""

from __future__ import annotations

from dataclasses import dataclass

from pylocks import machine

__all__ = ["Spin", "spin_for"]

# Spinning is worth about the cost of a wake, which a hypervisor multiplies.
SPIN_NS_VIRTUAL = 50_000
SPIN_NS_METAL = 10_000
CROWD_PER_CPU = 8
"""Of so many waiters for each CPU, giving way to each other is still cheaper than sleep."""
AHEAD = 1
"""Of a longer queue, so many next in line are awake: the cheapest wake is to be had before the turn comes."""


@dataclass(frozen=True)
class Spin:
    """How long a waiter spins before it calls lock_spinning."""

    ns: int
    near: int
    """Spin only behind at most so many tickets."""
    reason: str
    crowd: int
    """While no more than so many are in a queue, they give way to each other instead of sleeping."""
    ahead: int
    """In a longer queue so many, the next in line, are awake."""
    cpus: int
    """So many can run at a time."""


def spin_for(facts: machine.Machine) -> Spin:
    """What suits the CPUs, the quota and the hypervisor."""
    near = max(1, int(facts.parallel) - 1)
    cpus = max(1, int(facts.parallel))
    crowd = CROWD_PER_CPU * cpus
    if facts.cpus == 1:
        reason = "one CPU in the affinity mask: the holder can't run while a waiter spins"
        return Spin(0, 0, reason, crowd, AHEAD, cpus)
    if facts.parallel < 2:
        reason = f"CPU quota of {facts.parallel:g}: spinning would use up the holder's time"
        return Spin(0, 0, reason, 0, AHEAD, cpus)
    if facts.quota is not None and facts.quota < facts.cpus:
        reason = f"CPU quota of {facts.quota:g} for {facts.cpus} CPUs: spin little"
        return Spin(SPIN_NS_METAL, near, reason, 0, AHEAD, cpus)
    if facts.hypervisor:
        return Spin(
            SPIN_NS_VIRTUAL, near, "hypervisor: waking an idle virtual CPU is dear", crowd, AHEAD, cpus
        )
    return Spin(SPIN_NS_METAL, near, "no hypervisor: a wake is cheap", crowd, AHEAD, cpus)
