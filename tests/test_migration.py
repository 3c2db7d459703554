"""Every example of docs/migration.md runs, and prints what its comments say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support import run

PAGE = Path(__file__).resolve().parent.parent / "docs" / "migration.md"

if not PAGE.exists():  # pragma: no cover
    pytest.skip("the documentation is not here", allow_module_level=True)

EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example(example: str, tmp_path: Path) -> None:
    expected = re.findall(r"^ *print\(.*?\) +# (.*)$", example, re.MULTILINE)
    assert len(expected) == example.count("print(")
    (tmp_path / "example.py").write_text(example)
    assert run.python("-W", "error", tmp_path / "example.py").check().splitlines() == expected


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 4
