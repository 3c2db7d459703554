"""What is shipped: the sdist and the wheel are complete, install by themselves, and work.

Everything is built from a copy of the checkout, so that neither its build products nor the way it
is installed here can help.
"""

from __future__ import annotations

import email.message
import email.parser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(400)  # building and installing takes tens of seconds

ROOT = Path(__file__).resolve().parent.parent
BUILD_PRODUCTS = shutil.ignore_patterns(
    ".git", ".venv*", ".*_cache", ".benchmarks", ".hypothesis", "build", "_build", "dist", "__pycache__",
    "*.egg-info", "*.so", "*.o", "*.py[cod]",
)  # fmt: skip


def run(*command: str | Path, cwd: Path, **settings: str) -> str:
    """Standard output of a command that must succeed, run without this process's settings but with these."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV") and not name.startswith("PYLOCKS_")
    } | settings
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{command} in {cwd}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def shipped_sources() -> list[str]:
    """Paths of the project's own files: what git tracks; without it, all but build products."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
        tracked = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
        if tracked:
            return sorted(tracked)
    names: list[str] = []
    for folder, folders, files in os.walk(ROOT):
        ignored = BUILD_PRODUCTS(folder, [*folders, *files])
        folders[:] = [name for name in folders if name not in ignored]
        names += [(Path(folder, name).relative_to(ROOT)).as_posix() for name in files if name not in ignored]
    return sorted(set(names) - {"PKG-INFO", "setup.cfg"})


@dataclass(frozen=True)
class Artifacts:
    sdist: Path
    wheel: Path
    wheel_of_sdist: Path

    def sdist_names(self) -> set[str]:
        with tarfile.open(self.sdist) as archive:
            return {name.partition("/")[2] for name in archive.getnames() if archive.getmember(name).isfile()}

    def metadata(self) -> email.message.Message:
        with zipfile.ZipFile(self.wheel) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            return email.parser.Parser().parsestr(archive.read(name).decode())


def wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """The sdist, a wheel built from the tree, and one built from the sdist."""
    base = tmp_path_factory.mktemp("packaging")
    tree = base / "tree"
    for name in shipped_sources():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    pip_wheel = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w")

    run(*pip_wheel, base / "wheel", tree, cwd=base)
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", base / "sdist", tree, cwd=base)
    (sdist,) = (base / "sdist").iterdir()
    run(*pip_wheel, base / "again", sdist, cwd=base)
    (wheel,) = (base / "wheel").iterdir()
    (again,) = (base / "again").iterdir()
    return Artifacts(sdist, wheel, again)


def test_the_sdist_holds_the_whole_project(artifacts: Artifacts) -> None:
    generated = {"PKG-INFO", "setup.cfg"}
    shipped = {
        name for name in artifacts.sdist_names() - generated if not name.startswith("pylocks.egg-info/")
    }
    assert shipped == set(shipped_sources()) - {".gitignore"}
    assert {"Makefile", ".ci/run", "csrc/core.cdef", "csrc/include/pylocks.h"} <= shipped


def test_an_sdist_is_the_same_whoever_makes_it(tmp_path: Path) -> None:
    """Byte for byte, given SOURCE_DATE_EPOCH: of files of other ages and modes, in another folder."""
    made = []
    for number, mode in enumerate((0o600, 0o664)):
        tree = tmp_path / str(number)
        for name in reversed(shipped_sources()) if number else shipped_sources():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
            (tree / name).chmod(mode | (ROOT / name).stat().st_mode & 0o100)
            os.utime(tree / name, (1e9 + number, 1e9 + number))
        out = tmp_path / f"of {number}"
        command = (sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", out)
        run(*command, tree, cwd=tmp_path, SOURCE_DATE_EPOCH="1600000000")
        (sdist,) = out.iterdir()
        made.append(sdist.read_bytes())
        with tarfile.open(sdist) as archive:
            assert {entry.mtime for entry in archive} == {1_600_000_000}
    assert made[0] == made[1]


def test_wheels_are_made_for_the_pythons_that_are_named() -> None:
    """By cibuildwheel, and by make test-all; and the free-threaded ones that cffi can do."""
    text = (ROOT / "pyproject.toml").read_text()
    named = re.findall(r"Python :: (3\.\d+)", text)
    assert set(named) <= {f"{tag[0]}.{tag[1:]}" for tag in re.findall(r'"cp(\d+)-\*"', text)}
    expected = re.search(r"EXPECTED = \((.*)\)", (ROOT / ".ci" / "every_python.py").read_text())
    assert expected is not None and re.findall(r"[\d.]+", expected[1]) == named


def test_the_wheel_holds_the_package_and_nothing_else(artifacts: Artifacts) -> None:
    sources = shipped_sources()
    package = {name for name in sources if name.startswith("pylocks/")}
    headers = {name.replace("csrc/", "pylocks/", 1) for name in sources if name.startswith("csrc/include/")}
    content = {name for name in wheel_names(artifacts.wheel) if ".dist-info/" not in name}
    compiled = {name for name in content if name.endswith(".so")}

    assert content - compiled == package | headers
    assert sorted(name.partition(".")[0] for name in compiled) == ["pylocks/_core", "pylocks/_lock"]
    assert {"pylocks/py.typed", "pylocks/_lock.pyi", "pylocks/_core.pyi"} <= package
    assert "pylocks/include/pylocks.h" in headers


def test_a_wheel_of_the_sdist_is_a_wheel_of_the_tree(artifacts: Artifacts) -> None:
    assert artifacts.wheel_of_sdist.name == artifacts.wheel.name
    assert wheel_names(artifacts.wheel_of_sdist) == wheel_names(artifacts.wheel)


def test_metadata(artifacts: Artifacts) -> None:
    metadata = artifacts.metadata()
    assert metadata["Name"] == "pylocks"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "MIT"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    extras = {"cli", "service", "stacks", "docs", "bench", "test"}
    assert set(metadata.get_all("Provides-Extra", [])) == {*extras, "all"}

    requirements = metadata.get_all("Requires-Dist", [])
    plain = {re.split(r"[<>=~!]", r)[0].replace("-", "_") for r in requirements if ";" not in r}
    assert plain == {"cffi", "posix_ipc", "psutil"}
    (everything,) = (r for r in requirements if r.endswith('extra == "all"'))
    assert set(re.findall(r"\w+", everything.partition(";")[0])) == {"pylocks", *extras}


def test_the_version_is_written_once(artifacts: Artifacts) -> None:
    version = artifacts.metadata()["Version"]
    statement = re.compile(rf"version\w*\b.*=\s*['\"]{re.escape(version)}['\"]")
    code = [name for name in shipped_sources() if name.endswith((".py", ".pyi", ".toml"))]
    stated = [name for name in code if statement.search((ROOT / name).read_text())]
    assert stated == ["pylocks/__init__.py"]
    assert version in (ROOT / "CHANGELOG.md").read_text()


@pytest.fixture(scope="module", params=["sdist", "wheel"])
def installed(
    artifacts: Artifacts, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The programs of an environment with nothing in it but pylocks, without extras."""
    base = tmp_path_factory.mktemp(f"installed_{request.param}")
    run(sys.executable, "-m", "venv", base, cwd=base)
    run(base / "bin/pip", "install", "--quiet", getattr(artifacts, request.param), cwd=base)
    return base / "bin"


def test_installed_the_stress_program_runs(installed: Path, tmp_path: Path) -> None:
    options = ("--quick", "--no-progress", "--json", "out.json")
    table = run(installed / "pylocks", "stress", *options, cwd=tmp_path)
    assert "multiprocessing.Lock" in table
    assert json.loads((tmp_path / "out.json").read_text())["verdict"] == "pass"


def test_installed_the_first_example_of_the_readme_runs(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(fenced("python"))
    assert run(installed / "python", "example.py", cwd=tmp_path) == "0\n"


def test_installed_the_headers_are_enough_for_c(installed: Path, tmp_path: Path) -> None:
    include = run(installed / "python", "-c", "import pylocks; print(pylocks.get_include())", cwd=tmp_path)
    assert Path(include.strip()).is_relative_to(installed.parent)

    (tmp_path / "orders.c").write_text(fenced("c"))
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC"))
    strict = ("-std=gnu11", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function")
    python_h = sysconfig.get_path("include")
    run(*compiler, *strict, "-I", include.strip(), "-I", python_h, "orders.c", cwd=tmp_path)


@pytest.mark.parametrize("installed", ["wheel"], indirect=True)
def test_installed_extensions_in_c_and_cython_build_and_run(installed: Path, tmp_path: Path) -> None:
    """As somebody would who has these examples and an environment with pylocks in it."""
    run(installed / "pip", "install", "--quiet", "setuptools>=77", "wheel", "cython>=3", cwd=tmp_path)
    for name in ("c", "cython"):
        shutil.copytree(ROOT / "examples" / name, tmp_path / name, ignore=BUILD_PRODUCTS)
        run(
            installed / "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            f"./{name}",
            cwd=tmp_path,
        )
        said = run(installed / "python", tmp_path / name / "demo.py", cwd=tmp_path)
        assert said.startswith("160000 ")


def fenced(language: str) -> str:
    """The README's first block of code in the language."""
    found = re.search(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found, f"README.md has no example in {language}"
    return found[1]


def test_the_project_names_no_machine_and_no_registry() -> None:
    paths = {str(ROOT), str(Path.home())} - {"/"}
    suspicious = re.compile(
        "|".join(
            [
                *(rf"(?<![\w.]){re.escape(path)}(?![\w.-])" for path in sorted(paths)),
                r"(?<![\w.])/(home|Users)/\w",
                r"pypi\.org|pythonhosted|--(extra-)?index-url|--find-links|--trusted-host",
            ]
        )
    )
    found = []
    for name in shipped_sources():
        if name == Path(__file__).relative_to(ROOT).as_posix():
            continue  # the pattern itself
        try:
            text = (ROOT / name).read_text()
        except UnicodeDecodeError:
            continue  # a picture
        found += [f"{name}: {hit[0]}" for hit in suspicious.finditer(text)]
    assert not found
