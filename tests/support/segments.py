"""Segments for tests that attach what they should not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import segment_path

import pylocks

CREATE = pytest.mark.parametrize("create", (True, False), ids=("create", "attach"))


def refused(kind: type[Exception], name: str, *says: str, **arguments: Any) -> str:
    """The message with which attaching is refused; it names the domain and its file."""
    with pytest.raises(kind) as caught:
        pylocks.Domain(name, **arguments)
    assert type(caught.value) is kind
    message = str(caught.value)
    for part in (f"domain {name!r}", f"/dev/shm/pylocks.{name}", *says):
        assert part in message, message
    return message


def snapshot(path: Path) -> tuple[Any, ...]:
    """All of a file that must not change."""
    found = path.lstat()
    content = path.read_bytes() if path.is_file() and found.st_size < 1 << 24 else None
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_uid, content


def abandoned(name: str, **arguments: Any) -> Path:
    """A healthy segment that nobody is attached to."""
    with pylocks.Domain(name, **arguments) as domain:
        domain.lock("orders")
    return segment_path(name)
