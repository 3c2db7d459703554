"""The shape of the source: which part may know of which, and that no list misses a member."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from support import run

from pylocks._core import ffi, lib
from pylocks.ops import choices, slow_paths
from pylocks.views import Stats

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
PACKAGE = ROOT / "pylocks"
INCLUDE = CSRC / "include"

if not CSRC.is_dir():  # pragma: no cover
    pytest.skip("these tests read the source tree", allow_module_level=True)

# From the top down.  A layer may include itself and those below it; all may include the public face.
LAYERS = ("fast", "patch", "slow", "sync", "hv", "recover")
LONGEST = 450
"""Lines of a module."""


def c_files(folder: Path = CSRC) -> list[Path]:
    return sorted(path for path in folder.rglob("*.[ch]") if path.name != "_core.c")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def includes(path: Path) -> Iterator[tuple[bool, str]]:
    """(True for "...", False for <...>; what is included)."""
    for quote, name in re.findall(r'^\s*#\s*include\s*(["<])([^">]+)[">]', path.read_text(), re.MULTILINE):
        yield quote == '"', name


def without_comments(path: Path) -> str:
    return re.sub(r"/\*.*?\*/", lambda found: "\n" * found[0].count("\n"), path.read_text(), flags=re.DOTALL)


# ------------------------------------------------------------------------ C


def test_all_layers_are_known() -> None:
    found = {path.name for path in CSRC.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert found == {*LAYERS, "include", "probe"}


@pytest.mark.parametrize("layer", LAYERS)
def test_includes_point_down(layer: str) -> None:
    allowed = LAYERS[LAYERS.index(layer) :]
    files = c_files(CSRC / layer)
    assert files
    for path in files:
        for own, name in includes(path):
            if not own:
                assert not (CSRC / name).exists(), f"{name_of(path)} includes <{name}>: use quotes"
            elif (path.parent / name).exists():
                pass  # beside it
            else:
                assert (CSRC / name).is_file(), f"{name_of(path)} includes {name}, which is nowhere"
                assert name.split("/")[0] in allowed, f"{name_of(path)} includes {name}, which is above it"


def test_the_fast_layer_knows_the_public_face_alone() -> None:
    """It is to the core what anybody's extension is."""
    for path in c_files(CSRC / "fast"):
        for own, name in includes(path):
            if own:
                assert name.startswith("fast/"), f"{name_of(path)} includes {name}"
            else:
                assert not (CSRC / name).exists(), f"{name_of(path)} includes <{name}>"


def test_the_public_face_includes_itself_and_the_system_alone() -> None:
    for path in c_files(INCLUDE):
        for own, name in includes(path):
            if own:
                assert (path.parent / name).is_file(), f"{name_of(path)} includes {name}"
            else:
                assert not name.startswith(("pylocks", "Python")), f"{name_of(path)} includes <{name}>"
                assert not (CSRC / name).exists(), f"{name_of(path)} includes <{name}>"


def test_the_probe_knows_nothing_of_the_core() -> None:
    for path in c_files(CSRC / "probe"):
        for own, name in includes(path):
            assert not name.startswith("pylocks"), f"{name_of(path)} includes {name}"
            assert not own or name.startswith("probe/"), f"{name_of(path)} includes {name}"


@pytest.mark.parametrize("path", c_files(), ids=name_of)
def test_no_ladders_of_conditionals(path: Path) -> None:
    """What differs by slow path, op or event is a row in a table, not a branch of the preprocessor."""
    depth, branches = 0, []
    guarded = path.suffix == ".h" and path.name != "core.h"
    for line in without_comments(path).splitlines():
        word = re.match(r"\s*#\s*(if|ifdef|ifndef|elif|else|endif)\b", line)
        if word is None:
            continue
        if word[1] in ("if", "ifdef", "ifndef"):
            branches.append(1)
            depth = max(depth, len(branches) - guarded)
        elif word[1] == "endif":
            branches.pop()
        else:
            branches[-1] += 1
            assert branches[-1] <= 3, f"{name_of(path)}: {line.strip()}"
    assert not branches
    assert depth <= 2


@pytest.mark.parametrize("path", c_files(), ids=name_of)
def test_headers_are_guarded_and_files_are_introduced(path: Path) -> None:
    text = path.read_text()
    if path.suffix == ".h":
        guard = re.search(r"^#ifndef (\w+_H)\n#define (\w+_H)$", text, re.MULTILINE)
        assert guard is not None and guard[1] == guard[2], name_of(path)
    elif (path.with_suffix(".h")).exists():
        pass  # its header says what it is
    else:
        assert text.startswith("/*"), f"{name_of(path)} does not say what it is"


SYSTEM_CALLS = {
    "hv/futex.c": {"SYS_futex", "SYS_futex_waitv"},
    "hv/barrier.c": {"SYS_membarrier"},
    "patch/patch.c": {"SYS_membarrier"},  # tells other cores to refetch patched text
    "hv/identity.c": {"SYS_gettid", "SYS_tgkill"},
    "hv/monitor.c": {"SYS_bpf"},
    "hv/quick.c": {"SYS_clock_gettime"},  # without the C library, which may use vector registers
    "hv/robust.c": {"SYS_gettid"},
    "fast/acquire.c": {"SYS_gettid"},  # is this Python's main thread?
    "probe/probe.c": {"SYS_futex"},  # starts all workers at once; knows nothing of the core
}


def test_raw_system_calls_are_where_they_are_expected() -> None:
    found = {}
    for path in c_files():
        numbers = set(re.findall(r"\bSYS_\w+", without_comments(path)))
        if numbers:
            found[path.relative_to(CSRC).as_posix()] = numbers
    assert {name for name in found if name not in SYSTEM_CALLS} == set()
    for name, numbers in found.items():
        assert numbers <= SYSTEM_CALLS[name], name
    assert [name for name, numbers in found.items() if "SYS_futex" in numbers and name[:5] != "probe"] == [
        "hv/futex.c"
    ]


# --------------------------------------------------------------- handshakes

ID = re.compile(r"\[([A-Z]\d)\]")
FENCE = re.compile(r"\b(PLK_FENCE|PLK_UNLOCK_BARRIER|plk_barrier_heavy|plk_slow_raise)\(")


def mentions(paths: list[Path]) -> dict[str, list[str]]:
    """ID -> "file:line" of each mention."""
    found: dict[str, list[str]] = {}
    for path in paths:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for name in ID.findall(line):
                found.setdefault(name, []).append(f"{name_of(path)}:{number}")
    return found


def test_every_handshake_stands_on_both_its_sides_and_in_a_test() -> None:
    in_code = mentions(c_files())
    in_tests = mentions([path for path in (ROOT / "tests").glob("test_*.py") if path != Path(__file__)])
    assert len(in_code) >= 3
    for name, places in in_code.items():
        assert len(places) >= 2, f"[{name}] is mentioned only at {places[0]}"
        assert name in in_tests, f"no test forces [{name}]"
    assert set(in_tests) == set(in_code), "a test names a handshake that is nowhere in the code"
    in_models = mentions(sorted((ROOT / "tests" / "model").glob("*.pml")))
    assert set(in_models) == set(in_code), "a model lacks a handshake, or has one that is nowhere in the code"


def test_the_map_of_the_code_lists_the_handshakes() -> None:
    listed = re.findall(r"^\| ([A-Z]\d) \|", (CSRC / "README.md").read_text(), re.MULTILINE)
    assert listed == sorted(mentions(c_files()))


def test_every_fence_names_its_partner() -> None:
    """On its line or in the comment just before or behind it; the fences' own bodies excepted."""
    bodies = ("csrc/hv/barrier.c", "csrc/patch/choices.c")
    fences = 0
    for path in c_files():
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            used = FENCE.search(line) and not re.match(r"\s*(\*|/\*|#|void )", line)
            if not used or name_of(path) in bodies:
                continue
            fences += 1
            near = "\n".join(lines[max(0, number - 3) : number + 3])
            assert ID.search(near) or "pairs with" in near, f"{name_of(path)}:{number + 1}: {line.strip()}"
    assert fences >= 4


# ------------------------------------------------------------------- tables


def rows_of(table: str, header: str) -> list[tuple[str, ...]]:
    """Arguments of each X(...) in the definition of an X-macro."""
    text = (CSRC / header).read_text()
    body = re.search(rf"#define {table}\(X\)((?:.*\\\n)*.*\n)", text)
    assert body is not None
    rows = re.findall(r"X\((.*?)\)\s*\\?\n", body[1])
    return [tuple(part.strip().strip('"') for part in re.split(r',\s*(?=[\w"])', row)) for row in rows]


def test_every_slow_path_has_a_file_and_every_file_a_row() -> None:
    rows = [row[0] for row in rows_of("PLK_SLOW_PATHS", "slow/slow.h")]
    assert sorted(rows) == sorted(path.stem for path in (CSRC / "slow").glob("*.c"))
    assert tuple(rows) == slow_paths(sound_only=False)
    assert set(slow_paths()) < set(rows), "none is broken on purpose"


def test_every_op_says_where_it_is_called_and_what_it_returns() -> None:
    rows = rows_of("PLK_OPS", "include/pylocks/ops.h")
    assert [row[0] for row in rows] == [text(lib.plk_op_name(op)) for op in range(lib.plk_op_count())]
    for _, where, what in rows:
        assert where and what
    site = (INCLUDE / "pylocks" / "site.h").read_text()
    generic = (INCLUDE / "pylocks" / "site_generic.h").read_text()
    for name, *_ in rows:
        if name != "unlock_barrier":
            assert f"PLK_OP_{name}" in site, f"no macro makes a site of {name}"
    assert "PLK_UNLOCK_BARRIER" in generic


def text(pointer: object) -> str:
    return ffi.string(pointer).decode()  # type: ignore[arg-type]


def test_every_choice_has_a_meaning() -> None:
    for choice in choices():
        assert len(choice.meaning) >= 10 and choice.meaning == choice.meaning.strip(), choice
        assert choice.kind in ("nop", "inline", "call")
    names = [(choice.op, choice.name) for choice in choices()]
    assert len(set(names)) == len(names)
    for op in {choice.op for choice in choices()}:
        assert any(choice.protocol != "enlightened" and choice.sound for choice in choices(op)), op
        assert any(choice.protocol != "native" and choice.sound for choice in choices(op)), op


def test_the_counters_are_the_cores_events() -> None:
    names = [text(lib.plk_event_name(event)) for event in range(lib.plk_event_count())]
    assert [field.name for field in fields(Stats)] == names
    meanings = [text(lib.plk_event_meaning(event)) for event in range(lib.plk_event_count())]
    assert all(len(meaning) >= 10 for meaning in meanings) and len(set(meanings)) == len(names)
    assert lib.plk_event_name(len(names)) == lib.plk_event_meaning(len(names)) == ffi.NULL


def test_every_event_is_counted_somewhere() -> None:
    code = "".join(without_comments(path) for path in c_files())
    for event in range(lib.plk_event_count()):
        name = text(lib.plk_event_name(event))
        assert re.search(rf"PLK_EVENT(_AT)?\([^()]*, {name}\b", code), f"nothing counts {name}"


# ------------------------------------------------------------------ modules


def modules() -> list[Path]:
    return [*c_files(), *sorted(PACKAGE.rglob("*.py")), *sorted((ROOT / "bench").rglob("*.py"))]


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_no_module_is_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST


# A module of the package may import those to its left.
ORDER = (
    "errors",
    "views",
    "machine",
    "spin",
    "callables",
    "btf",
    "monitor",
    "policy",
    "ops",
    "segment",
    "attach",
    "domain",
    "locks",
    "sync",
    "semaphore",
    "event",
    "mutex",
    "condition",
    "barrier",
    "rwlock",
    "service",
    "hypervisor",
    "events",
    "__init__",
)
ON_TOP = (
    "multiprocessing", "observe", "stress", "bench", "lab", "deadlocks", "aio", "perfetto", "trace",
    "metrics", "serve", "cli", "__main__",
)  # fmt: skip
# What makes things that are built on domains; imported when it is called.
LAZILY_UPWARD = {("domain", "locks"), ("errors", "deadlocks"), ("errors", "sync"), ("locks", "aio")}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(module of the package, imported lazily) of each import that happens at run time."""
    tree = ast.parse(path.read_text())

    def visit(node: ast.AST, lazily: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            inner = lazily or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            if isinstance(child, ast.Import):
                names = [alias.name for alias in child.names]
                yield from ((name, lazily) for name in names if name.split(".")[0] == "pylocks")
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    above = path.relative_to(ROOT).parent.parts[: -(child.level - 1) or None]
                    base = ".".join([*above, *filter(None, [base])])
                if base.split(".")[0] == "pylocks":
                    yield from ((f"{base}.{alias.name}", lazily) for alias in child.names)
            yield from visit(child, inner)

    yield from visit(tree, False)


def part(name: str) -> str:
    """The module or subpackage directly below pylocks that an imported name belongs to."""
    pieces = name.split(".")[1:]
    known = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith("__")}
    return pieces[0] if pieces and pieces[0].split("-")[0] in known else "__init__"


COMPILED = ("_core", "_lock")


@pytest.mark.parametrize("module", ORDER)
def test_imports_go_one_way(module: str) -> None:
    for name, lazily in imports(PACKAGE / f"{module}.py"):
        other = part(name)
        if other in COMPILED or (lazily and (module, other) in LAZILY_UPWARD):
            continue
        assert other in ORDER, f"{module} imports {name}, which is built on it"
        assert ORDER.index(other) < ORDER.index(module), f"{module} imports {name}, which is above it"


def test_all_modules_have_their_place() -> None:
    found = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()
    }
    assert found == {*ORDER, *ON_TOP}


def test_stress_bench_and_cli_are_on_top() -> None:
    for path in (PACKAGE / "stress").rglob("*.py"):
        for name, _ in imports(path):
            assert part(name) not in ("bench", "cli", "__main__"), f"{name_of(path)} imports {name}"
    for path in (PACKAGE / "bench").rglob("*.py"):
        for name, _ in imports(path):
            assert part(name) not in ("cli", "__main__"), f"{name_of(path)} imports {name}"


def test_what_runs_in_a_measured_process_knows_the_public_face_alone() -> None:
    """It is loaded beside any version of pylocks, under a name of its own."""
    bench = PACKAGE / "bench"
    roots = [bench / f"{name}.py" for name in ("host", "pyhost")] + [bench / "uncontended" / "worker.py"]
    seen: set[Path] = set()
    while roots:
        path = roots.pop()
        if path in seen:
            continue
        seen.add(path)
        for name, _ in imports(path):
            pieces = name.split(".")
            assert len(pieces) <= 2 or pieces[1] == "bench", f"{name_of(path)} imports {name}"
            if pieces[1:2] != ["bench"]:
                continue
            at = bench.joinpath(*pieces[2:])
            at = next((p for p in (at, at.parent) if p.with_suffix(".py").exists() or p.is_dir()), bench)
            roots.append(at / "__init__.py" if at.is_dir() else at.with_suffix(".py"))
            roots += [path.parent / "__init__.py"]
    assert {path.stem for path in seen} >= {"host", "arena", "fights", "deaths", "queues", "cases", "build"}


def test_programs_that_only_lock_import_little() -> None:
    """Every process that spawn starts pays for it; the service and lock.aio take theirs when asked for."""
    modules = run.python("-c", "import pylocks, sys; print(*sys.modules)").check().split()
    assert "pylocks.locks" in modules
    assert not {"asyncio", "multiprocessing", "psutil", "rich", "ssl"} & {*modules}
