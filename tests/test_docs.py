"""The site: it builds without a warning, leaves out no public name, and needs nothing from elsewhere."""

from __future__ import annotations

import importlib
import importlib.util
import re
import zlib
from pathlib import Path

import pytest
from support import run

import pylocks

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
if not DOCS.is_dir():  # pragma: no cover
    pytest.skip("these tests read the source tree", allow_module_level=True)

_spec = importlib.util.spec_from_file_location("pages_of_the_site", DOCS / "pages.py")
assert _spec and _spec.loader
pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pages)

ELSEWHERE = re.compile(
    r"""<(?:link|script|img|iframe|source)\b[^>]*\b(?:src|href|srcset)=["'](?:https?:)?//[^"']+"""
    r"""|@import[^;]*//|url\(["']?(?:https?:)?//[^)]+"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make docs` builds it, warnings being errors; with no way to a server that it might ask."""
    base = tmp_path_factory.mktemp("site")
    nowhere = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https", "all")}
    options = ("-q", "-W", "--keep-going", "-d", base / "trees")
    done = run.python("-m", "sphinx", *options, DOCS, base / "html", environment=run.settings(**nowhere))
    assert done.status == 0, done.out + done.err
    return base / "html"


def inventory(site: Path) -> set[str]:
    """What the site has a place for, by its full name."""
    raw = (site / "objects.inv").read_bytes()
    lines = zlib.decompress(raw.split(b"\n", 4)[4]).decode().splitlines()
    return {line.split()[0] for line in lines if line.split()[1].startswith("py:")}


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    found = inventory(site)
    assert {f"pylocks.{name}" for name in pylocks.__all__} <= found
    for name in pages.MODULES:
        if importlib.util.find_spec(f"pylocks.{name}") is not None:
            module = importlib.import_module(f"pylocks.{name}")
            documented = {n for n in module.__all__ if getattr(getattr(module, n), "__doc__", None)}
            missing = {f"pylocks.{name}.{n}" for n in documented} - found
            assert not missing
    members = {"acquire", "release", "within", "repair", "locked", "owner", "waiters", "ticket", "owner_died"}
    assert {f"pylocks.TicketLock.{name}" for name in members} <= found


def test_every_text_is_a_page_that_can_be_reached(site: Path) -> None:
    start = (site / "index.html").read_text()
    for path in [*DOCS.rglob("*.md"), *DOCS.rglob("*.rst")]:
        page = path.relative_to(DOCS).with_suffix(".html").as_posix()
        assert (site / page).exists(), f"{page} was not made"
        assert page == "index.html" or f'href="{page}"' in start, f"no way leads to {page}"


def test_the_site_needs_nothing_from_elsewhere(site: Path) -> None:
    found = [
        f"{path.relative_to(site)}: {hit[0]}"
        for path in [*site.rglob("*.html"), *site.rglob("*.css")]
        for hit in ELSEWHERE.finditer(path.read_text())
    ]
    assert not found


def test_the_sections_of_other_texts_lead_where_they_did(site: Path) -> None:
    """Relative links of README.md and others are about another folder than that of the page."""
    page = (site / "start" / "benchmarks.html").read_text()
    assert re.search(r'href="[./\w]*/bars\.py"', page)
    page = (site / "reference" / "command-line.html").read_text()
    assert 'href="../observing.html"' in page and 'href="../start/benchmarks.html"' in page


def test_diagrams_are_what_their_script_draws(tmp_path: Path) -> None:
    run.python(DOCS / "make_diagrams.py", tmp_path).check()
    drawn = {path.name: path.read_text() for path in tmp_path.glob("*.svg")}
    assert drawn == {path.name: path.read_text() for path in (DOCS / "diagrams").glob("*.svg")}
    assert drawn
