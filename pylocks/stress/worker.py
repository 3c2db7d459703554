"""One worker: fights for the locks until it is told to stop, or killed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NoReturn

from pylocks._core import lib

from .shared import Area


def run(area: Area, number: int, locks: Sequence[Any], *, ticketed: bool, parent: int) -> NoReturn:
    """Be worker ``number``, in a process just forked by ``parent``; never returns.

    The process shares nothing with the row process but the mapping and the
    locks, dies with it, and ends with status 0 unless something unforeseen
    happened; then 1, with the exception's text in the mapping.
    """
    status = 1
    try:
        if lib.plk_probe_die_with(parent) == 0:
            silence()
            _fight(area, number, locks, ticketed)
            status = 0
    except BaseException as error:
        area.tell(number, error)
    finally:
        # Not sys.exit: what the parent registered to happen at exit is the parent's.
        os._exit(status)


def silence() -> None:
    """Let go of the row process's pipes, so that their ends mean that process alone."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)


def _fight(area: Area, number: int, locks: Sequence[Any], ticketed: bool) -> None:
    control, me = area.control, area.worker(number)
    inside, outside = lib.plk_probe_inside, lib.plk_probe_outside
    no_ticket = lib.PLK_PROBE_NO_TICKET
    index = lib.plk_probe_begin(control, me)
    while index >= 0:
        lock = locks[index]
        try:
            lock.acquire()
        except Exception as error:
            # What is wrong now would be wrong at the next try, too.
            area.note(number, "acquire_error", error)
            return
        inside(control, me, lock.ticket if ticketed else no_ticket)
        try:
            lock.release()
        except Exception as error:
            # A broken lock lets in two, and refuses the second one's release:
            # going on finds how often.
            area.note(number, "release_error", error)
        index = outside(control, me)
