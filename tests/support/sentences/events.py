"""Event."""

from __future__ import annotations

import time

from support.sentences.kit import LONG, SHORT, Kit, sentence


@sentence("Event", "The flag is initially false.")
def starts_false(kit: Kit) -> None:
    event = kit.Event()
    assert event.is_set() is False
    assert kit.of_another(event.is_set) is False


@sentence("Event", "Return True if and only if the internal flag is true.")
def is_set(kit: Kit) -> None:
    event = kit.Event()
    for _ in range(2):
        event.set()
        assert event.is_set() is True
        assert kit.of_another(event.is_set) is True
        event.clear()
        assert event.is_set() is False


@sentence("Event", "The wait() method blocks until the flag is true.")
def wait_blocks_until_set(kit: Kit) -> None:
    event = kit.Event()
    other = kit.go(event.wait)
    other.blocks()
    event.set()
    assert other.result() is True


@sentence("Event", "Set the internal flag to true. All threads waiting for it to become true are awakened.")
def set_awakens_all(kit: Kit) -> None:
    event = kit.Event()
    others = [kit.go(event.wait) for _ in range(4)]
    for other in others:
        other.blocks()
    event.set()
    assert [other.result() for other in others] == [True] * 4


@sentence("Event", "Threads that call wait() once the flag is true will not block at all.")
def set_does_not_block(kit: Kit) -> None:
    event = kit.Event()
    kit.of_another(event.set)
    assert [event.wait(), event.wait(0), event.wait(timeout=LONG)] == [True] * 3
    assert kit.of_another(event.wait) is True


@sentence(
    "Event",
    "Reset the internal flag to false. Subsequently, threads calling wait() will block until set() is called "
    "to set the internal flag to true again.",
)
def clear_resets(kit: Kit) -> None:
    event = kit.Event()
    event.set()
    event.clear()
    other = kit.go(event.wait)
    other.blocks()
    event.set()
    assert other.result() is True


@sentence(
    "Event",
    "The return value represents the reason that this blocking method returned; True if returning because "
    "the internal flag is set to true, or False if a timeout is given and the internal flag did not become "
    "true within the given wait time.",
)
def wait_returns_the_reason(kit: Kit) -> None:
    event = kit.Event()
    assert [event.wait(0), event.wait(SHORT)] == [False, False]
    other = kit.go(event.wait, LONG)
    other.blocks()
    event.set()
    assert other.result() is True


@sentence(
    "Event",
    "When the timeout argument is present and not None, it should be a floating-point number specifying a "
    "timeout for the operation in seconds, or fractions thereof.",
)
def timeout(kit: Kit) -> None:
    event = kit.Event()
    began = time.monotonic()
    assert event.wait(timeout=SHORT) is False
    assert time.monotonic() - began >= SHORT
    other = kit.go(event.wait, None)
    other.blocks()
    event.set()
    assert other.result() is True
