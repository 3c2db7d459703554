"""What lock_event=counters has counted, for Prometheus: a collector, and a small server for it.

    from pylocks import metrics
    server = metrics.start(domain, "127.0.0.1:9464")        # or "unix:/run/user/1000/shop.sock"
    ...
    server.stop()

Needs prometheus_client (pip install 'pylocks[service]').  With a registry of your own, register a
Collector there.  Each scrape reads the domains anew, and disturbs nobody who uses them.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
import threading
from collections.abc import Iterable, Iterator
from socketserver import ThreadingMixIn
from types import TracebackType
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from pylocks import errors
from pylocks._core import ffi, lib
from pylocks.domain import Domain
from pylocks.events import BOUNDS_NS, DomainEvents, Histogram, LockEvents, domain_events, lock_events
from pylocks.observe.model import SyncObject
from pylocks.observe.people import Strangers
from pylocks.observe.snap import snapshot

try:
    from prometheus_client import CollectorRegistry, make_wsgi_app
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
except ImportError as error:
    raise ImportError(
        "pylocks.metrics needs prometheus_client: pip install 'pylocks[service]'", name=error.name
    ) from None

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["Collector", "Server", "start"]

UNIX = "unix:"
SOCKET_MODE = 0o600

LOCK_COUNTERS = {
    "acquisitions": "Tickets served",
    "contended": "Acquisitions that had to queue",
    "parks": "Sleeps of waiters",
    "spurious": "Returns from a sleep before the turn had come",
    "kicks": "Sleepers woken",
    "abandons": "Tickets left in the queue",
    "owner_deaths": "Holders that died inside, after which the lock was recovered",
}
OBJECT_GAUGES = {
    "waiters": "Threads that wait now",
    "value": "Permits left; 1: event is set, mutex is held; parties there; readers inside",
}
HISTOGRAMS = {
    "wait": "From joining the queue to entering, of acquisitions that had to queue",
    "hold": "From entering to releasing, of contended acquisitions and a sample of the others",
}


def _label(domain: Domain) -> str:
    return domain.name or f"anonymous-{domain.uid.hex()[:8]}"


def _lock_label(lock: LockEvents) -> str:
    return lock.name if lock.name is not None else f"#{lock.index}"


def _objects(domain: Domain) -> list[SyncObject]:
    """Those that have a name or are in use."""
    found = snapshot(domain, Strangers()).objects
    return [each for each in found if each.name is not None or each.busy or each.waiters]


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """(upper bound in seconds, how many are below it)."""
    found, below = [], 0
    for bound, count in zip(BOUNDS_NS, histogram.counts, strict=False):
        below += count
        found.append((repr(bound / 1e9), float(below)))
    return [*found, ("+Inf", float(histogram.count))]


class Collector:
    """Metrics of these domains, for a registry of prometheus_client.

    A domain that has been closed meanwhile has none.  Names begin with pylocks_domain_ (label domain),
    pylocks_lock_ (labels domain, lock) and pylocks_object_ (labels domain, object, kind) for semaphores,
    events and their like; what has no name is "#" and its index.  Of locks, those that have a name or of
    which something was counted; of objects, those that have a name or are in use.
    """

    def __init__(self, *domains: Domain) -> None:
        if not domains:
            raise ValueError("a Collector needs at least one domain")
        for domain in domains:
            if not isinstance(domain, Domain):
                raise TypeError(f"a Collector collects from domains, not from {domain!r}")
        self._domains = domains

    def describe(self) -> Iterable[Metric]:
        """Nothing is read when the collector is registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read all of it now."""
        domains: list[tuple[str, DomainEvents, int]] = []
        locks: list[tuple[str, LockEvents]] = []
        objects: list[tuple[str, SyncObject]] = []
        for domain in self._domains:
            try:
                label = _label(domain)
                read = domain_events(domain), sum(vcpu.alive for vcpu in domain.vcpus())
                of_locks, of_objects = lock_events(domain), _objects(domain)
            except (errors.ClosedError, errors.DomainError):
                continue  # closed, or written over: the others have metrics all the same
            domains.append((label, *read))
            locks += [(label, lock) for lock in of_locks]
            objects += [(label, each) for each in of_objects]
        yield from _of_domains(domains)
        yield from _of_locks(locks)
        yield from _of_objects(objects)


def _of_domains(domains: list[tuple[str, DomainEvents, int]]) -> Iterator[Metric]:
    vcpus = GaugeMetricFamily("pylocks_domain_vcpus", "Threads registered now", labels=["domain"])
    served = CounterMetricFamily(
        "pylocks_domain_acquisitions", LOCK_COUNTERS["acquisitions"], labels=["domain"]
    )
    for label, events, alive in domains:
        vcpus.add_metric([label], alive)
        served.add_metric([label], events.acquisitions)
    yield vcpus
    yield served
    for number in range(lib.plk_event_count()):
        name = ffi.string(lib.plk_event_name(number)).decode()
        meaning = ffi.string(lib.plk_event_meaning(number)).decode()
        family = CounterMetricFamily(f"pylocks_domain_{name}", meaning.capitalize(), labels=["domain"])
        for label, events, _ in domains:
            family.add_metric([label], getattr(events.stats, name))
        yield family
    for what, meaning in HISTOGRAMS.items():
        histogram = HistogramMetricFamily(f"pylocks_domain_{what}_seconds", meaning, labels=["domain"])
        for label, events, _ in domains:
            value: Histogram = getattr(events, what)
            histogram.add_metric([label], _buckets(value), value.sum_ns / 1e9)
        yield histogram


def _of_locks(locks: list[tuple[str, LockEvents]]) -> Iterator[Metric]:
    labels = ["domain", "lock"]
    for name, meaning in LOCK_COUNTERS.items():
        family = CounterMetricFamily(f"pylocks_lock_{name}", meaning, labels=labels)
        for label, lock in locks:
            family.add_metric([label, _lock_label(lock)], getattr(lock, name))
        yield family
    for what, meaning in HISTOGRAMS.items():
        histogram = HistogramMetricFamily(f"pylocks_lock_{what}_seconds", meaning, labels=labels)
        for label, lock in locks:
            value: Histogram = getattr(lock, what)
            if value.count:
                histogram.add_metric([label, _lock_label(lock)], _buckets(value), value.sum_ns / 1e9)
        yield histogram


def _of_objects(objects: list[tuple[str, SyncObject]]) -> Iterator[Metric]:
    for name, meaning in OBJECT_GAUGES.items():
        family = GaugeMetricFamily(f"pylocks_object_{name}", meaning, labels=["domain", "object", "kind"])
        for label, each in objects:
            value = each.queued if name == "waiters" else each.value
            if name == "waiters" or each.kind != "Condition":  # which has none
                family.add_metric([label, each.label, each.kind], value)
        yield family


# ------------------------------------------------------------------- server


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not worth a line each on standard error."""

    def address_string(self) -> str:
        return str(self.client_address)  # a name would have to be looked up; of a Unix socket there is none

    def handle(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client has gone
            super().handle()


class _Listener(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _InetListener(_Listener):
    allow_reuse_address = True


class _Inet6Listener(_InetListener):
    address_family = socket.AF_INET6


class _UnixListener(_Listener):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        os.fchmod(self.socket.fileno(), SOCKET_MODE)  # before there is anything to connect to
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = "localhost", 0
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, _ = self.socket.accept()
        return connection, ("unix", 0)


class Server:
    """A thread that answers scrapes; made by start()."""

    address: str
    """Where it listens, as start() takes it; with the port that was chosen, if that was 0."""

    def __init__(self, listener: WSGIServer, address: str, path: str | None) -> None:
        self.address = address
        self._listener, self._path = listener, path
        self._pid = os.getpid()
        self._inode = os.stat(path).st_ino if path is not None else None
        self._thread = threading.Thread(target=listener.serve_forever, name="pylocks-metrics", daemon=True)
        self._thread.start()
        self._stopped = False

    def stop(self) -> None:
        """Stop answering, and remove the Unix socket; again: nothing.  In a forked child: its copy alone."""
        if self._stopped:
            return
        self._stopped = True
        if self._pid == os.getpid():
            self._listener.shutdown()
            self._thread.join()
            self._remove()
        self._listener.server_close()

    def _remove(self) -> None:
        try:
            if self._path is not None and os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)
        except FileNotFoundError:
            pass

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<pylocks.metrics.Server {self.address}{': stopped' if self._stopped else ''}>"


def start(domains: Domain | Iterable[Domain], address: str, *, anywhere: bool = False) -> Server:
    """Serve the metrics of these domains, in a thread of this process.

    address: "127.0.0.1:PORT" or "[::1]:PORT" (0: any free port), or "unix:PATH" for a socket that only
    this user can connect to (mode 0600).  Others than loopback addresses are refused unless anywhere=True:
    whoever reaches one sees the names of your locks, and how they are used.  Raises ValueError for what is
    no such address, OSError that names the address where it can't be listened on.
    """
    collector = Collector(*((domains,) if isinstance(domains, Domain) else tuple(domains)))
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    app = make_wsgi_app(registry)
    if not isinstance(address, str):
        raise TypeError(f"address is a str, not {type(address).__name__}: {address!r}")
    if address.startswith(UNIX):
        return _start_unix(address[len(UNIX) :], app)
    host, port = _parse(address, anywhere)
    kind = _Inet6Listener if host.version == 6 else _InetListener
    try:
        listener = kind((str(host), port), _Handler)
    except OSError as error:
        raise OSError(error.errno, f"metrics can't be served at {address}: {error.strerror}") from None
    listener.set_app(app)
    shown = f"[{host}]" if host.version == 6 else str(host)
    return Server(listener, f"{shown}:{listener.server_address[1]}", None)


def _parse(address: str, anywhere: bool) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'address is "127.0.0.1:PORT", "[::1]:PORT" or "unix:PATH", not {address!r}')
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        found = ipaddress.ip_address("127.0.0.1" if bare == "localhost" else bare)
    except ValueError:
        raise ValueError(
            f"address {address!r}: {host!r} is not an IP address (names are not looked up)"
        ) from None
    if not found.is_loopback and not anywhere:
        raise ValueError(
            f"address {address!r} can be reached from other machines: use 127.0.0.1, or say anywhere=True"
        )
    return found, int(port)


def _start_unix(path: str, app: WSGIApplication) -> Server:
    if not path or "\0" in path:
        raise ValueError(f"unix:PATH needs the path of a socket, not {path!r}")
    _clear(path)
    try:
        listener = _UnixListener(path, _Handler)  # type: ignore[arg-type]
    except OSError as error:
        why = error.strerror or str(error)  # too long a path has no errno
        raise OSError(
            error.errno or errno.ENAMETOOLONG, f"metrics can't be served at unix:{path}: {why}"
        ) from None
    listener.set_app(app)
    return Server(listener, UNIX + path, path)


def _clear(path: str) -> None:
    """Remove a socket that nobody listens on any more; whatever else is there stays."""
    try:
        found = os.lstat(path)
    except OSError:
        return  # nothing there, or bind says what is wrong
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(
            errno.EEXIST, f"metrics can't be served at unix:{path}: there is something that is no socket"
        )
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as error:
            raise OSError(error.errno, f"metrics can't be served at unix:{path}: {error.strerror}") from None
    raise OSError(errno.EADDRINUSE, f"metrics can't be served at unix:{path}: somebody listens there")
