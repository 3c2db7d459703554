"""Settings that are wrong, contradict each other, or do not go with the domain that is there."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from conftest import segment_path
from support import run

import pylocks
from pylocks.ops import choices, slow_paths

TRY = """
import os, sys, pylocks
name = sys.argv[1]
for use in (pylocks.Domain, lambda: pylocks.Domain(name), pylocks.TicketLock, lambda: pylocks.LockArray(3)):
    try:
        use()
        print("accepted")
    except pylocks.PylocksError as error:
        print(type(error).__name__, error)
for variable in [name for name in os.environ if name.startswith("PYLOCKS_")]:
    del os.environ[variable]
with pylocks.Domain(name).lock("orders"): print("mended")
"""

WRONG = [
    ({"PYLOCKS_OPS": "lock_spinnign=futex"}, "UnknownOpError", ["'lock_spinnign'", "lock_spinning"]),
    ({"PYLOCKS_OPS": "lock_spinning=futexx"}, "UnknownOpError", ["'futexx'", *slow_paths()]),
    ({"PYLOCKS_OPS": "lock_spinning"}, "UnknownOpError", ["'lock_spinning'", "op=choice"]),
    ({"PYLOCKS_OPS": "lock_spinning="}, "UnknownOpError", ["op=choice"]),
    ({"PYLOCKS_OPS": "=futex"}, "UnknownOpError", ["''"]),
    ({"PYLOCKS_OPS": "lock_spinning=yield,lock_spinning=futex"}, "UnknownOpError", ["twice"]),
    ({"PYLOCKS_OPS": "unlock_kick=same_cpu"}, "UnknownOpError", ["'same_cpu'", "kick"]),
    ({"PYLOCKS_PATCH": "on"}, "UnknownOpError", ["PYLOCKS_PATCH", "'on'", "auto, off"]),
    ({"PYLOCKS_PROTOCOL": "both"}, "UnknownOpError", ["PYLOCKS_PROTOCOL", "'both'", "native, enlightened"]),
    (
        {"PYLOCKS_OPS": "lock_spinning=futex", "PYLOCKS_PROTOCOL": "native"},
        "ProtocolMismatchError",
        ["lock_spinning=futex", "native", "enlightened", "PYLOCKS_"],
    ),
    (
        {"PYLOCKS_OPS": "lock_spinning=native", "PYLOCKS_PROTOCOL": "enlightened"},
        "ProtocolMismatchError",
        ["lock_spinning=native", "native", "enlightened"],
    ),
    ({"PYLOCKS_OPS": "unlock_kick=off"}, "ProtocolMismatchError", ["unlock_kick=off", "native"]),
    (
        {"PYLOCKS_OPS": "lock_spinning=yield,unlock_barrier=off"},
        "ProtocolMismatchError",
        ["unlock_barrier=off", "native"],
    ),
]


@pytest.mark.parametrize(("settings", "kind", "says"), WRONG, ids=lambda value: str(value)[:50])
def test_wrong_settings(settings: dict[str, str], kind: str, says: list[str], name: str) -> None:
    """Refused at every attach until they are mended; nothing is left under the name meanwhile."""
    done = run.python("-c", TRY, name, environment=run.settings(**settings))
    *refused, mended = done.check().splitlines()
    assert mended == "mended"
    assert len(refused) == 4
    for line in refused:
        assert line.startswith(kind), line
        for part in says:
            assert part in line, line


@pytest.mark.parametrize("value", ("", " ", ",", " lock_spinning = yield , "))
def test_settings_are_read_with_tolerance_for_blanks(value: str) -> None:
    script = "import pylocks; print(pylocks.Domain().slow_path)"
    settings = run.settings(PYLOCKS_OPS=value, PYLOCKS_PATCH=" ", PYLOCKS_PROTOCOL="")
    shown = run.python("-c", script, environment=settings).check().strip()
    assert shown == ("yield" if "yield" in value else pylocks.Domain().slow_path)


def test_a_refused_creation_leaves_no_file(name: str) -> None:
    script = f"import pylocks\ntry: pylocks.Domain({name!r})\nexcept pylocks.UnknownOpError: print('refused')"
    done = run.python("-c", script, environment=run.settings(PYLOCKS_OPS="x=y"))
    assert done.check() == "refused\n"
    assert not segment_path(name).exists()
    with pytest.raises(pylocks.ProtocolMismatchError):
        pylocks.Domain(name, protocol="native")
    assert not segment_path(name).exists()


# ------------------------------------------------------------------ two protocols

LIVE = """
import sys, pickle, pylocks
domain = pylocks.Domain(sys.argv[1])
lock = domain.lock("orders")
print(domain.protocol, pickle.dumps(pylocks.TicketLock()).hex(), flush=True)
input()
"""


@pytest.mark.parametrize(("theirs", "mine"), [("native", "enlightened"), ("enlightened", "native")])
@pytest.mark.parametrize("how", ("setting", "argument"))
def test_protocols_are_not_mixed(theirs: str, mine: str, how: str, name: str) -> None:
    """A sleeper behind an unlocker that never kicks would sleep for ever."""
    attach = (
        "import pickle, sys, pylocks\n"
        "data = bytes.fromhex(sys.argv[2])\n"
        f"protocol = {mine if how == 'argument' else 'auto'!r}\n"
        "for use in (lambda: pylocks.Domain(sys.argv[1], protocol=protocol),\n"
        "            lambda: pylocks.Domain(sys.argv[1], protocol=protocol, create=False),\n"
        "            lambda: pickle.loads(data)):\n"
        "    try: print('accepted', use())\n"
        "    except pylocks.ProtocolMismatchError as error: print(error)\n"
    )
    with run.Interactive("-c", LIVE, name, environment=run.settings(PYLOCKS_PROTOCOL=theirs)) as live:
        protocol, data = live.line().split()
        assert protocol == theirs
        own = run.settings(PYLOCKS_PROTOCOL=mine) if how == "setting" else run.settings()
        done = run.python("-c", attach, name, data, environment=own)
        by_name, attached, unpickled = done.check().splitlines()
        for message in (by_name, attached) if how == "argument" else (by_name, attached, unpickled):
            assert f"the {theirs} unlock protocol" in message and f"the {mine} one" in message
            assert f"PYLOCKS_PROTOCOL={theirs}" in message or f"protocol={mine!r}" in message, message
        assert name in by_name and name in attached
        # Without a wish of its own, a process takes the protocol that is there.
        follow = (
            "import sys, pylocks; domain = pylocks.Domain(sys.argv[1])\n"
            "print(domain.protocol, domain.lock('orders').acquire())"
        )
        assert run.python("-c", follow, name).check() == f"{theirs} True\n"


def test_one_process_has_one_protocol(name: str) -> None:
    mine = pylocks.Domain(name)
    with pytest.raises(pylocks.ProtocolMismatchError, match=r"native.*enlightened.*PYLOCKS_PROTOCOL=native"):
        pylocks.Domain(protocol="native")
    with pytest.raises(pylocks.ProtocolMismatchError, match=name):
        pylocks.Domain(name, protocol="native")
    assert pylocks.Domain(name, protocol="enlightened") is mine


@pytest.mark.parametrize("slow_path", slow_paths())
def test_a_domain_that_nobody_uses_takes_the_next_protocol(slow_path: str, name: str) -> None:
    """The dead need not be agreed with, and what they held is free."""
    uids: dict[str, str] = {}
    for number, settings in enumerate(
        (
            run.settings(PYLOCKS_PROTOCOL="native"),
            run.settings(PYLOCKS_OPS=f"lock_spinning={slow_path}"),
            run.settings(),
        )
    ):
        script = (
            "import os, sys, pylocks\n"
            "domain = pylocks.Domain(sys.argv[1])\n"
            "lock = domain.lock('orders')\n"
            "assert lock.acquire(False) and domain.lock('bills').acquire(timeout=5)\n"
            "print(domain.protocol, domain.uid.hex(), flush=True); os.kill(os.getpid(), 9)\n"
        )
        done = run.python("-c", script, name, environment=settings)
        assert done.status == -9
        if number == 0:
            assert done.err == ""
        else:
            assert f"OwnerDiedWarning: domain {name!r}" in done.err and "2 of its locks" in done.err
        protocol, uid = done.out.split()
        assert uids.setdefault(name, uid) == uid
        native = {c.name for c in choices("lock_spinning") if c.protocol == "native"}
        wants_native = settings.get("PYLOCKS_PROTOCOL") == "native" or any(
            settings.get("PYLOCKS_OPS") == f"lock_spinning={each}" for each in native
        )
        assert protocol == ("native" if wants_native else "enlightened")


@pytest.mark.parametrize("slow_path", [path for path in slow_paths() if path != "native"])
def test_enlightened_processes_may_each_wait_in_their_own_way(slow_path: str, name: str) -> None:
    lock = pylocks.Domain(name).lock("orders")
    script = (
        "import sys, pylocks\n"
        "domain = pylocks.Domain(sys.argv[1])\n"
        "print(domain.slow_path, flush=True)\n"
        "for _ in range(50):\n"
        "    with domain.lock('orders'): pass\n"
        "print('done', flush=True)\n"
    )
    settings = run.settings(PYLOCKS_OPS=f"lock_spinning={slow_path}")
    with run.Interactive("-c", script, name, environment=settings) as other:
        assert other.line() == slow_path
        for _ in range(50):
            with lock:
                pass
        assert other.line() == "done"
        assert other.wait() == 0


def test_a_domain_prefers_its_creators_slow_path(name: str) -> None:
    settings = run.settings(PYLOCKS_OPS="lock_spinning=yield")
    with run.Interactive("-c", LIVE, name, environment=settings) as creator:
        creator.line()
        script = "import sys, pylocks; print(pylocks.Domain(sys.argv[1]).slow_path)"
        assert run.python("-c", script, name).check() == "yield\n"


def test_a_pickle_says_which_protocol_it_needs(tmp_path: Path) -> None:
    """An anonymous lock of this process, unpickled where the other protocol rules."""
    data = pickle.dumps(pylocks.TicketLock())
    script = (
        "import pickle, sys, pylocks\n"
        "own = pylocks.TicketLock()\n"
        "try: pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "except pylocks.ProtocolMismatchError as error: print(error)\n"
    )
    done = run.python("-c", script, data.hex(), environment=run.settings(PYLOCKS_PROTOCOL="native"))
    said = done.check()
    assert "enlightened" in said and "native" in said and "anonymous domain" in said
