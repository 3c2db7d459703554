"""What the site needs besides Sphinx: links of texts that lie elsewhere, and no public name left out."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

import pylocks
from pylocks import errors

ROOT = Path(__file__).resolve().parent.parent

PAGES = {  # texts that lie outside of docs/ -> the pages that include them
    "README.md": "docs/index.md",
    "CHANGELOG.md": "docs/reference/changelog.md",
    "CONTRIBUTING.md": "docs/reference/contributing.md",
    "bench/README.md": "docs/start/benchmarks.md",
    "csrc/README.md": "docs/reference/code.md",
}
MODULES = ("events", "metrics", "observe", "deadlocks", "multiprocessing")
"""Public modules, where there are such, of which the reference shows all public names."""

_LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(#[^)\s]*)?(?=\))")

_ERROR = re.compile(rf"(?<![\w.])({'|'.join(errors.__all__)})(?![\w`])")


def linked(text: str, source: str, page: str) -> str:
    """The text of `source` for use in `page`, both as paths in the project: its relative links lead there."""

    def place(found: re.Match[str]) -> str:
        target = os.path.normpath(PurePosixPath(source).parent / found[1])
        if not (ROOT / target).exists():
            return found[0]  # no link, or a wrong one, of which Sphinx will tell
        if (ROOT / target).is_dir():  # which has no page: what is in it that says most
            files = sorted(path.name for path in (ROOT / target).iterdir() if path.is_file())
            first = next((name for name in ("README.md", "__init__.py") if name in files), files[0])
            target = f"{target}/{first}"
        target = PAGES.get(target, target)
        return os.path.relpath(target, PurePosixPath(page).parent) + (found[2] or "")

    return _LINK.sub(place, text)


def _path_of(app: Any, docname: str) -> str:
    return Path(app.env.doc2path(docname)).resolve().relative_to(ROOT).as_posix()


def _included(app: Any, path: Path, _page: str, content: list[str]) -> None:
    source = (Path(app.srcdir) / path).resolve().relative_to(ROOT).as_posix()
    content[0] = linked(content[0], source, _path_of(app, app.env.docname))  # _page lacks its folder


def _read(app: Any, docname: str, content: list[str]) -> None:
    page = _path_of(app, docname)
    if page.endswith(".md"):
        content[0] = linked(content[0], page, page)
    if docname == "reference/api":
        content[0] = content[0].replace(".. the-others::\n", others(content[0]))


def others(text: str) -> str:
    """Directives for the public names that a page of reStructuredText does not have, and for the modules."""
    names = set(re.findall(r"^\.\. auto\w+:: pylocks\.(\w+)$", text, re.MULTILINE))
    missing = [name for name in pylocks.__all__ if name not in names]
    kinds = {
        "More classes": [name for name in missing if _is_class(name) and not _is_error(name)],
        "Functions": [name for name in missing if not _is_class(name)],
        "Errors and warnings": [name for name in missing if _is_error(name)],
    }
    lines = []
    for title, members in kinds.items():
        if members:
            lines += [title, "-" * len(title), ""]
        for name in members:
            kind = "autoexception" if _is_error(name) else "autoclass" if _is_class(name) else "autofunction"
            lines += [f".. {kind}:: pylocks.{name}"]
            if kind == "autoclass":
                lines += ["   :members:", "   :inherited-members:"]
            elif kind == "autoexception":
                lines += ["   :no-members:", "   :show-inheritance:"]
            lines += [""]
    for module in filter(_exists, (f"pylocks.{name}" for name in MODULES)):
        lines += [module, "-" * len(module), "", f".. automodule:: {module}", "   :imported-members:", ""]
    return "\n".join(lines)


def _exists(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _is_class(name: str) -> bool:
    return isinstance(getattr(pylocks, name), type)


def _is_error(name: str) -> bool:
    value = getattr(pylocks, name)
    return isinstance(value, type) and issubclass(value, BaseException)


def _docstring(_app: Any, _what: str, _name: str, _of: object, _options: object, lines: list[str]) -> None:
    """Docstrings are plain text: but for `code`, characters mean themselves; and errors are linked."""
    for at, line in enumerate(lines):
        pieces = line.split("`")
        for i, piece in list(enumerate(pieces))[::2]:
            plain = re.sub(r"(?<=\w)_(?!\w)|[*|]", r"\\\g<0>", piece)
            pieces[i] = _ERROR.sub(r":py:exc:`~pylocks.\g<0>`", plain)
        lines[at] = "`".join(pieces)


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    app.connect("include-read", _included)
    app.connect("autodoc-process-docstring", _docstring)
    return {"parallel_read_safe": True}
