"""Hypervisor: the wait/kick service of a domain, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pickle
import select
import signal
import sys
import weakref
from types import ModuleType, TracebackType
from typing import Any

from pylocks.domain import Domain, from_token
from pylocks.errors import HypervisorError, PylocksError
from pylocks.policy import OWN, preemption_of, spin_of

__all__ = ["Hypervisor"]

STALL_S = 10.0
BEGIN_S = 60.0
"""A new interpreter on a busy machine takes seconds."""
END_S = 10.0

_CHILD = "import sys; sys.path[:] = sys.argv[1:]; from pylocks.hypervisor import child; child()"


def _service() -> ModuleType:
    """It takes asyncio, which most programs do without; so not before it is asked for."""
    from pylocks import service

    return service


class Hypervisor:
    """Serves one domain: recovers at once what the dead held, mends lost kicks, tells of stalls.

    Optional: without one, waiters look after each other, and find a death within 135 ms.  A domain has one
    at a time; another one raises HypervisorError, or with wait=True takes over when the first has
    ended, however that was.  Processes that run with PYLOCKS_OPS=lock_spinning=hosted leave waking
    to it, and go on as with `futex` while there is none.

    serve() does it in this thread; start() in a process of its own until stop(), the end of a
    `with` block, or the end of this process and of those forked from it since.  stall: seconds after
    which a holder that keeps others waiting is reported; metrics: where to serve figures for Prometheus,
    an address of pylocks.metrics.start().  Reports go to the logger "pylocks.hypervisor", as key=value.

    spin: how long waiters of all participants spin: "own", as each sees fit; "off"; a time such as
    "50us"; or "auto": as each sees fit, and not at all while participants queue for CPUs.  preemption: by
    what they tell that a holder does not run: "own"; "off", "same_cpu" and "bpf", as vcpu_preempted, for
    those that have one of the last two; for "bpf" the service runs a PreemptionMonitor, unless its
    user has one.
    """

    def __init__(
        self,
        domain: Domain,
        *,
        wait: bool = False,
        stall: float = STALL_S,
        metrics: str | None = None,
        spin: str = "own",
        preemption: str = "own",
    ) -> None:
        """Nothing happens yet; TypeError, ValueError."""
        if not isinstance(domain, Domain):
            raise TypeError(f"domain is a pylocks.Domain, not {type(domain).__name__}: {domain!r}")
        if not isinstance(stall, int | float) or not 0 < stall < float("inf"):
            raise ValueError(f"stall is a positive number of seconds, not {stall!r}")
        if metrics is not None and _service().optional("pylocks.metrics", "start") is None:
            raise HypervisorError(
                "metrics need prometheus_client, which is not installed: pip install 'pylocks[service]'"
            )
        if (spin_of(spin), preemption_of(preemption)) != OWN and domain.protocol == "native":
            raise ValueError(f"{domain.describe()} is native: its waiters spin until they are served")
        self.domain = domain
        self._settings: dict[str, Any] = {
            "wait": wait,
            "stall_s": float(stall),
            "metrics": metrics,
            "spin": spin,
            "preemption": preemption,
        }
        self._child: _Child | None = None

    def serve(self) -> None:
        """Serve until the process gets SIGTERM or SIGINT (in the main thread), or the domain is closed.

        HypervisorError if the domain has a hypervisor already; any DomainError.
        """
        _service().serve(self.domain, **self._settings)

    def start(self) -> None:
        """Serve in a process of its own; returns when that does.

        HypervisorError if it can't: the domain has a hypervisor already, or the process has failed.
        With wait=True it returns when the process is ready to take over.
        """
        if self.running:
            raise HypervisorError(f"{self!r} runs already")
        self.stop()
        plan = pickle.dumps((self.domain.token(), self._settings))
        request, order = os.pipe()
        answer, reply = os.pipe()
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-c", _CHILD, *sys.path],
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, request, 0), (os.POSIX_SPAWN_DUP2, reply, 1)],
            )
        except BaseException:
            os.close(order)
            os.close(answer)
            raise
        finally:
            os.close(request)
            os.close(reply)
        self._child = _Child(pid, order)
        self._end = weakref.finalize(self, self._child.end)
        with open(answer, "rb") as said:
            with contextlib.suppress(BrokenPipeError):  # what it has to say tells why
                os.write(order, plan)
            wrong = self._child.hear(said)
        if wrong:
            self.stop()
            raise HypervisorError(wrong)

    def stop(self) -> None:
        """End the process that start() has started; what was asked of it is done first."""
        if self._child is not None:
            self._end()
            self._child = None

    @property
    def running(self) -> bool:
        """The process that start() has started lives; in a process forked since: False."""
        return self._child is not None and self._child.lives()

    @property
    def pid(self) -> int | None:
        """Of the process that serves the domain now, whoever has started it; None: there is none."""
        found = _service().served_by(self.domain)
        return found[0] if found else None

    def __enter__(self) -> Hypervisor:
        if not self.running:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"process {self._child.pid}" if self._child is not None and self.running else "not started"
        return f"<pylocks.Hypervisor of {self.domain.describe()}: {state}>"


class _Child:
    """A process that serves, as seen by the one that has started it."""

    def __init__(self, pid: int, order: int) -> None:
        self.pid, self._order, self._starter = pid, order, os.getpid()
        self._watched = os.pidfd_open(pid)

    def lives(self) -> bool:
        """And this process has started it."""
        return os.getpid() == self._starter and not self._ended(0)

    def _ended(self, seconds: float) -> bool:
        ready = select.poll()
        ready.register(self._watched, select.POLLIN)
        return bool(ready.poll(seconds * 1000))

    def hear(self, said: io.BufferedReader) -> str:
        """Wait until it is ready; what is wrong instead."""
        ready = select.poll()
        ready.register(said, select.POLLIN)
        if not ready.poll(BEGIN_S * 1000):
            return f"the hypervisor's process {self.pid} has not begun within {BEGIN_S:g} s"
        line = said.readline()
        if not line:
            return f"the hypervisor's process {self.pid} has ended before it began; standard error says why"
        return str(json.loads(line)["wrong"])

    def end(self) -> None:
        """Nothing but to let go of it in a process forked since."""
        if os.getpid() == self._starter:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._watched, signal.SIGTERM)
                if not self._ended(END_S):
                    signal.pidfd_send_signal(self._watched, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):  # somebody else has waited for it
                os.waitpid(self.pid, 0)
        os.close(self._order)
        os.close(self._watched)


def child() -> None:
    """The process of start(): the plan comes on standard input, which ends with who sent it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for the program in front
    logging.basicConfig(level=logging.WARNING, format="pylocks.hypervisor: %(message)s")
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(wrong: str = "") -> None:
        if not answer.closed:
            with contextlib.suppress(BrokenPipeError), answer:
                answer.write(json.dumps({"wrong": wrong}) + "\n")

    try:
        with open(0, "rb", closefd=False) as plan:
            token, settings = pickle.load(plan)
        _service().serve(from_token(token), say, lifeline=0, **settings)
    except (PylocksError, OSError) as error:
        say(str(error))
        sys.exit(1)
