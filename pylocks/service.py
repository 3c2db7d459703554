"""One run of a domain's hypervisor: a thread that serves hypercalls, and an event loop that watches.

The thread (csrc/hv/service.c) is the domain's service for as long as it lives: its vCPU stands in the
header.  It sleeps on the doorbell, and looks at all vCPUs now and then.  The event loop has a pidfd for each
process, so that it hears of a death at once, and recovers.  Threads of a process that lives on are
not behind a pidfd of their own: their deaths are found by the looks, and when somebody queues behind them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pylocks import segment
from pylocks._core import ffi, lib
from pylocks.domain import Domain
from pylocks.errors import ClosedError, DomainError, HypervisorError, PylocksError
from pylocks.policy import Policy

if TYPE_CHECKING:
    from pylocks._core import CData

__all__ = ["LOGGER", "Service", "serve", "served_by"]

LOGGER = logging.getLogger("pylocks.hypervisor")

BUSY_LOOK_NS, IDLE_LOOK_NS = 20_000_000, 250_000_000
"""Between looks at all vCPUs: while somebody waits, and while nobody did at the last one."""
HOUSE_S = 0.5
"""Between looks for stalls and deadlocks, and at who has come without being heard."""
GATHER_S = 0.001
"""Newcomers often come in numbers."""
TAKEOVER_S = 1.0
"""Who waits for another service to end asks so often: its death is told, its end is not."""


def log(level: int, event: str, **fields: Any) -> None:
    """One line, key=value; a formatter finds the same in the record's `fields`."""
    if LOGGER.isEnabledFor(level):
        known = {"event": event, **{key: value for key, value in fields.items() if value is not None}}
        text = " ".join(f"{key}={_plain(value)}" for key, value in known.items())
        LOGGER.log(level, "%s", text, extra={"fields": known})


def _plain(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return repr(text) if any(letter in text for letter in ' "=') or not text else text


def live_segment(domain: Domain) -> CData:
    """The mapped segment; ClosedError."""
    with domain._guard:
        return domain._live()


def served_by(domain: Domain) -> tuple[int, int] | None:
    """(pid, tid) of the domain's service; None: it has none.  ClosedError."""
    with domain._guard:
        index = int(lib.plk_service_index(domain._live()))
        view = domain._vcpu(index) if index >= 0 else None
    return None if view is None else (view.pid, view.tid)


def living_processes(domain: Domain) -> set[int]:
    """Who has a living thread in the domain, as far as their pids mean anything here; ClosedError."""
    here = os.stat("/proc/self/ns/pid").st_ino
    with domain._guard:
        used = lib.plk_vcpus_used(domain._live())
        views = [view for view in map(domain._vcpu, range(used)) if view is not None]
    return {
        view.pid
        for view in views
        if view.state == lib.PLK_VCPU_ONLINE and view.life == lib.PLK_LIFE_ALIVE and view.pid_ns == here
    }


def optional(module: str, function: str) -> Callable[..., Any] | None:
    """A function of a part of pylocks that may not be installed."""
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError):
        return None
    return found


class Bell(threading.Thread):
    """The thread that is the domain's service."""

    def __init__(self, domain: Domain, news: Callable[[int], None]) -> None:
        super().__init__(name="pylocks-service", daemon=True)
        self.did = ffi.new("struct plk_service *")
        self._domain, self._news = domain, news
        self.segment = live_segment(domain)
        self._holder = domain._holder  # keeps it mapped
        self._began: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._stopping = False

    def begin(self) -> int:
        """Start; 0, or why not: a negative errno."""
        self.start()
        return self._began.get()

    def run(self) -> None:
        """Serve until end()."""
        with self._domain._guard:
            code = int(lib.plk_service_begin(self.segment))
        self._began.put(code)
        if code != 0:
            return
        try:
            while not self._stopping:
                self._serve()
        finally:
            lib.plk_service_end(self.segment, self.did)

    def _serve(self) -> None:
        news = int(lib.plk_service_look(self.segment, self.did))
        next_look = lib.plk_now() + (BUSY_LOOK_NS if self.did.waiting else IDLE_LOOK_NS)
        while not self._stopping:
            if news:
                self._news(news)
            if lib.plk_now() >= next_look:
                return
            news = int(lib.plk_service_step(self.segment, self.did, next_look))

    def end(self) -> None:
        """What has been asked for is done, and nobody is the domain's service."""
        self._stopping = True
        lib.plk_service_rouse(self.segment)
        self.join()


class Service:
    """Serves a domain from run() to stop(), or SIGTERM or SIGINT if that is in the main thread."""

    def __init__(
        self,
        domain: Domain,
        *,
        wait: bool,
        stall_s: float,
        metrics: str | None = None,
        spin: str = "own",
        preemption: str = "own",
        lifeline: int = -1,
    ) -> None:
        """lifeline: a descriptor at whose end it stops."""
        self.domain = domain
        self._wait, self._stall_s, self._lifeline = wait, stall_s, lifeline
        self._metrics = metrics
        self._policy = Policy(domain, spin, preemption, self._tell_policy)
        self._watched: dict[int, int] = {}  # pid -> pidfd
        self._stalls: dict[int, tuple[int, float, bool]] = {}  # lock -> (head, since when, told)
        self._told: set[Any] = set()
        self._gathering = self._recovering = False

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve; `ready` is called when it does or waits to take over.  HypervisorError, DomainError."""
        self._ready = ready
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        with contextlib.ExitStack() as opened:
            self._listen(opened)
            bell = await self._begin()
            if bell is None:
                return
            try:
                opened.callback(self._forget_all)
                self._start_metrics(opened)
                opened.callback(self._policy.end)
                self._policy.look(bell.segment)
                log(logging.INFO, "serving", domain=self.domain.name or "anonymous", pid=os.getpid())
                self._ready()
                await self._keep_house(bell)
            finally:
                bell.end()
                log(
                    logging.INFO,
                    "stopped",
                    domain=self.domain.name or "anonymous",
                    kicks=bell.did.kicks,
                    waits=bell.did.waits,
                    mended=bell.did.mended,
                )

    def stop(self) -> None:
        """Let run() return; in its thread."""
        self._stopped.set()

    def _listen(self, opened: contextlib.ExitStack) -> None:
        """To signals, and to who has started us."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._loop.add_signal_handler(number, self.stop)
                    opened.callback(self._loop.remove_signal_handler, number)
        if self._lifeline >= 0:
            self._loop.add_reader(self._lifeline, self._hear_lifeline)
            opened.callback(self._loop.remove_reader, self._lifeline)

    def _hear_lifeline(self) -> None:
        if not os.read(self._lifeline, 4096):
            self._loop.remove_reader(self._lifeline)
            self.stop()

    async def _begin(self) -> Bell | None:
        """Become the domain's service; None: stopped while waiting for another to end."""
        told = False
        while True:
            bell = Bell(self.domain, self._tell)
            code = bell.begin()
            if code == 0:
                return bell
            bell.join()
            if code != -errno.EBUSY:
                raise self._refusal(code)
            holder = served_by(self.domain)
            if holder is None:
                continue  # it has just ended
            if not self._wait:
                raise HypervisorError(
                    f"{self.domain.describe()} has a hypervisor already, process {holder[0]}: "
                    "end that one, or wait for its end (wait=True, or --wait)"
                )
            if not told:
                told = True
                self._ready()
                log(logging.INFO, "waiting", domain=self.domain.name or "anonymous", served_by=holder[0])
            if await self._either_ends(holder[0]):
                return None

    def _refusal(self, code: int) -> Exception:
        where = self.domain.describe()
        if code == -errno.EUSERS:
            return HypervisorError(
                f"{where} has no room for a hypervisor: all {self.domain.vcpu_limit} vCPU slots are taken"
            )
        if code == -errno.ESHUTDOWN:
            return ClosedError(f"{where} was closed in this process")
        return segment.refusal(code, ffi.new("struct plk_found *"), where)

    async def _either_ends(self, pid: int) -> bool:
        """That process may have; or, True, this service has been stopped."""
        died = asyncio.Event()
        with contextlib.ExitStack() as opened:
            with contextlib.suppress(OSError):
                watched = os.pidfd_open(pid)
                opened.callback(os.close, watched)
                self._loop.add_reader(watched, died.set)
                opened.callback(self._loop.remove_reader, watched)
            waits = {asyncio.ensure_future(event.wait()) for event in (died, self._stopped)}
            await asyncio.wait(waits, timeout=TAKEOVER_S, return_when=asyncio.FIRST_COMPLETED)
            for one in waits:
                one.cancel()
        return self._stopped.is_set()

    def _start_metrics(self, opened: contextlib.ExitStack) -> None:
        if self._metrics is None:
            return
        start = optional("pylocks.metrics", "start")
        if start is None:
            raise HypervisorError(
                "metrics need prometheus_client, which is not installed: pip install 'pylocks[service]'"
            )
        server = start(self.domain, self._metrics)
        opened.callback(server.stop)
        log(logging.INFO, "metrics", address=server.address)

    # ------------------------------------------------------------ deaths

    def _tell(self, news: int) -> None:
        """By the bell's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: we are stopping
            self._loop.call_soon_threadsafe(self._hear, news)

    def _hear(self, news: int) -> None:
        if news & lib.PLK_SERVICE_DEATH:
            self._recover()
        if news & lib.PLK_SERVICE_NEWCOMER and not self._gathering:
            self._gathering = True
            self._loop.call_later(GATHER_S, self._watch_all)

    def _recover(self, pid: int | None = None) -> None:
        began = time.monotonic()
        try:
            found = self.domain.recover()
        except ClosedError:
            self.stop()
        except DomainError as error:
            log(logging.ERROR, "recovery_failed", pid=pid, error=str(error))
        else:
            if found:
                log(logging.INFO, "recovered", pid=pid, vcpus=found, seconds=time.monotonic() - began)

    def _watch_all(self) -> None:
        """Have a pidfd of every process of the domain, in our pid namespace, and of no other."""
        self._gathering = False
        try:
            living = living_processes(self.domain)
        except ClosedError:
            self.stop()
            return
        gone = self._watched.keys() - living
        for pid in gone:
            self._forget(pid)
        died = [pid for pid in living - self._watched.keys() - {os.getpid()} if not self._watch(pid)]
        if died or gone:
            self._recover()

    def _watch(self, pid: int) -> bool:
        """False: there is no such process any more."""
        try:
            watched = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        except OSError as error:  # no descriptors left, or a sandbox: the looks will find it
            if "pidfd" not in self._told:
                self._told.add("pidfd")
                log(logging.WARNING, "unwatched", pid=pid, error=os.strerror(error.errno or 0))
            return True
        self._watched[pid] = watched
        self._loop.add_reader(watched, self._died, pid)
        return True

    def _died(self, pid: int) -> None:
        self._recover(pid)
        self._forget(pid)

    def _forget(self, pid: int) -> None:
        watched = self._watched.pop(pid)
        self._loop.remove_reader(watched)
        os.close(watched)

    def _forget_all(self) -> None:
        for pid in list(self._watched):
            self._forget(pid)

    # ------------------------------------------------------------ the house

    async def _keep_house(self, bell: Bell) -> None:
        deadlocks = optional("pylocks.deadlocks", "find")
        while not self._stopped.is_set() and bell.is_alive():
            try:
                self._watch_all()
                self._recover()  # and mend what the dead have miscounted
                self._look_for_stalls()
                self._policy.look(bell.segment)
                for found in deadlocks(self.domain) if deadlocks is not None else ():
                    self._tell_deadlock(found)
            except ClosedError:
                self.stop()
            except PylocksError as error:  # somebody has written over the segment
                if str(error) not in self._told:
                    self._told.add(str(error))
                    log(logging.ERROR, "damaged", error=str(error))
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), HOUSE_S)

    def _tell_policy(self, **decided: Any) -> None:
        log(logging.INFO, "policy", **decided)

    def _tell_deadlock(self, cycle: Any) -> None:
        """Once, as long as it stands; cycle: pylocks.deadlocks.Cycle."""
        if cycle.identity not in self._told:
            self._told.add(cycle.identity)
            log(logging.WARNING, "deadlock", threads=len(cycle.members), what=str(cycle))

    def _look_for_stalls(self) -> None:
        """Who holds a lock for long while others wait."""
        waiting: dict[int, int] = {}
        for vcpu in self.domain.vcpus():
            if vcpu.waiting_for is not None and vcpu.ticket is not None:
                waiting[vcpu.waiting_for] = waiting.get(vcpu.waiting_for, 0) + 1
        now = time.monotonic()
        before, self._stalls = self._stalls, {}
        for lock, waiters in waiting.items():
            head = int(self.domain.cell(lock).head)
            was, since, told = before.get(lock, (-1, now, False))
            if was != head:
                since, told = now, False
            elif not told and now - since >= self._stall_s:
                told = True
                owner = self.domain.owner(lock)
                log(
                    logging.WARNING,
                    "stall",
                    lock=self.domain.describe_lock(lock).strip("'"),
                    ticket=head,
                    holder_pid=owner.pid if owner else None,
                    holder_tid=owner.tid if owner else None,
                    waiters=waiters,
                    seconds=round(now - since, 1),
                )
            self._stalls[lock] = (head, since, told)


def serve(domain: Domain, ready: Callable[[], None] = lambda: None, **settings: Any) -> None:
    """Service.run() in an event loop of its own."""
    asyncio.run(Service(domain, **settings).run(ready))
