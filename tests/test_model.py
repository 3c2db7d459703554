"""A sample of `make model`: the protocol as a model, checked by spin; and that it misses each step left out.

[B1] [H1] [K1] [K2] [S1] [Y1] [D1] [D2] [D3] [D4] each stand in a model beside the step they name.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from model.check import (
    ENDLESS,
    LARGEST_MUTATIONS,
    LONG,
    LONG_MUTATIONS,
    MUTATIONS,
    QUICK,
    Model,
    check,
    missing,
)

FOLDER = Path(__file__).parent / "model"
CSRC = FOLDER.parent.parent / "csrc"

SAMPLE = (
    "K1_FENCE",
    "K1_RECHECK",
    "K2_RELOOK",
    "S1_RELOOK",
    "D1_OWNER_FIRST",
    "D1_SECOND_LOOK",
    "D1_VERSION",
    "D1_SHIFTS",
    "D1_HALF_DONE",
    "D2_FLAG_LATE",
    "D3_FREE_FIRST",
    "D4_SECOND_LOOK",
    "K1_UNKICKED_EARLY",
    "B1_LOOK",
    "B1_FENCE",
    "B1_UNARMED",
    "B1_DISARM_LOOK",
    "H1_LOOK",
    "Y1_STEP",
    "Y1_BACK",
    "H1_BELL_LATE",
    "H1_CLEARED_FIRST",
    "H1_GUARD",
)

needs_spin = pytest.mark.skipif(bool(missing()), reason=missing())
patient = pytest.mark.timeout(900)  # seconds of work, on a machine that may be busy


@needs_spin
@patient
@pytest.mark.parametrize("model", QUICK, ids=str)
def test_the_protocol_holds(model: Model) -> None:
    result = check(model)
    assert result.as_expected(model), result
    assert result.states > 1000


@needs_spin
@patient
@pytest.mark.parametrize("step", SAMPLE)
def test_a_step_left_out_is_missed(step: str) -> None:
    (model,) = (model for model in MUTATIONS if model.broken == step)
    result = check(model)
    assert result.as_expected(model), result
    assert "assertion violated" in result.error or "invalid end state" in result.error


def sources() -> str:
    return "".join(path.read_text() for path in sorted(FOLDER.glob("*.pml")))


def test_every_step_that_can_be_left_out_is_tried() -> None:
    tried = [model.broken for model in (*MUTATIONS, *LONG_MUTATIONS, *LARGEST_MUTATIONS)]
    assert sorted(tried) == sorted(set(re.findall(r"\bBREAK_(\w+)", sources())))


def test_every_model_is_checked_at_length() -> None:
    roots = {
        path.name for path in FOLDER.glob("*.pml") if re.search(r"^(init|active)", path.read_text(), re.M)
    }
    files = {model.file for model in (*QUICK, *LONG)}
    assert roots - {"protocol.pml"} == files
    assert {model.file for model in ENDLESS} <= files


def test_every_macro_of_a_model_is_known_to_it() -> None:
    """A misspelt one would be a check of something else."""
    text = sources()
    for model in (*QUICK, *LONG, *ENDLESS, *MUTATIONS, *LONG_MUTATIONS, *LARGEST_MUTATIONS):
        for macro in model.macros.split():
            name = macro.partition("=")[0]
            assert re.search(rf"^#(ifndef|if) {name}\b", text, re.M) or name == "N", macro


@pytest.mark.skipif(not CSRC.is_dir(), reason="reads the source tree")
def test_the_handshakes_of_the_code_are_those_of_the_models() -> None:
    code = "".join(path.read_text() for path in CSRC.rglob("*.[ch]") if path.name != "_core.c")
    assert set(re.findall(r"\[([A-Z]\d)\]", sources())) == set(re.findall(r"\[([A-Z]\d)\]", code))
