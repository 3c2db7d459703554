"""A full screen that is left as it was found, however the program ends, short of SIGKILL."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

__all__ = ["Ended", "Screen"]

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_WATCHED = (*_ENDING, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH)
_MOST_KEYS = 64

_KEYS = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1b[F": "end",
}


class Ended(Exception):
    """A signal asks for the end; `status` is the exit status that says so."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class Screen:
    """The alternate screen, keys without Enter, and signals that are seen between two pictures.

    No signal handler does anything: a byte in a pipe wakes wait(), which raises Ended, or steps
    back for Ctrl-Z.  So nothing is interrupted halfway, and __exit__ puts everything back.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._keyboard = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else -1

    def __enter__(self) -> Screen:
        self._pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before = {number: signal.signal(number, _nothing) for number in _WATCHED}
        self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        try:
            self._show()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._hide()
        finally:
            signal.set_wakeup_fd(self._wakeup)
            for number, handler in self._before.items():
                signal.signal(number, handler)
            for end in self._pipe:
                os.close(end)

    def _show(self) -> None:
        from rich.live import Live

        if self._keyboard >= 0:
            self._modes = termios.tcgetattr(self._keyboard)
            tty.setcbreak(self._keyboard, termios.TCSANOW)
        self._live = Live(console=self._console, screen=True, auto_refresh=False)
        self._live.start()

    def _hide(self) -> None:
        live, self._live = self._live, None
        with contextlib.suppress(OSError):  # the terminal may be gone
            if live is not None:
                live.stop()
        with contextlib.suppress(termios.error):
            if self._keyboard >= 0:
                termios.tcsetattr(self._keyboard, termios.TCSANOW, self._modes)

    def draw(self, picture: RenderableType) -> None:
        """Show the picture."""
        assert self._live is not None
        self._live.update(picture, refresh=True)

    def wait(self, seconds: float) -> list[str]:
        """The keys that are pressed, or [] when the time is over or the size has changed; Ended."""
        deadline = time.monotonic() + seconds
        watched = [self._pipe[0], *([self._keyboard] if self._keyboard >= 0 else [])]
        while True:
            ready, _, _ = select.select(watched, [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return []
            if self._pipe[0] in ready:
                if self._heard(os.read(self._pipe[0], 256)):
                    return []
            elif self._keyboard in ready:
                return self._pressed()

    def _heard(self, numbers: bytes) -> bool:
        """True: draw anew."""
        for number in numbers:
            if number in _ENDING:
                raise Ended(number)
            if number == signal.SIGTSTP:
                self._stop()
        return any(number in numbers for number in (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT))

    def _stop(self) -> None:
        """Ctrl-Z: give the terminal back, stop, and come back."""
        self._hide()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, _nothing)
        self._show()

    def _pressed(self) -> list[str]:
        try:
            data = os.read(self._keyboard, _MOST_KEYS)
        except OSError:
            data = b""
        if not data:  # the terminal is gone
            raise Ended(signal.SIGHUP)
        keys = []
        while data:
            known = next((code for code in _KEYS if data.startswith(code)), None)
            keys.append(_KEYS[known] if known is not None else chr(data[0]))
            data = data[len(known) if known is not None else 1 :]
        return keys


def _nothing(number: int, frame: object) -> None:
    """Instead of the default action; the byte in the pipe is what counts."""
