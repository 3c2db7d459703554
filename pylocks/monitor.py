"""PreemptionMonitor: has the kernel mark threads that are switched out, for vcpu_preempted=bpf.

The program that does it runs at every context switch (csrc/hv/monitor.c).  Once it is loaded, the
monitor only hands the marks to those who ask, and lives: its life word tells them for how long to
believe them.  Why there is no list of threads to keep up to date: csrc/hv/marks.h.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import queue
import select
import socket
import struct
import threading
from types import TracebackType

from pylocks import btf
from pylocks._core import ffi, lib
from pylocks.errors import MonitorError, MonitorPermissionError

__all__ = ["PreemptionMonitor", "found"]

_GREETING = struct.Struct("=QII")
"""struct plk_greeting"""
_CREDENTIALS = struct.Struct("=iII")
"""struct ucred"""
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL | 0x10  # F_SEAL_FUTURE_WRITE
_BACKLOG = 4096
_LOG_BYTES = 1 << 16
_FULL_PAUSE_MS = 100
"""Without a free descriptor a connection can't be accepted, and does not go away either."""

_CAPABILITIES = {"CAP_PERFMON": 38, "CAP_BPF": 39}
_CAP_SYS_ADMIN = 21

# What enum plk_monitor_state means, in its order.
_FOUND = (
    "no PreemptionMonitor has been looked for",
    "a PreemptionMonitor has been asked and has not answered yet",
    "with the marks of a PreemptionMonitor",
    "no PreemptionMonitor of this user runs: as same_cpu",
    "another user's process goes by the name of a PreemptionMonitor: as same_cpu",
    "a PreemptionMonitor refuses this user: as same_cpu",
    "a PreemptionMonitor of another pylocks version runs: as same_cpu",
    "the PreemptionMonitor has ended: as same_cpu",
    "no socket, descriptor or memory for the marks of a PreemptionMonitor: as same_cpu",
)

_services: set[_Service] = set()
"""Those that run, also if nobody has their monitors any more."""


def found() -> str:
    """What vcpu_preempted=bpf goes by in this process; without a monitor, looks for one, and never waits."""
    if _pid_namespace() != lib.PLK_FIRST_PID_NS:
        return "thread ids in this pid namespace are not those that a PreemptionMonitor marks: as same_cpu"
    return _FOUND[lib.plk_monitor_look()]


class PreemptionMonitor:
    """Marks the threads of one user that are switched out, for all domains of that user.

    Processes that run with PYLOCKS_OPS=vcpu_preempted=bpf find the monitor by themselves, whichever
    was there first, and do not spin on a lock whose holder does not run.  `user` is a numeric user
    id, by default that of this process.  Needs root, or CAP_BPF and CAP_PERFMON; whoever reads the
    marks needs nothing.

    start() and stop(), or a `with` block; a thread of this process serves meanwhile.  However the
    process ends, the program leaves the kernel with it and the marks lose their meaning at once.
    """

    def __init__(self, user: int | None = None) -> None:
        """Nothing happens yet; ValueError for what can't be a user id."""
        self.user = os.geteuid() if user is None else user
        if not isinstance(self.user, int) or not 0 <= self.user < 2**32 - 1:
            raise ValueError(f"user is a numeric user id, not {user!r}")
        self._service: _Service | None = None

    @property
    def running(self) -> bool:
        """The program is in the kernel, and whoever asks gets the marks."""
        return self._service in _services and self._service.thread.is_alive()

    def start(self) -> None:
        """Load the program and begin to serve.

        MonitorPermissionError without the privilege; MonitorError if the user's monitor runs
        already, if the thread ids of this process are not the kernel's (a pid namespace), or if the
        kernel can't do it.
        """
        if self.running:
            raise MonitorError(f"{self!r} can't be started again")
        self.stop()
        _same_thread_ids()
        if os.geteuid() not in (0, self.user):
            raise MonitorPermissionError(
                errno.EPERM,
                f"a monitor for user {self.user} must run as root or as that user, not as user "
                f"{os.geteuid()}: the user's processes would not believe it",
            )
        self._service = _Service(self.user)

    def stop(self) -> None:
        """Take the program out of the kernel; who has the marks does not look at them any more."""
        if self._service is not None:
            self._service.end()
            self._service = None

    def __enter__(self) -> PreemptionMonitor:
        if not self.running:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<pylocks.PreemptionMonitor of user {self.user}: {'running' if self.running else 'stopped'}>"


class _Service:
    """All that a running monitor has."""

    def __init__(self, user: int) -> None:
        self.user = user
        with contextlib.ExitStack() as opened:
            self._marks = _keep(opened, _done("make the marks", lib.plk_marks_new()))
            self._listener = opened.enter_context(_bind(user))
            program = _load(self._marks, user)
            try:
                _keep(opened, _done("attach its program", lib.plk_monitor_attach(program)))
            finally:
                os.close(program)
            self._life = _keep(opened, os.memfd_create("pylocks_life", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
            self._waker, self._wakened = map(opened.enter_context, socket.socketpair())
            self._began: queue.SimpleQueue[MonitorError | OSError | None] = queue.SimpleQueue()
            self.thread = threading.Thread(target=self._live, name="pylocks-monitor", daemon=True)
            self.thread.start()
            error = self._began.get()
            if error is not None:
                raise error
            self.descriptors = opened.pop_all()
        _services.add(self)

    def end(self) -> None:
        """First the life word, so that nobody believes marks that nobody writes.

        Nothing in a forked child: there is no thread, and the descriptors are closed.
        """
        if self not in _services:
            return
        _services.remove(self)
        self._waker.send(b"\0")
        self.thread.join()
        self.descriptors.close()

    def _live(self) -> None:
        """The thread, whose life stands for the monitor's."""
        pages = ffi.new("void **")
        try:
            _done("make its life word", lib.plk_monitor_born(self._life, pages))
            fcntl.fcntl(self._life, fcntl.F_ADD_SEALS, _SEALS)
        except (MonitorError, OSError) as error:
            self._began.put(error)
            return
        self._began.put(None)
        try:
            self._serve()
        finally:
            lib.plk_monitor_ends(pages[0])

    def _serve(self) -> None:
        ready = select.poll()
        ready.register(self._listener, select.POLLIN)
        ready.register(self._wakened, select.POLLIN)
        while self._wakened.fileno() not in dict(ready.poll()):
            try:
                peer, _ = self._listener.accept()
            except BlockingIOError:
                continue  # gone again
            except OSError:
                only_wakened = select.poll()
                only_wakened.register(self._wakened, select.POLLIN)
                only_wakened.poll(_FULL_PAUSE_MS)
                continue
            with peer:
                self._answer(peer)

    def _answer(self, peer: socket.socket) -> None:
        """Give the marks to the user's own processes and to root's; hang up on others."""
        who = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        if _CREDENTIALS.unpack(who)[1] not in (0, self.user):
            return
        greeting = _GREETING.pack(lib.PLK_MARKS_MAGIC, lib.PLK_MARKS, self.user)
        with contextlib.suppress(OSError):  # it has hung up
            socket.send_fds(peer, [greeting], [self._life, self._marks], socket.MSG_DONTWAIT)


def _after_fork() -> None:
    """The child does not keep its parent's program in the kernel, nor the monitor's name."""
    for service in _services:
        service.descriptors.close()
    _services.clear()


os.register_at_fork(after_in_child=_after_fork)


def _keep(opened: contextlib.ExitStack, descriptor: int) -> int:
    opened.callback(os.close, descriptor)
    return descriptor


def _bind(user: int) -> socket.socket:
    """A socket with the monitor's name; MonitorError if it is taken.

    Who connects from now on waits for its answer until the monitor serves.
    """
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        bound.bind(f"\0pylocks.preempted.{user}")
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise MonitorError(
            f"user {user} has a monitor already, or another program has taken its name "
            f"(the abstract socket @pylocks.preempted.{user}; ss -xlp shows whose it is)"
        ) from None
    return bound


def _load(marks: int, user: int) -> int:
    """The program, adapted to the running kernel."""
    types = btf.Types()
    offset = types.offset("task_struct", "pid")
    tracepoint = types.find(btf.TYPEDEF, "btf_trace_sched_switch")
    got = int(lib.plk_monitor_load(marks, user, offset, tracepoint, ffi.NULL, 0))
    if got >= 0 or got in (-errno.EPERM, -errno.ENOMEM):
        return _done("load its program", got)
    log = ffi.new("char[]", _LOG_BYTES)
    got = int(lib.plk_monitor_load(marks, user, offset, tracepoint, log, _LOG_BYTES))
    return _done("load its program", got, ffi.string(log).decode(errors="replace"))


def _done(what: str, result: int, log: str = "") -> int:
    """The result unless it is an error, which is raised: what can't be done, and why."""
    if result >= 0:
        return int(result)
    code = -result
    if code == errno.EPERM:
        raise MonitorPermissionError(code, f"the monitor can't {what}: {_privilege()}")
    text = f"the monitor can't {what}: {os.strerror(code)}"
    if log:
        text += "; the kernel's verifier says: " + "; ".join(log.strip().splitlines()[-4:])
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOENT):
        text += ". It needs Linux 5.8 or later, with BPF and its type information"
    raise MonitorError(text)


def _privilege() -> str:
    """Which of the capabilities this process lacks."""
    effective = 0
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status", "rb") as status:
        effective = int(next(line for line in status if line.startswith(b"CapEff:")).split()[1], 16)
    missing = [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
    if missing and not effective >> _CAP_SYS_ADMIN & 1:
        return (
            f"this process lacks {' and '.join(missing)}; run it as root or give it these capabilities. "
            "Whoever only uses the locks needs none"
        )
    return (
        "the kernel refuses although this process has the capabilities: a sandbox, a user namespace, the "
        "kernel's lockdown mode or, before Linux 5.11, the limit of locked memory (ulimit -l)"
    )


def _pid_namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _same_thread_ids() -> None:
    """MonitorError in a pid namespace, whose thread ids are not those that the kernel switches by."""
    here = _pid_namespace()
    if here != lib.PLK_FIRST_PID_NS:
        raise MonitorError(
            f"the monitor can't work in pid namespace {here}: threads have other ids here than in the "
            "kernel's scheduler. Run it, and the processes that are to profit, outside of the container"
        )
