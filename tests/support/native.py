"""Building what is under examples/ as its users would, and running code that imports it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pylocks

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "examples"
PACKAGES = Path(pylocks.__file__).resolve().parent.parent
"""Where Cython finds the declarations: it looks along the path, on which editable installs may not be."""
LIMIT_S = 100.0


def environment(*folders: Path, **settings: str) -> dict[str, str]:
    """This process's, without its PYLOCKS_ settings; these folders can be imported from."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("PYLOCKS_")}
    path = [*map(str, folders), str(PACKAGES), *filter(None, [found.get("PYTHONPATH")])]
    return {**found, "PYTHONPATH": os.pathsep.join(path), **settings}


def build(example: str, folder: Path) -> Path:
    """Build examples/EXAMPLE in a copy; the folder that holds the module."""
    target = folder / example
    shutil.copytree(EXAMPLES / example, target, ignore=shutil.ignore_patterns("build", "*.so", "moments.c"))
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=target, env=environment(CFLAGS="-O0"), capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "warning:" not in done.stderr, done.stderr
    return target


def run(code: str, *folders: Path, fails: bool = False, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run Python code that can import from the folders; it must succeed unless `fails`."""
    return script("-c", code, *folders, fails=fails, **settings)


def script(*arguments: str | Path, fails: bool = False, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the interpreter: the folders among the arguments are those to import from."""
    folders = [each for each in arguments if isinstance(each, Path) and each.is_dir()]
    words = [str(each) for each in arguments if each not in folders]
    done = subprocess.run(
        [sys.executable, *words],
        env=environment(*folders, **settings),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert (done.returncode != 0) == fails, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
