"""Frozen copies of what a domain holds, for people and programs that look."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Owner", "Stats", "VCpu"]


@dataclass(frozen=True)
class Owner:
    """Who holds a lock."""

    vcpu: int
    pid: int
    tid: int
    ticket: int
    """Low 48 bits of the ticket under which it was acquired."""
    alive: bool


@dataclass(frozen=True)
class VCpu:
    """One thread registered in a domain."""

    index: int
    pid: int
    tid: int
    alive: bool
    held: int
    """Locks held or being acquired."""
    waiting_for: int | None
    """Index of the lock whose acquisition is under way."""
    ticket: int | None
    waiting_since: int | None
    """CLOCK_MONOTONIC, ns, at which it began to queue for that lock."""
    parked: bool


@dataclass(frozen=True)
class Stats:
    """Events of all vCPUs, past and present, since the domain was made.

    Only processes that run with PYLOCKS_OPS=lock_event=counters (or trace) count.
    """

    waits: int
    spin_grants: int
    hypercalls: int
    yields: int
    parks: int
    spurious: int
    watchdogs: int
    kicks: int
    empty_kicks: int
    abandons: int
    resumes: int
    passes: int
    preempted: int
    recoveries: int
    owner_deaths: int
