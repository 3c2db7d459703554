"""What CPython's documentation says of its synchronisation primitives, a check a sentence.

The sentences are those of the library reference, threading and multiprocessing.  A Kit is a set of
primitives that they are checked of; where the two modules differ, or a set deliberately differs from
both, its traits say which sentences hold.  `tests/test_sentences.py` runs every check over every kit.
"""

from __future__ import annotations

from support.sentences import barriers, conditions, events, locks, recursive, semaphores
from support.sentences.kit import SENTENCES, Kit, Sentence

__all__ = [
    "SENTENCES",
    "Kit",
    "Sentence",
    "barriers",
    "conditions",
    "events",
    "locks",
    "recursive",
    "semaphores",
]
