"""What CPython's documentation says of each primitive, one test a sentence, over every kit there is.

The standard library's own primitives are kits, too: they tell a check that says too much from a primitive
that does too little.  The sentences are in support/sentences.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import threading
from collections.abc import Iterator

import pytest
from support.sentences import SENTENCES, Kit, Sentence

import pylocks
import pylocks.multiprocessing
from pylocks.mutex import Mutex, RMutex


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


def of_the_drop_in() -> Kit:
    """pylocks.multiprocessing: all that multiprocessing's own do, and more."""
    context = pylocks.multiprocessing.get_context("fork")
    return dataclasses.replace(
        of_multiprocessing(),
        Lock=context.Lock,
        RLock=context.RLock,
        Semaphore=context.Semaphore,
        BoundedSemaphore=context.BoundedSemaphore,
        Condition=context.Condition,
        Event=context.Event,
        Barrier=context.Barrier,
        traits=of_multiprocessing().traits | {"release(n)", "negative value refused", "locked()"},
    )


def of_mutexes() -> Kit:
    """The locks that are not handed on in order of arrival: what pylocks.multiprocessing stands on."""
    made = of_pylocks(True)
    made.Lock, made.RLock = Mutex, RMutex
    made.traits, made.unlocked = made.traits | {"any may release"}, ValueError
    return made


# Its shared heap keeps a file for as long as the process lives: from before the first test on.
multiprocessing.get_context("fork").Barrier(1)

KITS = {
    "threading": of_threading,
    "multiprocessing": of_multiprocessing,
    "threads": lambda: of_pylocks(False),
    "processes": lambda: of_pylocks(True),
    "mutexes": of_mutexes,
    "drop-in": of_the_drop_in,
}
OURS = ("threads", "processes", "mutexes", "drop-in")


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
    if holds(sentence, kit) and (kit != "mutexes" or sentence.primitive in ("Lock", "RLock", "Condition"))
]


@pytest.mark.parametrize(("kit", "sentence"), CASES, indirect=["kit"])
def test_sentence(kit: Kit, sentence: Sentence) -> None:
    sentence.check(kit)


def test_what_is_said_of_any_is_said_of_some_of_ours() -> None:
    assert all(any(holds(sentence, kit) for kit in OURS) for sentence in SENTENCES.values())
