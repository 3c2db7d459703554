"""A type written in C whose methods do nothing: the least that a lock could cost in Python."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

from ... import build
from ..interface import Lock, Subject, Terms, UnavailableError


@cache
def _type() -> Any:
    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").exists():
        raise UnavailableError("there is no Python.h: install the headers of this Python (python3-dev)")
    try:
        path = str(build.shared_object(Path(__file__).parent, f"-isystem{include}"))
    except build.CompilerError as error:
        raise UnavailableError(str(error)) from error
    loader = ExtensionFileLoader("empty_type", path)
    module = module_from_spec(ModuleSpec("empty_type", loader, origin=path))
    loader.exec_module(module)
    return module.Empty


@contextmanager
def _open(terms: Terms) -> Iterator[Lock]:
    lock: Lock = _type()()
    yield lock


SUBJECT = Subject("empty C type", "methods that do nothing", _open, excludes=False)
