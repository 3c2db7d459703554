"""Somebody else's extension: all that it needs is in the public headers, and it is patched like ours.

tests/thirdparty/shop.c is built as such an extension would be, against pylocks.get_include().
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from patching import (
    SITE,
    THIRD_PARTY,
    WARNINGS,
    Elf,
    below_the_stack_pointer,
    build,
    compile_c,
    compiler,
    have,
    instructions,
    read_portrait,
    run,
    stack_switches,
)

import pylocks
from pylocks.ops import choices

OPS = tuple(dict.fromkeys(choice.op for choice in choices()))
# Of the six, an extension has sites of all: the whole lock is compiled into it.
BARRIER = OPS.index("unlock_barrier")
X86_64 = platform.machine() == "x86_64"
needs_sites = pytest.mark.skipif(not X86_64, reason="sites are recorded on x86_64 only")

pytestmark = pytest.mark.xdist_group("third party")

USE = """
import mmap, os, struct, sys
import patching, pylocks

def exclude(n=300):
    "Two processes in C and one in Python, all in update of one number that loses updates if two are inside."
    import shop
    lock = pylocks.TicketLock()
    handle = shop.bind(lock.domain.address, lock.index)
    stock = mmap.mmap(-1, 8)
    stock[:8] = struct.pack("<Q", 3 * n)
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            os._exit(shop.sell(handle, stock, n))
        children.append(child)
    for _ in range(n):
        with lock:
            stock[:8] = struct.pack("<Q", struct.unpack("<Q", stock[:8])[0] - 1)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    return struct.unpack("<Q", stock[:8])[0] == 0
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the extension, of one translation unit."""
    return build("shop", ["shop.c"], tmp_path_factory.mktemp("shop")).parent


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same extension, of two translation units."""
    folder = tmp_path_factory.mktemp("parts")
    return build("shop", ["shop.c", "shop_parts.c"], folder, "-DSHOP_PARTS").parent


# ----------------------------------------------------------------- in use


@needs_sites
@pytest.mark.parametrize("when", ["import shop; pylocks.Domain()", "pylocks.Domain(); import shop"])
@pytest.mark.parametrize("form", ["shop", "parts"])
def test_its_sites_are_patched_whenever_it_is_loaded(
    when: str, form: str, request: pytest.FixtureRequest
) -> None:
    """Before the first attach it is patched then; after it, at once."""
    folder = request.getfixturevalue(form)
    code = f"{USE}\n{when}\nprint(patching.portrait(exclude(), ['shop']))"
    portrait = read_portrait(run(code, folder=folder).stdout)
    rows = [row for row in portrait.rows if row.module == "shop"]
    assert {row.op for row in rows} == set(OPS)
    text = portrait.texts["shop"]
    recorded = {text.base + at for at, _, _ in Elf.read(text.path).site_records()}
    assert {row.address for row in rows} == recorded
    for row in rows:
        assert row.reason.endswith("; patched")
        assert row.after != row.before or row.choice == "fence" or row.is_point
        assert text.at(row.address) == row.after
    # The same choices as everybody's, and the same functions behind them.
    for op in OPS:
        everywhere = [row for row in portrait.rows if row.op == op]
        assert len({(row.choice, row.kind, row.target) for row in everywhere if not row.is_point}) == 1
    assert portrait.said is True, "C and Python were inside at once"


@needs_sites
def test_it_has_no_rows_before_it_is_loaded(shop: Path) -> None:
    code = """
import pylocks
pylocks.Domain()
before = {row.module for row in pylocks.ops()}
import shop
print(sorted({row.module for row in pylocks.ops()} - before))
"""
    assert run(code, folder=shop).stdout == "['shop']\n"


@pytest.mark.parametrize(
    "settings",
    [
        {"PYLOCKS_PATCH": "off"},
        {"PYLOCKS_PROTOCOL": "native"},
        {"PYLOCKS_OPS": "lock_spinning=yield,cpu_relax=yield"},
        {"PYLOCKS_OPS": "unlock_barrier=fence,lock_event=counters"},
    ],
    ids=str,
)
@pytest.mark.parametrize("form", ["shop", "parts"])
def test_it_excludes_against_python_in_every_mode(
    settings: dict[str, str], form: str, request: pytest.FixtureRequest
) -> None:
    code = USE + "print(exclude())"
    assert run(code, folder=request.getfixturevalue(form), settings=settings).stdout == "True\n"


@needs_sites
def test_its_text_may_be_writable_or_not_whatever_others_are(shop: Path) -> None:
    """Patched modules and one that can't be patched work on the same locks."""
    code = (
        USE
        + """
from pylocks._core import lib
pylocks.Domain()
lib.plk_patch_through(b"/nonexistent")
import shop
print(exclude(), {row.module: row.kind for row in pylocks.ops() if row.op == "lock_spinning"})
"""
    )
    said = run(code, folder=shop).stdout
    assert said == "True {'pylocks._lock': 'call', 'pylocks._core': 'call', 'shop': 'indirect'}\n"


def test_errors_come_back_as_errno(shop: Path) -> None:
    code = """
import errno, threading, pylocks, shop
lock = pylocks.TicketLock()
handle = shop.bind(lock.domain.address, lock.index)
assert shop.release(handle) == -errno.EPERM
assert shop.acquire(handle) == 0
assert shop.acquire(handle) == -errno.EDEADLK
assert shop.try_acquire(handle) == -errno.EBUSY
assert shop.acquire_for(handle, 0.01) == -errno.EDEADLK
found = []
def other():
    found.extend([shop.try_acquire(handle), shop.acquire_for(handle, 0.01), shop.release(handle)])
thread = threading.Thread(target=other)
thread.start()
thread.join()
assert found == [-errno.EBUSY, -errno.ETIMEDOUT, -errno.EPERM], found
assert shop.release(handle) == 0
assert not lock.locked()
try:
    shop.bind(lock.domain.address, 10**6)
except OSError as error:
    assert str(error) == f"plk_lock_init: -{errno.EINVAL}"
lock.domain.close()
assert shop.acquire(handle) == -errno.ESHUTDOWN
assert shop.try_acquire(handle) == -errno.ESHUTDOWN
assert shop.release(handle) == -errno.EPERM
"""
    run(code, folder=shop)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("lock.acquire() is True", "shop.release(handle) == 0"),
        ("shop.acquire(handle) == 0", "lock.release() is None"),
    ],
)
def test_what_one_module_acquires_another_can_release(shop: Path, first: str, then: str) -> None:
    """Holding belongs to the thread, not to the module whose code it ran."""
    code = f"""
import pylocks, shop
lock = pylocks.TicketLock()
handle = shop.bind(lock.domain.address, lock.index)
assert {first}
assert lock.owner is not None
assert {then}
assert not lock.locked()
"""
    run(code, folder=shop)


def test_a_handle_works_in_a_forked_child_and_another_thread(shop: Path) -> None:
    code = """
import os, threading, pylocks, shop
lock = pylocks.TicketLock()
handle = shop.bind(lock.domain.address, lock.index)
assert shop.acquire(handle) == 0
child = os.fork()
if child == 0:
    os._exit(not (shop.release(handle) < 0 and shop.acquire_for(handle, 0.01) < 0))
assert os.waitpid(child, 0)[1] == 0
assert shop.release(handle) == 0
got = []
thread = threading.Thread(target=lambda: got.extend([shop.acquire(handle), shop.release(handle)]))
thread.start()
thread.join()
assert got == [0, 0]
print(len({v.tid for v in lock.domain.vcpus()}) >= 1)
"""
    assert run(code, folder=shop).stdout == "True\n"


# ---------------------------------------------------------------- misuse


def test_another_abi_is_an_import_error_that_says_what_to_do(tmp_path: Path) -> None:
    altered = tmp_path / "include"
    shutil.copytree(pylocks.get_include(), altered)
    layout = altered / "pylocks" / "layout.h"
    text = layout.read_text()
    now = next(line for line in text.splitlines() if line.startswith("#define PLK_ABI "))
    layout.write_text(text.replace(now, "#define PLK_ABI 999u"))
    build("shop", ["shop.c"], tmp_path, include=str(altered))
    error = run("import shop", fails=True, folder=tmp_path).stderr.splitlines()[-1]
    number = now.split()[-1].rstrip("u")
    assert error == (
        "ImportError: shop was compiled against pylocks ABI 999, but the installed pylocks has ABI "
        f"{number}: rebuild it, or install the matching pylocks"
    )


@pytest.mark.parametrize(
    "flags", [["-DSHOP_UNREGISTERED"], ["-DSHOP_UNREGISTERED", "-DSHOP_HANDMADE"]], ids=str
)
@pytest.mark.parametrize("use", ["try_acquire(handle)", "acquire(handle)"])
def test_use_without_registration_ends_the_program_with_a_message(
    tmp_path: Path, flags: list[str], use: str
) -> None:
    folder = build("shop", ["shop.c"], tmp_path, *flags).parent
    code = f"""
import pylocks, shop
lock = pylocks.TicketLock()
handle = shop.bind(lock.domain.address, lock.index)
shop.{use}
"""
    done = run(code, fails=True, folder=folder)
    assert done.returncode == -6  # SIGABRT
    assert done.stderr == (
        "pylocks: a lock was used by a module that never called plk_register; see pylocks.h\n"
    )


# -------------------------------------------------------------- compilers


COMPILERS = ["gcc", "clang"]
LEVELS = ["-O0", "-O1", "-O2", "-O3", "-Os"]


def need(command: str) -> None:
    if not have(command):
        pytest.skip(f"no {command} here")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("command", COMPILERS)
def test_the_headers_are_clean_c_and_the_sites_sound(tmp_path: Path, command: str, level: str) -> None:
    """No warning; every site recorded, six bytes long, on a stack that the compiler keeps clear of."""
    need(command)
    target = tmp_path / "shop.so"
    done = compile_c(
        [THIRD_PARTY / "shop.c"], target, "-shared", "-std=c11", level, *WARNINGS, "-Wshadow",
        "-Wstrict-prototypes", "-Wno-pedantic", command=[command],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    check_sites(target)


def check_sites(path: Path) -> None:
    if not X86_64:
        return
    elf = Elf.read(str(path))
    records = elf.site_records()
    assert {op for _, op, _ in records} == set(range(len(OPS)))
    for at, op, length in records:
        assert length == SITE
        code = instructions(elf.code(at, SITE), at)
        if op == BARRIER:
            assert f"{code[0].mnemonic} {code[0].op_str}" == "lock or dword ptr [rsp], 0"
        else:
            assert len(code) == 1 and code[0].mnemonic == ("nop" if at in elf.points() else "call")
            function = elf.function_at(at)
            assert below_the_stack_pointer(elf, function) == [], f"{function.name} uses the red zone"
            assert stack_switches(elf, function) == [], f"{function.name} loads rsp"


VARIANTS = [
    ["-O2", "-mavx512f"],
    ["-O2", "-fomit-frame-pointer", "-fno-plt"],
    ["-O2", "-fno-omit-frame-pointer"],
    ["-O2", "-fstack-protector-all"],
    ["-O2", "-fcf-protection=full"],
    ["-O2", "-ffunction-sections", "-Wl,--gc-sections"],
    ["-O2", "-flto"],
    ["-O3", "-march=native"],
]


@pytest.mark.parametrize("flags", VARIANTS, ids=" ".join)
@pytest.mark.parametrize("command", COMPILERS)
def test_other_ways_to_compile(tmp_path: Path, command: str, flags: Sequence[str]) -> None:
    need(command)
    probe = tmp_path / "probe.c"
    probe.write_text("int probe(void);\nint probe(void) { return 0; }\n")
    if compile_c([probe], tmp_path / "probe.so", "-shared", *flags, command=[command]).returncode != 0:
        pytest.skip(f"this {command} has no {' '.join(flags)}")
    target = tmp_path / "shop.so"
    sources = [THIRD_PARTY / name for name in ("shop.c", "shop_parts.c")]
    done = compile_c(sources, target, "-shared", *flags, *WARNINGS, "-DSHOP_PARTS", command=[command])
    assert done.returncode == 0, done.stderr
    check_sites(target)


@pytest.mark.parametrize("flags", [["-O0"], ["-O2"], ["-O3"], ["-Os"], ["-O2", "-flto"]], ids=" ".join)
@pytest.mark.parametrize("command", COMPILERS)
def test_it_works_whoever_compiles_it(tmp_path: Path, command: str, flags: list[str]) -> None:
    """Contended for real: the sites are called from, patched and not."""
    need(command)
    folder = build(
        "shop", ["shop.c", "shop_parts.c"], tmp_path, *flags, "-DSHOP_PARTS", command=[command]
    ).parent
    code = USE + "print(exclude())"
    for patch in ("auto", "off"):
        assert run(code, folder=folder, settings={"PYLOCKS_PATCH": patch}).stdout == "True\n"


@pytest.mark.parametrize("standard", ["c99", "gnu99", "c11", "gnu11", "c17", "gnu17"])
@pytest.mark.parametrize("command", COMPILERS)
def test_the_headers_are_good_for_every_standard(tmp_path: Path, command: str, standard: str) -> None:
    need(command)
    source = tmp_path / "user.c"
    source.write_text(
        "#include <pylocks.h>\n"
        'PLK_MODULE("user");\n'
        "int user(struct plk_lock *lock);\n"
        "int user(struct plk_lock *lock) { int rc = plk_acquire(lock); return rc ? rc : plk_unlock(lock); }\n"
    )
    done = compile_c(
        [source], tmp_path / "user.o", "-c", f"-std={standard}", "-O2", *WARNINGS, "-pedantic",
        command=[command], python=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


CROSS = "aarch64-linux-gnu-gcc"


@pytest.mark.parametrize("level", LEVELS)
def test_aarch64_has_indirect_calls_and_no_sites(tmp_path: Path, level: str) -> None:
    need(CROSS)
    target = tmp_path / "user.so"
    source = tmp_path / "user.c"
    source.write_text(
        "#include <pylocks.h>\n"
        'PLK_MODULE("user");\n'
        "int user(struct plk_lock *lock);\n"
        "int user(struct plk_lock *lock) { int rc = plk_acquire(lock); return rc ? rc : plk_unlock(lock); }\n"
    )
    done = compile_c([source], target, "-shared", level, *WARNINGS, command=[CROSS], python=False)
    assert done.returncode == 0, done.stderr
    assert "plk_sites" not in Elf.read(str(target)).sections


def test_the_compiler_of_this_python_is_one_of_them() -> None:
    """What builds the extensions here is something that these tests cover."""
    said = subprocess.run([*compiler(), "--version"], capture_output=True, text=True).stdout
    assert "Free Software Foundation" in said or "clang" in said
