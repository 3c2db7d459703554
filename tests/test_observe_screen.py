"""The full-screen views under a terminal: keys, and that they leave it as they found it."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest
from support import run
from support.wait import until

import pylocks

pytest.importorskip("rich")

ENTER, LEAVE, CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


class Terminal:
    """A command on a pseudo terminal."""

    def __init__(self, *words: str, **settings: str) -> None:
        self.outer, self.inner = pty.openpty()
        self.resize(30, 120)
        self.before = termios.tcgetattr(self.inner)
        environment = run.settings(TERM="xterm-256color", **settings)
        for variable in ("LINES", "COLUMNS"):  # readline sets them, and they count for more than the terminal
            environment.pop(variable, None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pylocks", *words],
            stdin=self.inner,
            stdout=self.inner,
            stderr=self.inner,
            preexec_fn=os.setpgrp,  # a session of its own would make Ctrl-Z do nothing
            env=environment,
        )
        self.out = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        try:
            while data := os.read(self.outer, 1 << 16):
                self.out += data
        except OSError as error:
            assert error.errno == errno.EIO  # no process has it any more

    def resize(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self.inner, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))

    def shows(self, text: str, after: int = 0) -> int:
        """Wait until it is drawn, behind what was drawn before; where that ends."""
        until(lambda: text.encode() in self.out[after:], f"{text!r} on the screen")
        return len(self.out)

    def press(self, key: str) -> int:
        """Press a key; how much was drawn before."""
        drawn = len(self.out)
        os.write(self.outer, key.encode())
        return drawn

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.inner)
        self._reader.join()
        os.close(self.outer)

    def ends(self) -> int:
        """Wait for its end; it has left everything as it was."""
        status = self.process.wait(run.LIMIT_S)
        until(lambda: self.out.rfind(LEAVE) > self.out.rfind(ENTER) >= 0, "the normal screen")
        assert self.out.rfind(CURSOR) > self.out.rfind(b"\x1b[?25l")
        assert termios.tcgetattr(self.inner) == self.before
        assert b"Traceback" not in self.out
        return status


@pytest.mark.parametrize(
    ("end", "status"),
    (("q", 0), (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)),
    ids=str,
)
def test_top_leaves_the_terminal_as_it_was(end: str | signal.Signals, status: int, name: str) -> None:
    with pylocks.Domain(name) as domain, domain.lock("orders"), Terminal("top", name) as terminal:
        terminal.shows("orders")
        assert terminal.before != termios.tcgetattr(terminal.inner)
        if isinstance(end, str):
            terminal.press(end)
        else:
            terminal.process.send_signal(end)
        assert terminal.ends() == status


def test_keys(name: str) -> None:
    with pylocks.Domain(name) as domain:
        for number in range(60):
            domain.lock(f"lock-{number:02}")
        with domain.lock("lock-30"), Terminal("top", name, "--interval", "3600") as terminal:
            terminal.shows("1-23 of 60, by waiting")
            terminal.shows("by waited", terminal.press("s"))
            terminal.shows("by waiting", terminal.press("S"))
            terminal.shows("2-24 of 60", terminal.press("\x1b[B"))
            terminal.shows("25-47 of 60", terminal.press("\x1b[6~"))
            terminal.shows("38-60 of 60", terminal.press("\x1b[F"))
            terminal.shows("1-23 of 60", terminal.press("\x1b[H"))
            terminal.shows("reversed", terminal.press("r"))
            terminal.shows("1-1 of 1,", terminal.press("b"))
            terminal.shows("paused", terminal.press(" "))
            terminal.shows("every 3600 s", terminal.press("p"))
            terminal.press("\x1b[Zx\x00\xff")  # nothing
            terminal.press("q")
            assert terminal.ends() == 0


def test_a_pause_is_one(name: str) -> None:
    with pylocks.Domain(name) as domain, Terminal("top", name, "--interval", "0.1") as terminal:
        terminal.shows("0 held")
        terminal.shows("paused", terminal.press(" "))
        with domain.lock("orders"):
            drawn = terminal.press("r")
            terminal.shows("reversed", drawn)
            assert b"1 held" not in terminal.out[drawn:]
            terminal.shows("1 held", terminal.press(" "))
        terminal.press("q")
        assert terminal.ends() == 0


def test_a_new_size_is_a_new_picture(name: str) -> None:
    with pylocks.Domain(name), Terminal("top", name, "--interval", "3600") as terminal:
        terminal.shows("none, by waiting")
        drawn = len(terminal.out)
        terminal.resize(50, 60)
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.shows("none, by waiting", drawn)
        terminal.press("q")
        assert terminal.ends() == 0


def test_it_stops_and_goes_on(name: str) -> None:
    """As with Ctrl-Z and fg: the terminal is given back meanwhile."""
    with pylocks.Domain(name), Terminal("top", name, "--interval", "3600") as terminal:
        terminal.shows("none, by waiting")
        terminal.process.send_signal(signal.SIGTSTP)
        state = Path(f"/proc/{terminal.process.pid}/stat")
        until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "its being stopped")
        assert termios.tcgetattr(terminal.inner) == terminal.before
        until(lambda: terminal.out.rfind(LEAVE) > terminal.out.rfind(ENTER), "the normal screen")
        drawn = len(terminal.out)

        def goes_on() -> bool:
            """One that came just before it stopped would be lost."""
            terminal.process.send_signal(signal.SIGCONT)
            return b"none, by waiting" in terminal.out[drawn:]

        until(goes_on, "its going on")
        terminal.press("q")
        assert terminal.ends() == 0


def test_a_domain_that_goes_and_comes_back(name: str) -> None:
    domain = pylocks.Domain(name)
    with Terminal("top", name, "--interval", "0.1") as terminal:
        drawn = terminal.shows("0 held")
        domain.unlink()
        domain.close()
        drawn = terminal.shows("there is no domain", drawn)
        with pylocks.Domain(name) as again, again.lock("orders"):
            terminal.shows("1 held", drawn)
        terminal.press("q")
        assert terminal.ends() == 0


def test_inspect_on_a_screen(name: str) -> None:
    words = ("inspect", "orders", "--domain", name, "--interval", "0.1")
    with pylocks.Domain(name) as domain, domain.lock("orders"), Terminal(*words) as terminal:
        terminal.shows("orders in")
        terminal.shows("holds")
        terminal.shows("≥")
        terminal.shows("paused", terminal.press(" "))
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.ends() == 130


def test_a_terminal_that_goes_away(name: str) -> None:
    """Nothing is left running when its window is closed."""
    with pylocks.Domain(name), Terminal("top", name, "--interval", "0.1") as terminal:
        terminal.shows("0 held")
        os.write(terminal.outer, b"\x04")  # not a key
        terminal.process.send_signal(signal.SIGHUP)
        assert terminal.ends() == 129
