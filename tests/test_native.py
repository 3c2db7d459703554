"""Extensions of other people, in C and in Cython: those of examples/, built as their users would build them.

And what docs/native.md and pylocks.h show, which is a part of them or runs here by itself.
"""

from __future__ import annotations

import platform
import re
import shutil
import sysconfig
from pathlib import Path

import pytest
from patching import WARNINGS, compile_c, compiler
from support.native import EXAMPLES, ROOT, build, run, script

import pylocks

pytestmark = pytest.mark.timeout(240)  # compilers on a busy machine

X86_64 = platform.machine() == "x86_64"
INCLUDE = Path(pylocks.get_include())
HEADER = INCLUDE / "pylocks.h"
PXD = Path(pylocks.__file__).parent / "__init__.pxd"


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the extension in C."""
    return build("c", tmp_path_factory.mktemp("ledger"))


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the extension in Cython."""
    pytest.importorskip("Cython")
    return build("cython", tmp_path_factory.mktemp("moments"))


BOTH = ["ledger", "moments"]


@pytest.fixture(params=BOTH)
def either(request: pytest.FixtureRequest) -> tuple[str, Path]:
    """(name of the module, its folder)"""
    return request.param, request.getfixturevalue(request.param)


# ------------------------------------------------------------------ in use


@pytest.mark.skipif(not X86_64, reason="sites are recorded on x86_64 only")
def test_their_sites_are_in_the_table_and_patched(either: tuple[str, Path]) -> None:
    name, folder = either
    code = f"""
import pylocks, {name}
lock = pylocks.TicketLock()
rows = [row for row in pylocks.ops() if row.module == {name!r}]
ops = {{row.op for row in pylocks.ops()}}
assert {{row.op for row in rows}} == ops, ops
assert all(row.reason.endswith("; patched") for row in rows), rows
assert {{row.kind for row in rows if row.op == "lock_spinning"}} == {{"call"}}
"""
    run(code, folder)


@pytest.mark.parametrize("patch", ["auto", "off"])
def test_the_demo_in_c_loses_nothing(ledger: Path, patch: str) -> None:
    said = script(ledger / "demo.py", ledger, PYLOCKS_PATCH=patch).stdout
    assert said == "160000 transfers, 160000 acquisitions, 0 missing\n"


def test_the_demo_in_cython_loses_nothing(moments: Path) -> None:
    count, *figures = script(moments / "demo.py", moments).stdout.splitlines()
    assert count == "160000 samples of 160000"
    for line in figures:
        found, expected = map(float, re.findall(r"\d+\.\d+", line))
        assert found == pytest.approx(expected, rel=1e-5), line


def test_an_array_of_locks_in_cython(moments: Path) -> None:
    code = """
import array, multiprocessing, threading, os
import moments, pylocks
locks = pylocks.LockArray(7)
counts = multiprocessing.RawArray("l", 7)
common = moments.Histogram(locks, counts)
bins = array.array("l", range(7)) * 3000
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        common.add(bins)
        os._exit(0)
    children.append(child)
threads = [threading.Thread(target=common.add, args=(bins,)) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
assert list(counts) == [12000] * 7, list(counts)
for wrong in (-1, 7, 2**32):
    try:
        common.add(array.array("l", [3, wrong, 3]))
    except IndexError as error:
        assert str(error) == f"there is no bin {wrong}"
assert list(counts) == [12000] * 3 + [12003] + [12000] * 3
locks.close()
try:
    common.add(bins)
except OSError as error:
    print(error)
"""
    assert run(code, moments).stdout == "[Errno 108] bin 0 was not counted\n"


def test_the_histogram_with_numpy_counts_all(tmp_path: Path) -> None:
    """By itself it compares with what one process counts."""
    pytest.importorskip("numpy")
    small = ("--processes", "3", "--rows", "4", "--rounds", "5")
    first, second = script(EXAMPLES / "histogram.py", *small).stdout.splitlines()
    assert re.fullmatch(r" *one lock: +[\d,]+ batches a second, 1,536,000 samples, all counted", first)
    assert re.fullmatch(r"a lock a row: +[\d,]+ batches a second, 1,536,000 samples, all counted", second)


# ------------------------------------------------------------ what goes wrong


def test_another_abi_is_refused(either: tuple[str, Path], tmp_path: Path) -> None:
    name, folder = either
    altered = tmp_path / "include"
    shutil.copytree(INCLUDE, altered)
    layout = altered / "pylocks" / "layout.h"
    now = re.search(r"#define PLK_ABI (\d+)u", layout.read_text())
    assert now is not None
    layout.write_text(layout.read_text().replace(now[0], "#define PLK_ABI 999u"))
    target = tmp_path / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    done = compile_c([folder / f"{name}.c"], target, "-shared", "-O0", include=str(altered))
    assert done.returncode == 0, done.stderr
    error = run(f"import {name}", tmp_path, fails=True).stderr.splitlines()[-1]
    assert error == (
        f"ImportError: {name} was compiled against pylocks ABI 999, but the installed pylocks has ABI "
        f"{now[1]}: rebuild it, or install the matching pylocks"
    )


def test_only_a_lock_is_taken_for_one(ledger: Path, moments: Path) -> None:
    """A domain has an address, too, and it is another thing's."""
    code = """
import array, ledger, moments, pylocks
lock, locks = pylocks.TicketLock(), pylocks.LockArray(3)
three, one = array.array("d", [0] * 3), array.array("l", [0])
ledger.Ledger(lock, one), moments.Moments(lock, three)
for wrong in (locks, lock.domain, lock.address, None, pylocks.Semaphore()):
    for attempt in (lambda: ledger.Ledger(wrong, one), lambda: moments.Moments(wrong, three)):
        try:
            attempt()
        except TypeError as error:
            assert str(error) == f"a pylocks Lock is needed, not {wrong!r}", error
        else:
            raise AssertionError(wrong)
try:
    ledger.Ledger(pylocks.TicketRLock(), one)
except TypeError as error:
    assert "has no address: C code needs a TicketLock" in str(error)
else:
    raise AssertionError("recursive")
class Long(list):
    def __len__(self): return 1
try:
    moments.Histogram(Long(), one)
except TypeError as error:
    print(error)
"""
    assert run(code, ledger, moments).stdout == "a pylocks Array is needed, not []\n"


def test_errors_in_c_are_those_of_python(ledger: Path, moments: Path) -> None:
    code = """
import array, ledger, moments, pylocks
def error(what, *arguments):
    try:
        what(*arguments)
    except Exception as error:
        return type(error), str(error)
with pylocks.Domain() as domain:
    lock = pylocks.TicketLock(domain=domain)
    book = ledger.Ledger(lock, array.array("q", [1, 2]))
    common = moments.Moments(lock, array.array("d", [0] * 3))
    lock.acquire()
    for attempt in ((book.transfer, 0, 1, 1), (book.settle, 3), (common.add, array.array("d", [1]))):
        assert error(*attempt) == error(lock.acquire), error(*attempt)
        assert error(*attempt)[0] is pylocks.AlreadyOwnerError
    lock.release()
for attempt in ((book.transfer, 0, 1, 1), (book.settle, 3), (common.add, array.array("d", [1]))):
    assert error(*attempt) == error(lock.acquire), error(*attempt)
    assert error(*attempt)[0] is pylocks.ClosedError
"""
    run(code, ledger, moments)


def test_c_keeps_alive_what_it_uses(ledger: Path, moments: Path) -> None:
    """The lock's only other user is gone, and others are made where it might have been."""
    code = """
import array, gc, ledger, moments, pylocks
stock = array.array("q", [5, 0])
book = ledger.Ledger(pylocks.TicketLock(), stock)
common = moments.Moments(pylocks.TicketLock(), array.array("d", [0] * 3))
gc.collect()
others = [pylocks.TicketLock() for _ in range(100)]
for other in others: other.acquire()
book.transfer(0, 1, 1, 5)
common.add(array.array("d", [2, 4]))
assert list(stock) == [0, 5]
assert common.variance == 1
del book, common
gc.collect()
for other in others: other.release()
"""
    run(code, ledger, moments)


def test_c_hears_of_a_death_and_repairs(ledger: Path, moments: Path) -> None:
    code = """
import array, mmap, os, ledger, moments, pylocks
lock, shared = pylocks.TicketLock(), mmap.mmap(-1, 64)
accounts = memoryview(shared).cast("q")
accounts[0], accounts[1] = 100, 200
book = ledger.Ledger(lock, shared)
child = os.fork()
if child == 0:
    lock.acquire()
    accounts[0] -= 30
    os._exit(0)
os.waitpid(child, 0)
try:
    book.transfer(0, 1, 1)
except RuntimeError as error:
    assert str(error) == "somebody died amid a transfer: call settle()"
assert lock.owner_died and not lock.locked()
assert book.settle(300) == 30
assert not lock.owner_died
book.transfer(0, 1, 50)
assert list(accounts[:2]) == [50, 250]

state = array.array("d", [3, 7, 9])
child = os.fork()
if child == 0:
    lock.acquire()
    os._exit(0)
os.waitpid(child, 0)
moments.Moments(lock, state).add(array.array("d", [5]))
assert list(state) == [1, 5, 0]
"""
    run(code, ledger, moments)


def test_a_wait_in_turns_hears_of_ctrl_c(ledger: Path) -> None:
    code = """
import array, os, signal, threading, time, ledger, pylocks
lock = pylocks.TicketLock()
book = ledger.Ledger(lock, array.array("q", [1, 2]))
ready, done = threading.Event(), threading.Event()
def hold():
    with lock:
        ready.set()
        while not lock.waiters: time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)
        done.wait()
thread = threading.Thread(target=hold)
thread.start()
ready.wait()
try:
    book.settle(3)
except KeyboardInterrupt:
    print("heard")
done.set()
thread.join()
assert book.settle(3) == 0
"""
    assert run(code, ledger).stdout == "heard\n"


# ------------------------------------------------------------------- documents


def test_the_example_in_the_header_is_a_whole_extension(tmp_path: Path) -> None:
    """As C and, where there is a compiler for it, as C++."""
    shown = re.search(r"^ \*     // tally\.c\n(.*?)^ \*     // end\n", HEADER.read_text(), re.M | re.S)
    assert shown is not None
    source = tmp_path / "tally.c"
    source.write_text(re.sub(r"^ \*(     )?", "", shown[1], flags=re.M))
    use = """
import multiprocessing, pylocks, tally, threading
lock, total = pylocks.TicketLock(), multiprocessing.RawArray("l", 1)
kinds = 2 * [multiprocessing.get_context("fork").Process] + 2 * [threading.Thread]
crew = [kind(target=tally.add, args=(lock, total, 5000)) for kind in kinds]
for each in crew: each.start()
for each in crew: each.join()
assert {op.module for op in pylocks.ops()} >= {"tally"} or not pylocks.ops()
print(total[0])
"""
    target = tmp_path / f"tally{sysconfig.get_config_var('EXT_SUFFIX')}"
    ways = [[*compiler(), "-x", "c", "-std=gnu99"]]
    if shutil.which("g++"):
        ways.append(["g++", "-x", "c++", "-std=gnu++14", "-Wno-missing-field-initializers"])
    for command in ways:
        done = compile_c([source], target, "-shared", "-O1", *WARNINGS, command=command)
        assert done.returncode == 0, done.stderr
        assert run(use, tmp_path).stdout == "20000\n"


def test_the_declarations_for_cython_are_those_of_the_headers() -> None:
    """Each function, with the number of arguments that it has."""

    def functions(text: str) -> dict[str, int]:
        found = re.findall(r"\b(plk_\w+)\(([^()]*)\)", text)
        return {name: len(arguments.split(",")) for name, arguments in found}

    declared = {
        name: count
        for line in PXD.read_text().splitlines()
        if re.match(r"    (int|uint64_t|plk_\w+|object) ", line)
        for name, count in functions(line).items()
    }
    headers = (HEADER, INCLUDE / "pylocks" / "python.h")
    there = {
        name: count
        for header in headers
        for found in re.findall(r"^(?:PLK_\w+|__attribute__).*?\)\s*[;{]?$", header.read_text(), re.M | re.S)
        for name, count in functions(found).items()
    }
    assert len(declared) >= 11
    assert declared.items() <= there.items()
    public = {name for name in there if name not in ("plk_address_borrow", "plk_register_python")}
    assert public - set(declared) == {"plk_register"}, "there is more than the .pxd declares"


DOCUMENT = ROOT / "docs" / "native.md"


def blocks() -> list[tuple[str, str, str]]:
    """(section, language, text) of each block of code."""
    found, section = [], ""
    for piece in re.finditer(r"^## ([^\n]*)$|^```(\w+)\n(.*?)^```$", DOCUMENT.read_text(), re.M | re.S):
        if piece[1]:
            section = piece[1]
        else:
            found.append((section, piece[2], piece[3]))
    return found


def is_shown(text: str) -> bool:
    """It stands like that in an example."""
    files = (path for path in EXAMPLES.rglob("*") if path.suffix in (".c", ".pyx", ".py"))
    return any(text in path.read_text() for path in files)


def test_what_the_document_shows_in_c_and_cython_is_of_the_examples() -> None:
    shown = [text for _, language, text in blocks() if language in ("c", "cython")]
    assert len(shown) >= 8
    for text in shown:
        assert is_shown(text), text
    assert {language for _, language, _ in blocks()} == {"c", "cython", "python"}


SECTIONS = list(dict.fromkeys(section for section, language, _ in blocks() if language == "python"))


@pytest.mark.parametrize("section", SECTIONS)
def test_what_the_document_shows_in_python_runs(section: str, ledger: Path) -> None:
    texts = [text for where, language, text in blocks() if (where, language) == (section, "python")]
    code = "".join(text for text in texts if not is_shown(text))
    for module in re.findall(r"^import (numba|numpy)\b", code, re.M):
        pytest.importorskip(module)
    assert code
    run(code, ledger)
