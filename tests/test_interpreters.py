"""Subinterpreters: refused with a clear ImportError, whoever comes first, and the main one goes on."""

from __future__ import annotations

import importlib
import sys

import pytest
from support import run

NAMES = ("_interpreters", "_xxsubinterpreters")
"""Where the interpreter keeps them, up to 3.12 and from 3.13 on; neither is promised."""


def _module() -> str:
    for name in NAMES:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
        return name
    pytest.skip("this Python has no module for subinterpreters")


SHARED = "create('legacy')" if sys.version_info >= (3, 13) else "create(isolated=False)"
"""With the main interpreter's GIL, as embedders such as mod_wsgi have them."""

SCRIPT = """
import sys, threading
import {module} as interpreters
IMPORTS = '''
said = []
for name in ("pylocks", "pylocks._lock", "pylocks._core", "pylocks.errors", "pylocks.locks"):
    try:
        __import__(name)
        said.append(f"{{name}} was imported")
    except ImportError as error:
        said.append(str(error))
import os
os.write(1, ("\\\\n".join(said) + "\\\\n").encode())
'''
def use():
    import pylocks
    lock = pylocks.TicketLock()
    lock.acquire()
    threads = [threading.Thread(target=lambda: lock.acquire() and lock.release()) for _ in range(3)]
    for thread in threads: thread.start()
    while lock.waiters < 3: pass
    lock.release()
    for thread in threads: thread.join()
    assert not lock.locked()
if {main_first}:
    use()
made = interpreters.{create}
interpreters.run_string(made, IMPORTS)
interpreters.destroy(made)
use()
print("done")
"""


@pytest.mark.parametrize("main_first", (True, False))
@pytest.mark.parametrize("create", (SHARED, "create()"), ids=("shared-gil", "default"))
def test_no_import_in_a_subinterpreter(create: str, main_first: bool) -> None:
    done = run.python("-c", SCRIPT.format(module=_module(), create=create, main_first=main_first))
    *said, last = done.check().splitlines()
    assert last == "done"
    assert len(said) == 5
    for each in said:
        assert "does not support loading in subinterpreters" in each
        assert "pylocks" in each


def test_the_message_says_what_to_do() -> None:
    """Where it is pylocks that refuses; an interpreter with a GIL of its own refuses by itself."""
    done = run.python("-c", SCRIPT.format(module=_module(), create=SHARED, main_first=False))
    assert "import it in the main interpreter" in done.check().splitlines()[0]
