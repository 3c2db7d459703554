"""The test's side of support.stage: processes that play checks, one for each way of running locks."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from support import run
from support.wait import PATIENCE_S


@dataclass(frozen=True)
class Setting:
    """A way of running locks."""

    slow_path: str
    patch: str
    kind: str
    cpus: str
    policy: str = "fifo"

    def __str__(self) -> str:
        policy = () if self.policy == "fifo" else (self.policy,)
        return "-".join((self.slow_path, self.patch, self.kind, self.cpus, *policy))


class Theatre:
    """Plays checks in one setting; a failure ends its process, and the next check starts another."""

    def __init__(self, setting: Setting, folder: Path, **environment: str) -> None:
        self.setting = setting
        self._folder = folder
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def play(self, check: str) -> str | None:
        """What is wrong, or None."""
        if self._process is None:
            self._start()
        assert self._process is not None and self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{check}\n".encode())
        self._process.stdin.flush()
        # A process that gives up leaves puppets behind, which keep the pipe open.
        heard, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S + 30)
        answer = self._process.stdout.readline() if heard else b""
        if not answer:
            return f"no answer: {self._kill()}"
        wrong: str | None = json.loads(answer)
        if wrong is not None:
            wrong += self._kill()
        return wrong

    def close(self) -> str:
        """End the process in an orderly way; whatever was not in order about that."""
        if self._process is None:
            return ""
        process, self._process = self._process, None
        process.communicate()
        complaints = [self._noise()]
        if process.returncode:
            complaints.append(f"exit status {process.returncode}")
        if run.end_session(process.pid):
            complaints.append("processes were left behind")
        return "\n".join(filter(None, complaints))

    def _start(self) -> None:
        setting = self.setting
        self._errors = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115, closed by _noise
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "support.stage",
                setting.kind, setting.cpus, setting.policy, str(self._folder),
            ],
            env=run.settings(
                PYLOCKS_OPS=f"lock_spinning={setting.slow_path}",
                PYLOCKS_PATCH=setting.patch,
                **self._environment,
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,
        )  # fmt: skip

    def _kill(self) -> str:
        assert self._process is not None
        process, self._process = self._process, None
        run.end_session(process.pid, grace=0)
        process.communicate()
        return self._noise()

    def _noise(self) -> str:
        with self._errors:
            self._errors.seek(0)
            return self._errors.read().decode()
