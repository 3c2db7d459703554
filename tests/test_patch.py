"""The patch table: what the live machine code of every site is, in every choice, and when it can't be.

Each choice needs a process of its own, which draws a portrait of its text: the rows of pylocks.ops(),
the table slots, and all executable bytes of its modules.
"""

from __future__ import annotations

import functools
import platform
import re
import struct

import pytest
from patching import (
    NOP6,
    SITE,
    Elf,
    Portrait,
    Row,
    below_the_stack_pointer,
    instructions,
    read_portrait,
    run,
    stack_switches,
)

from pylocks.ops import Choice, choices

WORK = """
import mmap, os, sys
import patching, pylocks
from pylocks import TicketLock

def work(n=100):
    "Two processes and n rounds each of an update that is lost if both are inside."
    lock, area = TicketLock(), mmap.mmap(-1, 8)
    def rounds():
        for _ in range(n):
            with lock:
                value = int.from_bytes(area[:8], "little")
                area[:8] = (value + 1).to_bytes(8, "little")
    child = os.fork()
    if child == 0:
        try:
            rounds()
        finally:
            os._exit(0)
    rounds()
    os.waitpid(child, 0)
    return int.from_bytes(area[:8], "little") == 2 * n
"""
PORTRAIT = WORK + "print(patching.portrait(work()))"
MODULES = {"pylocks._core", "pylocks._lock"}
OPS = tuple(dict.fromkeys(choice.op for choice in choices()))

pytestmark = [
    # One worker draws all the portraits, and each only once.
    pytest.mark.xdist_group("patch"),
    pytest.mark.skipif(
        platform.machine() != "x86_64",
        reason="sites are recorded on x86_64 only",
    ),
]


@functools.lru_cache(maxsize=64)
def drawn(**settings: str) -> Portrait:
    """Portrait of a process that has used locks with these settings."""
    return read_portrait(run(PORTRAIT, settings=settings).stdout)


def settings_for(choice: Choice) -> dict[str, str]:
    settings = {"PYLOCKS_OPS": f"{choice.op}={choice.name}"}
    return settings if choice.protocol is None else {**settings, "PYLOCKS_PROTOCOL": choice.protocol}


AVAILABLE = pytest.mark.parametrize(
    "choice", [pytest.param(c, id=f"{c.op}={c.name}") for c in choices() if c.available]
)

# What the functions behind calls are called; slow paths go by their own names.
FUNCTIONS = {
    ("cpu_relax", "tpause"): "plk_relax_tpause",
    ("cpu_relax", "yield"): "plk_relax_yield",
    ("unlock_kick", "kick"): "plk_serve_next",
    ("unlock_kick", "hosted"): "plk_kick_hosted",
    ("vcpu_preempted", "same_cpu"): "plk_preempted_same_cpu",
    ("vcpu_preempted", "bpf"): "plk_preempted_bpf",
    ("lock_event", "counters"): "plk_event_counters",
    ("lock_event", "trace"): "plk_event_trace",
}
FOLLOWS = {("lock_spinning", "hosted"): "unlock_kick"}
"""Choices that bring another op's with them, unless that is asked for, too."""
INLINE = {
    ("cpu_relax", "pause"): "pause",
    ("unlock_barrier", "fence"): "lock or dword ptr [rsp], 0",
    ("vcpu_preempted", "off"): "xor eax, eax",
}


def check_site(portrait: Portrait, row: Row, choice: Choice) -> None:
    """The row's live bytes are the choice."""
    live = portrait.texts[row.module].at(row.address)
    assert live == row.after and len(live) == SITE
    decoded = instructions(live, row.address)
    texts = [f"{i.mnemonic} {i.op_str}".strip() for i in decoded]
    assert row.choice == choice.name
    assert row.kind == choice.kind
    if choice.kind == "nop":
        assert live == NOP6 and len(decoded) == 1
    elif choice.kind == "inline":
        assert texts[0] == INLINE[choice.op, choice.name]
        assert len(decoded) == 2 and decoded[1].mnemonic == "nop"
    else:
        assert live[0] == 0xE8 and live[5] == 0x90 and len(decoded) == 2
        target = row.address + 5 + struct.unpack("<i", live[1:5])[0]
        if row.is_point:
            text = portrait.texts[row.module]
            place = Elf.read(text.path).points()[row.address - text.base]
            assert portrait.text_of(target).symbol(target) == f"plk_quick_{choice.name}_{place}"
            return
        assert target == row.target, "the direct call goes elsewhere than the table"
        name = FUNCTIONS.get((choice.op, choice.name)) or f"plk_slow_{choice.name}"
        assert portrait.text_of(target).symbol(target) == name


def check_around(portrait: Portrait) -> None:
    """Not a byte of any module's text differs from its file, but those of patched sites."""
    for name, text in portrait.texts.items():
        sites = {row.address + i for row in portrait.rows if row.module == name for i in range(SITE)}
        compiled = text.file_code()
        assert len(compiled) == len(text.code)
        changed = {text.start + i for i in range(len(compiled)) if compiled[i] != text.code[i]}
        assert changed <= sites


def check_compiled(portrait: Portrait, row: Row) -> None:
    """`before` is the file's code: a call through the module's own table, or the fence."""
    text = portrait.texts[row.module]
    elf = Elf.read(text.path)
    assert row.before == elf.code(row.address - text.base, SITE)
    assert row.is_point == (row.address - text.base in elf.points())
    if row.is_point:
        assert row.slot is None and ("in the uncontended path; " in row.reason) == bool(row.choice)
        return
    (only, *rest) = instructions(row.before, row.address)
    if row.op == "unlock_barrier":
        assert f"{only.mnemonic} {only.op_str}" == "lock or dword ptr [rsp], 0"
        assert [i.mnemonic for i in rest] == ["nop"]
        assert row.slot is None
        return
    assert not rest and only.mnemonic == "call" and re.search(r"\[rip [+-] 0x", only.op_str)
    assert row.slot is not None
    table = row.slot - 8 * OPS.index(row.op) - text.base
    section = next(name for name, (at, _, size) in elf.sections.items() if at and at <= table < at + size)
    assert section.startswith((".data", ".bss"))
    # One table a module: all its sites agree on where it is.
    tables = {
        other.slot - 8 * OPS.index(other.op)
        for other in portrait.rows
        if other.module == row.module and other.slot is not None
    }
    assert len(tables) == 1


# ---------------------------------------------------------------- the choices


def test_every_op_has_a_site_in_the_modules_that_need_it() -> None:
    rows = drawn().rows
    assert {row.op for row in rows} == set(OPS)
    assert {row.module for row in rows} == MODULES
    assert {row.op for row in rows if row.module == "pylocks._lock"} == set(OPS)


@pytest.mark.parametrize("protocol", ["native", "enlightened"])
def test_rows_tell_all_there_is_to_know(protocol: str) -> None:
    portrait = drawn(PYLOCKS_PROTOCOL=protocol)
    named = {(choice.op, choice.name): choice for choice in choices()}
    for row in portrait.rows:
        check_compiled(portrait, row)
        check_site(portrait, row, named[row.op, row.choice])
        assert row.reason.endswith("; patched") and len(row.reason) > len("; patched")
    check_around(portrait)
    assert portrait.said is True, "updates were lost"


def test_every_record_of_the_section_is_a_row() -> None:
    portrait = drawn()
    for name, text in portrait.texts.items():
        recorded = {(text.base + at, OPS[op]) for at, op, _ in Elf.read(text.path).site_records()}
        assert recorded == {(row.address, row.op) for row in portrait.rows if row.module == name}
        assert {length for _, _, length in Elf.read(text.path).site_records()} == {SITE}


def shape(portrait: Portrait, row: Row) -> tuple[str, ...]:
    """What a row says, whatever address the module was loaded at."""
    target = portrait.text_of(row.target).symbol(row.target) if row.target else ""
    offset = row.address - portrait.texts[row.module].base
    return row.op, row.module, f"{offset:#x}", row.choice, row.kind, row.reason, target


@AVAILABLE
def test_each_choice_can_be_made_by_itself(choice: Choice) -> None:
    """Its sites become it, those of the other ops are what they are without it."""
    portrait = drawn(**settings_for(choice))
    protocol = choice.protocol or "enlightened"
    usual = drawn(PYLOCKS_PROTOCOL=protocol)
    rows = portrait.of(choice.op)
    assert rows
    for row in rows:
        check_site(portrait, row, choice)
        assert row.reason.startswith("explicit: PYLOCKS_OPS; ") and row.reason.endswith("; patched")
    assert len({row.target for row in rows if not row.is_point}) == 1, "the sites of one op do not agree"
    check_around(portrait)
    assert portrait.said is True or not choice.sound

    ours = {choice.op, FOLLOWS.get((choice.op, choice.name))}
    others = [shape(portrait, row) for row in portrait.rows if row.op not in ours]
    assert others == [shape(usual, row) for row in usual.rows if row.op not in ours]


def test_hosted_kicks_go_with_hosted_waits_unless_chosen() -> None:
    """Each of the two can be switched by itself all the same."""
    made = {}
    for ops in ("lock_spinning=hosted", "lock_spinning=hosted,unlock_kick=kick", "unlock_kick=hosted"):
        rows = drawn(PYLOCKS_OPS=ops).rows
        made[ops] = {
            op: {row.choice for row in rows if row.op == op} for op in ("lock_spinning", "unlock_kick")
        }
    assert list(made.values()) == [
        {"lock_spinning": {"hosted"}, "unlock_kick": {"hosted"}},
        {"lock_spinning": {"hosted"}, "unlock_kick": {"kick"}},
        {"lock_spinning": {"futex"}, "unlock_kick": {"hosted"}},
    ]


@pytest.mark.parametrize("choice", [c for c in choices() if not c.available] or [None], ids=str)
def test_what_the_processor_lacks_is_refused(choice: Choice | None) -> None:
    if choice is None:
        pytest.skip("this processor and kernel have all that any choice needs")
    code = """
import pylocks
from pylocks._core import lib
from pylocks.ops import choices
try:
    pylocks.Domain()
except pylocks.UnknownOpError as error:
    print(error)
index = {c.op: c.index for c in choices() if c.available} | {OP: INDEX}
print(lib.plk_apply([index[lib_op] for lib_op in dict.fromkeys(c.op for c in choices())], True))
"""
    code = code.replace("OP", repr(choice.op)).replace("INDEX", str(choice.index))
    said = run(code, settings={"PYLOCKS_OPS": f"{choice.op}={choice.name}"}).stdout.splitlines()
    assert f"no {choice.name!r} for {choice.op}" in said[0]
    assert said[1] == "-95"  # -ENOTSUP


def test_a_choice_for_another_op_is_no_choice() -> None:
    code = "from pylocks._core import lib; print(lib.plk_apply([0] * lib.plk_op_count(), True))"
    assert run(code).stdout == "-22\n"


def test_the_table_is_applied_once() -> None:
    code = """
import pylocks
from pylocks._core import lib
pylocks.Domain()
before = pylocks.ops()
print(lib.plk_apply([lib.plk_chosen(op) for op in range(lib.plk_op_count())], False), pylocks.ops() == before)
"""
    assert run(code).stdout == "-16 True\n"


# ------------------------------------------------------------------ unpatched


def check_unpatched(portrait: Portrait, reason: str) -> None:
    assert {row.op for row in portrait.rows} == set(OPS)
    for row in portrait.rows:
        check_compiled(portrait, row)
        assert row.after == row.before
        kinds = (
            {"compiled", "nop"}
            if row.is_point
            else {"compiled" if row.op == "unlock_barrier" else "indirect"}
        )
        assert row.kind in kinds
        # Over a nop that stays one, nothing has to be written.
        assert reason in row.reason or (row.is_point and row.choice == "off")
    for text in portrait.texts.values():
        assert text.code == text.file_code()
    assert portrait.said is True


@pytest.mark.parametrize("protocol", ["native", "enlightened"])
def test_patching_switched_off(protocol: str) -> None:
    portrait = drawn(PYLOCKS_PATCH="off", PYLOCKS_PROTOCOL=protocol)
    check_unpatched(portrait, "not patched: PYLOCKS_PATCH=off")


@AVAILABLE
def test_unpatched_sites_call_what_patched_ones_would(choice: Choice) -> None:
    """The indirect calls go to the chosen function, or to one that does what the bytes would."""
    if choice.op == "unlock_barrier":
        return  # as compiled, it is the fence: right under every choice
    unpatched = drawn(PYLOCKS_PATCH="off", **settings_for(choice))
    patched = drawn(**settings_for(choice))
    for one, other in zip(unpatched.of(choice.op), patched.of(choice.op), strict=True):
        assert one.is_point or shape(unpatched, one)[-1] == shape(patched, other)[-1] != ""
        assert one.choice == other.choice == choice.name
    assert unpatched.said is True or not choice.sound


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/nonexistent/mem", "the text can't be written (No such file or directory)"),
        ("/dev", "the text can't be written (Is a directory)"),
        ("/dev/full", "the text can't be written (No space left on device)"),
        ("/dev/null", "the text can't be written"),  # takes it all, and changes nothing
    ],
)
def test_text_that_can_not_be_written(path: str, reason: str) -> None:
    code = f"import pylocks; from pylocks._core import lib; lib.plk_patch_through({path.encode()!r})\n"
    portrait = read_portrait(run(code + PORTRAIT).stdout)
    check_unpatched(portrait, f"; not patched: {reason}")


def test_before_any_attach_the_rows_say_so() -> None:
    portrait = read_portrait(run("import patching; print(patching.portrait())").stdout)
    assert {row.op for row in portrait.rows} == set(OPS)
    for row in portrait.rows:
        check_compiled(portrait, row)
        assert row.after == row.before
        assert row.choice == ""
        assert row.kind in ("indirect", "compiled")
        assert row.reason == "not patched yet: no domain is attached"


# ------------------------------------------------------------------ when, and how


def test_a_forked_child_inherits_the_patches() -> None:
    code = (
        WORK
        + """
work(1)
mine = pylocks.ops()
child = os.fork()
if child == 0:
    same = pylocks.ops() == mine and work(20)
    os._exit(0 if same else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    )
    assert run(code).stdout == "0\n"


def test_a_child_forked_before_the_first_attach_decides_by_itself() -> None:
    code = """
import os, pylocks
child = os.fork()
if child == 0:
    os.environ["PYLOCKS_OPS"] = "lock_spinning=yield"
    pylocks.Domain()
    os._exit({o.choice for o in pylocks.ops() if o.op == "lock_spinning"} != {"yield"})
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
unpatched = {o.choice for o in pylocks.ops()}
pylocks.Domain()
print(status, unpatched, {o.choice for o in pylocks.ops() if o.op == "lock_spinning"})
"""
    assert run(code).stdout == "0 {''} {'futex'}\n"


def test_settings_are_read_once() -> None:
    code = """
import os, pylocks
pylocks.Domain()
before = pylocks.ops()
os.environ["PYLOCKS_OPS"], os.environ["PYLOCKS_PATCH"] = "nonsense", "nonsense"
pylocks.Domain()
print(pylocks.ops() == before)
"""
    assert run(code).stdout == "True\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PYLOCKS_OPS", "lock_spinning=fast"),
        ("PYLOCKS_PATCH", "yes"),
        ("PYLOCKS_PROTOCOL", "both"),
    ],
)
def test_a_setting_that_means_nothing_patches_nothing(name: str, value: str) -> None:
    """The error says which; and once it is mended, the same process can attach."""
    code = f"""
import os, patching, pylocks
try:
    pylocks.Domain()
except pylocks.UnknownOpError as error:
    print(error)
assert all(row.after == row.before and row.choice == "" for row in pylocks.ops())
del os.environ[{name!r}]
with pylocks.TicketLock():
    print(all(row.reason.endswith("; patched") for row in pylocks.ops()))
"""
    said = run(code, settings={name: value}).stdout.splitlines()
    assert name in said[0] and value.split("=")[-1] in said[0]
    assert said[1] == "True"


def test_no_memory_is_ever_writable_and_executable() -> None:
    """As seen by the process itself; test_uncontended.py watches the system calls as well."""
    code = (
        WORK
        + """
import threading
seen, done = set(), threading.Event()
def sample():
    while not done.is_set():
        seen.update(patching.writable_and_executable())
before = patching.writable_and_executable()
sampler = threading.Thread(target=sample)
sampler.start()
lock = TicketLock()
with lock:
    pass
done.set()
sampler.join()
print(before, seen, patching.writable_and_executable(), work())
"""
    )
    assert run(code).stdout == "[] set() [] True\n"


# ------------------------------------------------------------------ machine code


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_function_with_a_call_site_uses_memory_below_the_stack_pointer(module: str) -> None:
    """The call in a site stores its return address there, and the compiler does not know of it."""
    text = drawn().texts[module]
    elf = Elf.read(text.path)
    if not elf.functions:
        pytest.skip(f"{text.path} has no symbol table")
    functions = {elf.function_at(at) for at, op, _ in elf.site_records() if OPS[op] != "unlock_barrier"}
    assert functions
    for function in functions:
        assert below_the_stack_pointer(elf, function) == []
        assert stack_switches(elf, function) == []


def test_the_fence_stands_between_the_store_of_head_and_the_look_at_slow() -> None:
    """[K1] [K2] A compiler-only barrier lost wake-ups in Linux (2496afbf1e50).

    The last access to memory before the site is a store of 8 bytes, the first after it looks at 4.
    test_uncontended.py sees which they are.
    """
    text = drawn().texts["pylocks._lock"]
    elf = Elf.read(text.path)
    sites = [at for at, op, _ in elf.site_records() if OPS[op] == "unlock_barrier"]
    assert sites
    for site in sites:
        function = elf.function_at(site)
        code = instructions(elf.code(function.address, function.size), function.address)
        at = next(n for n, i in enumerate(code) if i.address == site)
        memory = re.compile(r"(?<!lea )(qword|dword|word|byte) ptr \[r(?!sp)\w+")
        before = [f"{i.mnemonic} {i.op_str}" for i in code[:at]]
        after = [f"{i.mnemonic} {i.op_str}" for i in code[at + 2 :]]
        last = next(line for line in reversed(before) if memory.search(line))
        first = next(line for line in after if memory.search(line))
        assert re.match(r"mov qword ptr \[r", last), f"{function.name}: {last}"
        assert re.match(r"(mov e\w+|cmp), dword ptr|(mov|cmp) .*dword ptr \[r", first), (
            f"{function.name}: {first}"
        )
