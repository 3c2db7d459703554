"""Running a function in a forked child."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from typing import Any


def in_child(function: Callable[[], Any]) -> Any:
    """What the function returns (or raises) in a child made by fork, which then ends at once."""
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
        finally:
            os._exit(0)
    os.close(writable)
    with open(readable, "rb") as pipe:
        data = pipe.read()
    assert os.waitpid(pid, 0)[1] == 0
    assert data, "the child said nothing"
    done, result = pickle.loads(data)
    if done:
        return result
    raise result
