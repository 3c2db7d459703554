"""What CPython's documentation says of each primitive, one test a sentence, over every kit there is.

The standard library's own primitives are kits, too: they tell a check that says too much from a primitive
that does too little.  The sentences are in support/sentences.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator

import pytest
from support.sentences import SENTENCES, Kit, Sentence

import pylocks


def of_threading() -> Kit:
    """threading's own, between threads."""
    return Kit(
        threading.Lock,
        threading.RLock,
        threading.Semaphore,
        threading.BoundedSemaphore,
        threading.Condition,
        threading.Event,
        threading.Barrier,
        frozenset({"any may release", "-1 is for ever", "timeout refused", "release(n)", "locked()"})
        | {"negative value refused"},
    )


def of_multiprocessing() -> Kit:
    """multiprocessing's own, between forked processes."""
    context = multiprocessing.get_context("fork")
    return Kit(
        context.Lock,
        context.RLock,
        context.Semaphore,
        context.BoundedSemaphore,
        context.Condition,
        context.Event,
        context.Barrier,
        frozenset({"any may release", "none is for ever", "negative is zero", "timeout ignored"}),
        ValueError,
        AssertionError,
        True,
    )


def of_pylocks(forks: bool) -> Kit:
    """The family of this package; its Lock belongs to the thread that acquired it."""
    return Kit(
        pylocks.TicketLock,
        pylocks.TicketRLock,
        pylocks.Semaphore,
        pylocks.BoundedSemaphore,
        pylocks.Condition,
        pylocks.Event,
        pylocks.Barrier,
        frozenset({"-1 is for ever", "none is for ever", "timeout refused", "release(n)", "locked()"})
        | {"negative value refused"},
        pylocks.NotOwnerError,
        pylocks.NotOwnerError,
        forks,
    )


# Its shared heap keeps a file for as long as the process lives: from before the first test on.
multiprocessing.get_context("fork").Barrier(1)

KITS = {
    "threading": of_threading,
    "multiprocessing": of_multiprocessing,
    "threads": lambda: of_pylocks(False),
    "processes": lambda: of_pylocks(True),
}
OURS = ("threads", "processes")


@pytest.fixture
def kit(request: pytest.FixtureRequest) -> Iterator[Kit]:
    made = KITS[request.param]()
    yield made
    made.end()


def holds(sentence: Sentence, kit: str) -> bool:
    """Whether the sentence is said of the kit."""
    return sentence.needs is None or sentence.needs in KITS[kit]().traits


CASES = [
    pytest.param(kit, sentence, id=f"{kit}-{name}")
    for kit in KITS
    for name, sentence in SENTENCES.items()
    if holds(sentence, kit)
]


@pytest.mark.parametrize(("kit", "sentence"), CASES, indirect=["kit"])
def test_sentence(kit: Kit, sentence: Sentence) -> None:
    sentence.check(kit)


def test_what_is_said_of_none_of_ours_is_what_ours_say_otherwise() -> None:
    left = {s.needs for s in SENTENCES.values() if not any(holds(s, kit) for kit in OURS)}
    assert left == {"any may release", "negative is zero", "timeout ignored"}
