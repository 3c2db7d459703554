"""Every clause of the contract, over every slow path there is, patched and not, for every kind of
participant.  The clauses are in support/contract.py; a new slow path appears here by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet
from support.contract import CHECKS
from support.puppet import KINDS
from support.theatre import Setting, Theatre

from pylocks.ops import choices, slow_paths

NATIVE = {choice.name for choice in choices("lock_spinning") if choice.protocol == "native"}


def settings(patches: Sequence[str], kinds: Sequence[str], cpus: str) -> list[ParameterSet]:
    """All settings, each a group of tests that one worker runs with one process."""
    return [
        group(Setting(slow_path, patch, kind, cpus))
        for slow_path in slow_paths()
        for patch in patches
        for kind in kinds
    ]


def group(setting: Setting) -> ParameterSet:
    """The tests of one setting."""
    return pytest.param(setting, id=str(setting), marks=pytest.mark.xdist_group(f"contract-{setting}"))


@pytest.fixture(scope="module")
def theatre(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """The process for a setting."""
    made = Theatre(request.param, tmp_path_factory.mktemp("theatre"))
    yield made
    complaints = made.close()
    assert not complaints, complaints


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("theatre", settings(("auto", "off"), KINDS, "all"), indirect=True)
def test_contract(theatre: Theatre, check: str) -> None:
    if theatre.setting.slow_path in NATIVE and not CHECKS[check].native:
        pytest.skip("under the native protocol a timed acquire takes no ticket")
    wrong = theatre.play(check)
    assert wrong is None, wrong


@pytest.mark.parametrize("check", [name for name, check in CHECKS.items() if check.one_cpu])
@pytest.mark.parametrize("theatre", settings(("auto",), ("threads", "fork"), "one"), indirect=True)
def test_contract_on_one_cpu(theatre: Theatre, check: str) -> None:
    wrong = theatre.play(check)
    assert wrong is None, wrong


BOUNDED = [
    *(Setting("futex", "auto", kind, "all", "bounded") for kind in KINDS),
    Setting("futex", "off", "fork", "all", "bounded"),
    Setting("yield", "auto", "fork", "all", "bounded"),
]


@pytest.mark.parametrize("check", [name for name, check in CHECKS.items() if check.bounded])
@pytest.mark.parametrize("theatre", [group(setting) for setting in BOUNDED], indirect=True)
def test_contract_of_a_bounded_lock(theatre: Theatre, check: str) -> None:
    wrong = theatre.play(check)
    assert wrong is None, wrong


@pytest.mark.parametrize("check", [name for name, check in CHECKS.items() if check.bounded and check.one_cpu])
@pytest.mark.parametrize(
    "theatre", [group(Setting("futex", "auto", "fork", "one", "bounded"))], indirect=True
)
def test_contract_of_a_bounded_lock_on_one_cpu(theatre: Theatre, check: str) -> None:
    wrong = theatre.play(check)
    assert wrong is None, wrong


@pytest.mark.parametrize("kind", KINDS)
def test_the_contract_bites(kind: str, tmp_path: Path) -> None:
    """A lock that does not exclude is found out."""
    theatre = Theatre(Setting("busted", "auto", kind, "all"), tmp_path, TESTS_PATIENCE_S="5")
    wrong = theatre.play("excludes")
    theatre.close()
    assert wrong is not None


def test_every_slow_path_is_played() -> None:
    assert {"native", "yield", "futex", "hosted"} <= set(slow_paths())
    assert set(slow_paths(sound_only=False)) - set(slow_paths()) == {"busted"}
