"""The exceptions themselves."""

from __future__ import annotations

import errno
import pickle

import pytest

import pylocks
from pylocks import errors

MESSAGE = "what, where, what to do"


@pytest.mark.parametrize("kind", [getattr(errors, name) for name in errors.__all__], ids=errors.__all__)
def test_errors_travel_between_processes(kind: type[Exception]) -> None:
    """As they do when a task of a pool fails."""
    made = kind(errno.EACCES, MESSAGE) if issubclass(kind, OSError) else kind(MESSAGE)
    again = pickle.loads(pickle.dumps(made))
    assert type(again) is kind
    assert str(again) == str(made)
    assert isinstance(again, (errors.PylocksError, Warning))
    assert getattr(pylocks, kind.__name__) is kind
    assert kind.__doc__


@pytest.mark.parametrize(
    ("kind", "also"),
    [
        ("ForeignFileError", "DomainError"),
        ("TruncatedDomainError", "DomainError"),
        ("CorruptDomainError", "DomainError"),
        ("AbiMismatchError", "DomainError"),
        ("ProtocolMismatchError", "DomainError"),
        ("StaleDomainError", "DomainError"),
        ("DomainFullError", "DomainError"),
        ("DomainGoneError", "DomainError"),
        ("DomainBusyError", "DomainError"),
        ("ClosedError", "ValueError"),
        ("DomainPermissionError", "PermissionError"),
        ("MonitorPermissionError", "MonitorError"),
        ("MonitorPermissionError", "PermissionError"),
        ("UnknownDomainError", "FileNotFoundError"),
        ("UnknownLockError", "LookupError"),
        ("UnknownOpError", "ValueError"),
        ("NotOwnerError", "RuntimeError"),
        ("AlreadyOwnerError", "RuntimeError"),
        ("OwnerDiedError", "RuntimeError"),
    ],
)
def test_errors_are_also_what_python_has_for_them(kind: str, also: str) -> None:
    import builtins

    wanted = getattr(builtins, also, None) or getattr(errors, also)
    assert issubclass(getattr(errors, kind), wanted)


def test_a_domain_whose_mutex_was_written_over_is_corrupt() -> None:
    with pylocks.Domain() as domain:
        error = errors.lock_error(errno.ENOTRECOVERABLE, domain, 0)
        assert isinstance(error, pylocks.CorruptDomainError)
        assert "lock 0" in str(error)
