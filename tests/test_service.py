"""The hypervisor service: what it does for a domain, and what becomes of that when it ends.

[H1] is forced in support/served.py: a kick is asked for while the service is stopped, and is neither
lost when it goes on, nor when it ends, nor when it dies and another takes over.
"""

from __future__ import annotations

import pytest
from support import run

HOSTED = (
    "the_service_kicks",
    "until_it_goes_on",
    "until_it_ends",
    "until_it_is_succeeded",
    "at_its_last_look",
    "at_the_next_ones_first_step",
    "a_stopped_service_costs_one_kick",
    "the_slot_is_anothers_by_then",
    "without_a_service",
    "killed_again_and_again",
)
ALWAYS = ("a_process_dies", "a_thread_dies", "a_kick_is_lost", "newcomers_are_watched")
LIFE = ("one_at_a_time", "a_fork_lets_go", "it_ends_with_its_starter")


def play(scenario: str, slow_path: str) -> None:
    ops = f"lock_spinning={slow_path},lock_event=counters"
    run.python("-m", "support.served", scenario, environment=run.settings(PYLOCKS_OPS=ops)).check()


@pytest.mark.parametrize("scenario", HOSTED)
def test_hosted(scenario: str) -> None:
    play(scenario, "hosted")


@pytest.mark.parametrize("scenario", ALWAYS)
def test_whatever_the_slow_path(scenario: str) -> None:
    play(scenario, "hosted" if scenario == "a_process_dies" else "futex")


@pytest.mark.parametrize("scenario", LIFE)
def test_its_own_life(scenario: str) -> None:
    play(scenario, "futex")
