"""Sphinx's settings for the site that `make docs` builds.

README.md, bench/README.md and others are pages of it or parts of pages: pages.py sees to their links.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import pylocks  # noqa: E402

project = "pylocks"
author = "The pylocks authors"
copyright = f"{author}, MIT licence"
version = release = pylocks.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "pages"]
exclude_patterns = ["_build"]
suppress_warnings = [
    "myst.header",  # a part of another text begins at its own level
    "misc.highlighting_failure",  # a part of a program need not be one
]
smartquotes = False
default_role = "code"  # docstrings write `name` for what is code

myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"pylocks {version}"
html_static_path = ["style"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
