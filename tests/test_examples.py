"""What README.md and docs/ show is so: Python runs, sessions print what they say, commands exist.

The blocks of a page are run one after another, as somebody would who reads it.  A block that ends in the
usual `if __name__ == "__main__"`, or begins with the comment of a file's name, is a program of its own;
the others are parts of one program, the page's.  A block of language `console` is a session in the same
directory.  Domains and locks get names of their own, in all processes that a page has part in, and
/dev/shm is as before when it is done.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import markdown, run

from pylocks import cli

ROOT = Path(__file__).resolve().parent.parent
SHM = Path("/dev/shm")
LIMIT_S = 100.0

if not (ROOT / "docs").is_dir():  # pragma: no cover
    pytest.skip("these tests read the source tree", allow_module_level=True)

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# The first page has no comments for the tests' sake: what its examples take for granted stands here.
TAKEN_FOR_GRANTED = {
    "README.md": {"lock.owner_died": "lock.release()\nrebuild_index = rebuild_ledger = lambda: None\n"}
}
"""Page -> what a block has in it -> code to run before it."""
NOT_RUN = {"README.md": {"PreemptionMonitor": "needs root, and a kernel that describes its types"}}

PRIVATE = """
import pylocks.segment
pylocks.segment.PREFIX = {prefix!r}
"""
"""Run by every interpreter of a page before anything else: what its domains are called in /dev/shm."""
SETTLED = """
import os, sys, time
import pylocks
from pylocks import observe

deadline = time.monotonic() + 60
while time.monotonic() < deadline:
    try:
        found = observe.snapshot(f"user.{os.geteuid()}")
    except pylocks.PylocksError:
        continue
    for lock in found.locks:
        people = [lock.owner, *lock.waiters]
        if any(who is not None and who.vcpu.pid == int(sys.argv[1]) for who in people):
            sys.exit()
sys.exit("it neither holds nor waits for a lock")
"""
"""Waits until a process holds a lock of this user, or waits for one."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_program(block: markdown.Block) -> bool:
    return block.language == "python" and ("__main__" in block.text or file_of(block) is not None)


def file_of(block: markdown.Block) -> str | None:
    """The name in the comment that a program begins with: `# shop.py`."""
    found = re.match(r"# (\w+\.py)\b", block.text)
    return found[1] if found else None


def why_not(path: Path, block: markdown.Block) -> str | None:
    """Why a block is not run."""
    known = NOT_RUN.get(name_of(path), {})
    return block.reason or next((why for part, why in known.items() if part in block.text), None)


class Scratch:
    """A directory in which a page's programs are run, and what they need."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.prefix = f"/pylocks.page-{os.getpid()}-{secrets.token_hex(4)}-"
        tools = path / ".tools"
        tools.mkdir()
        (tools / "sitecustomize.py").write_text(PRIVATE.format(prefix=self.prefix))
        (tools / "settled.py").write_text(SETTLED)
        for command, module in (
            ("python", ""),
            ("pylocks", "-m pylocks "),
            ("settled", f"{shlex.quote(str(tools / 'settled.py'))} "),
        ):
            script = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module}"$@"\n'
            (tools / command).write_text(script)
            (tools / command).chmod(0o755)
        settings = run.settings()
        self.environment = {
            **settings,
            "PATH": os.pathsep.join([str(tools), settings.get("PATH", os.defpath)]),
            "PYTHONPATH": os.pathsep.join([str(tools), settings["PYTHONPATH"]]),
            "COLUMNS": "100",
        }

    def run(self, *command: str) -> str:
        """What it prints; fails if it does, and ends whatever it leaves behind."""
        process = subprocess.Popen(
            command,
            cwd=self.path, env=self.environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            out, _ = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out = f"{process.communicate()[0]}\nkilled after {LIMIT_S:g} s"
        left = run.end_session(process.pid)
        assert process.returncode == 0, f"exit status {process.returncode}:\n{out}"
        assert not left, f"processes were left behind; it printed\n{out}"
        return out

    def clean(self) -> None:
        """Remove the named domains that were made."""
        for path in SHM.glob(f"{self.prefix[1:]}*"):
            path.unlink()


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    made = Scratch(tmp_path)
    yield made
    made.clean()


def with_code(language: str) -> set[Path]:
    found = {path for path in PAGES if any(b.language == language for b in markdown.blocks(path))}
    return {path for path in found if markdown.run_by(path) is None}


def test_who_is_said_to_run_a_page_does() -> None:
    for path in PAGES:
        tests = markdown.run_by(path)
        assert tests is None or path.name in (ROOT / tests).read_text(), (
            f"{tests} knows nothing of {path.name}"
        )


@pytest.mark.parametrize("path", sorted(with_code("python") | with_code("console")), ids=name_of)
def test_what_a_page_shows_runs(path: Path, scratch: Scratch) -> None:
    everything = [block for block in markdown.blocks(path) if why_not(path, block) is None]
    programs = [block for block in everything if is_program(block)]
    for number, block in enumerate(programs):
        name = file_of(block) or f"program{number}.py"
        (scratch.path / name).write_text("\n" * (block.line - 1) + block.text)  # lines as in the page
    sessions = [block for block in everything if block.language == "console"]
    shown = "".join(block.text for block in sessions)
    for number, block in enumerate(programs):
        name = file_of(block) or f"program{number}.py"
        if name not in shown:
            scratch.run("python", name)
    for block in sessions:
        check_session(block.text, scratch)

    parts = [block for block in everything if block.language == "python" and not is_program(block)]
    if parts:
        (scratch.path / "page.py").write_text(joined(parts, TAKEN_FOR_GRANTED.get(name_of(path), {})))
        scratch.run("python", "page.py")


def joined(parts: list[markdown.Block], granted: dict[str, str]) -> str:
    """The parts of a page's program, in the lines in which they stand in the page."""
    text = "import pylocks\n"
    for block in parts:
        text += "".join(code for part, code in granted.items() if part in block.text)
        text += "\n" * (block.line - 1 - text.count("\n")) + textwrap.dedent(block.text)
    return text


def check_session(text: str, scratch: Scratch) -> None:
    """Run the commands behind `$ `, in one shell; a line `...` stands for any lines of what they print.

    After one that is sent to the background (`&`) it goes on when that one holds or waits for a lock.
    """
    lines = text.splitlines()
    commands = [line[2:] for line in lines if line.startswith("$ ")]
    commands = [f"{line} settled $!" if line.endswith("&") else line for line in commands]
    wanted = [line for line in lines if not line.startswith("$ ")]
    script = "\n".join(["set -e", *commands, "wait"])
    said = scratch.run("bash", "-c", script).replace(f"{scratch.path}/", "")
    said = re.sub(r"^bash: line \d+: .* (Killed|Terminated) .*\n", "", said, flags=re.MULTILINE)  # of jobs
    pattern = "".join(r"(?:.*\n)*?" if line == "..." else pattern_of(line) + r"\n" for line in wanted)
    assert re.fullmatch(pattern, said), f"expected\n{chr(10).join(wanted)}\nand it printed\n{said}"


def pattern_of(line: str) -> str:
    """`...` in a line stands for anything; numbers stand for each other, and so do spaces."""
    escaped = re.escape(line).replace(re.escape("..."), ".*")
    return re.sub(r"(?:\\ )+", r" +", re.sub(r"\d+", r"\\d+", escaped))


# ------------------------------------------------------------------ commands


def commands() -> list[tuple[str, str]]:
    """(where, command line) of each use of `pylocks COMMAND` in a block of code."""
    found = []
    for path in [*PAGES, ROOT / "bench" / "README.md", ROOT / "CONTRIBUTING.md"]:
        for block in markdown.blocks(path):
            if block.language not in ("", "console", "sh") or "pylocks   " in block.text:
                continue
            for number, line in enumerate(block.text.splitlines(), block.line):
                use = re.match(r"(?:\$ )?(?:[A-Z_]+=\S+ )*pylocks ([^#]*)", line)
                if use:
                    found.append((f"{name_of(path)}:{number}", use[1].strip()))
    return found


def test_commands_that_are_shown_exist() -> None:
    seen = set()
    wrong = []
    for where, line in commands():
        text = re.split(r"\s{2,}|[|;]", line)[0]  # what follows says what it does
        words = [word for word in shlex.split(text.replace("[", "").replace("]", "")) if word != "&"]
        if words[0].rstrip(",") != words[0]:  # "ls, rm": a list of them
            words = [words[0].rstrip(",")]
        seen.add(words[0])
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            try:
                cli._parser(words[0]).parse_args(words)
            except SystemExit as end:
                complaint = said.getvalue().splitlines()[-1] if said.getvalue() else ""
                if end.code and "the following arguments are required" not in complaint:
                    wrong.append(f"{where}: {line}\n    {complaint}")
    assert not wrong, "\n".join(wrong)
    assert seen >= set(cli.COMMANDS) - {"rm"}
