"""Running a function in a forked child."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable
from typing import Any


def in_child(function: Callable[[], Any], killed: bool = False) -> Any:
    """What the function returns (or raises) in a child made by fork, which then ends at once.

    It ends by _exit, or by SIGKILL if it is to be `killed`.
    """
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = (True, function())
        except BaseException as error:
            traceback.print_exc()
            answer = (False, error)
        try:
            os.write(writable, pickle.dumps(answer))
            if killed:
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(0)
    os.close(writable)
    with open(readable, "rb") as pipe:
        data = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == (-signal.SIGKILL if killed else 0)
    assert data, "the child said nothing"
    done, result = pickle.loads(data)
    if done:
        return result
    raise result
