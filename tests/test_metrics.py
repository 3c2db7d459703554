"""The Prometheus collector and its server."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from support import run
from support.counting import counting

import pylocks

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pylocks import metrics


def families(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """sample name -> [(labels, value)]"""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def exposed(*domains: pylocks.Domain) -> str:
    registry = CollectorRegistry()
    registry.register(metrics.Collector(*domains))
    return generate_latest(registry).decode()


def test_what_is_counted_is_exposed() -> None:
    """By a program that counts: figures, labels and histograms, as Prometheus' own parser reads them."""
    text = counting("""
from prometheus_client import CollectorRegistry, generate_latest
from pylocks import metrics
domain = pylocks.Domain()
orders, other = domain.lock("orders"), pylocks.TicketLock(domain=domain)
for lock in (orders, other):
    lock.acquire()
    thread = waits_behind(lock)
    lock.release(); thread.join()
registry = CollectorRegistry()
registry.register(metrics.Collector(domain))
print(json.dumps([metrics._label(domain), generate_latest(registry).decode()]))
""")
    label, found = text[0], families(text[1])
    assert found["pylocks_domain_acquisitions_total"] == [({"domain": label}, 4.0)]
    assert found["pylocks_domain_waits_total"] == [({"domain": label}, 2.0)]
    for what in ("acquisitions", "contended"):
        values = {labels["lock"]: value for labels, value in found[f"pylocks_lock_{what}_total"]}
        assert values == dict.fromkeys(("orders", "#1"), 2.0 if what == "acquisitions" else 1.0)
    assert {labels["lock"]: v for labels, v in found["pylocks_lock_wait_seconds_count"]} == {
        "orders": 1,
        "#1": 1,
    }
    assert all(value > 0 for _, value in found["pylocks_lock_wait_seconds_sum"])
    for name in ("pylocks_lock_wait_seconds_bucket", "pylocks_domain_hold_seconds_bucket"):
        assert {"domain", "le"} <= set(found[name][0][0])
        buckets = [value for labels, value in found[name] if labels.get("lock", "orders") == "orders"]
        assert buckets == sorted(buckets) and buckets[-1] in (1.0, 2.0)
        assert found[name][-1][0]["le"] == "+Inf"


def test_without_counting_there_are_acquisitions(name: str) -> None:
    with pylocks.Domain(name) as domain:
        with domain.lock("orders"):
            pass
        found = families(exposed(domain))
    assert found["pylocks_lock_acquisitions_total"] == [({"domain": name, "lock": "orders"}, 1.0)]
    assert found["pylocks_domain_vcpus"] == [({"domain": name}, 1.0)]
    assert "pylocks_lock_wait_seconds_count" not in found


def test_names_that_need_quoting(name: str) -> None:
    odd = 'a "b"\\c\nd ü'
    with pylocks.Domain(name) as domain:
        domain.lock(odd)
        (sample,) = families(exposed(domain))["pylocks_lock_acquisitions_total"]
    assert sample[0]["lock"] == odd


def test_a_closed_domain_has_no_metrics_and_others_do(name: str) -> None:
    closed = pylocks.Domain()
    with pylocks.Domain(name) as domain:
        collector = exposed(domain, closed)
        assert len(families(collector)["pylocks_domain_vcpus"]) == 2
        closed.close()
        assert families(exposed(domain, closed))["pylocks_domain_vcpus"] == [({"domain": name}, 0.0)]


# --------------------------------------------------------------- the server


def scrape(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=60) as answer:
        assert answer.status == 200
        return str(answer.read().decode())


def scrape_unix(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        answer = b""
        while part := client.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.0 200")
    return answer.partition(b"\r\n\r\n")[2].decode()


def test_served_on_loopback(name: str) -> None:
    with pylocks.Domain(name) as domain, metrics.start(domain, "127.0.0.1:0") as server:
        host, _, port = server.address.rpartition(":")
        assert host == "127.0.0.1" and int(port) > 0 and server.address in repr(server)
        assert name in scrape(server.address)
        texts: list[str] = []
        clients = [threading.Thread(target=lambda: texts.append(scrape(server.address))) for _ in range(4)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert len(texts) == 4 and all(name in text for text in texts)
    server.stop()
    with pytest.raises(urllib.error.URLError):
        scrape(server.address)


def test_served_on_a_unix_socket(name: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with pylocks.Domain(name) as domain, metrics.start([domain], f"unix:{path}") as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert name in scrape_unix(path)
        assert server.address == f"unix:{path}"
    assert not path.exists()


def test_a_socket_that_a_dead_process_left_is_replaced(name: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    subprocess.run(
        [sys.executable, "-c", f"import socket; socket.socket(socket.AF_UNIX).bind({str(path)!r})"],
        check=True,
    )
    with pylocks.Domain(name) as domain, metrics.start(domain, f"unix:{path}"):
        assert name in scrape_unix(path)
        with pytest.raises(OSError, match="somebody listens there"):
            metrics.start(domain, f"unix:{path}")
        assert name in scrape_unix(path)


def test_a_port_that_is_taken(name: str) -> None:
    with pylocks.Domain(name) as domain, metrics.start(domain, "127.0.0.1:0") as server:
        taken = server.address
        with pytest.raises(OSError, match=rf"served at {taken}: Address already in use"):
            metrics.start(domain, taken)


@pytest.mark.parametrize(
    ("address", "kind", "said"),
    [
        ("0.0.0.0:0", ValueError, "anywhere=True"),
        ("[::]:0", ValueError, "anywhere=True"),
        ("192.0.2.1:0", ValueError, "anywhere=True"),
        ("example.org:80", ValueError, "not an IP address"),
        ("127.0.0.1", ValueError, "127.0.0.1:PORT"),
        ("127.0.0.1:", ValueError, "127.0.0.1:PORT"),
        ("127.0.0.1:65536", ValueError, "127.0.0.1:PORT"),
        ("127.0.0.1:-1", ValueError, "127.0.0.1:PORT"),
        ("unix:", ValueError, "path of a socket"),
        ("unix:/nonexistent/x", OSError, "No such file"),
        ("unix:/", OSError, "no socket"),
        (f"unix:/tmp/{'x' * 200}", OSError, "too long"),
        (9464, TypeError, "is a str"),
    ],
)
def test_bad_addresses(address: str, kind: type[Exception], said: str) -> None:
    with pylocks.Domain() as domain, pytest.raises(kind, match=said):
        metrics.start(domain, address)


def test_what_is_no_domain() -> None:
    with pytest.raises(TypeError, match="not from 'shop'"):
        metrics.Collector("shop")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one"):
        metrics.Collector()


def test_anywhere_if_that_is_asked_for(name: str) -> None:
    with pylocks.Domain(name) as domain, metrics.start(domain, "0.0.0.0:0", anywhere=True) as server:
        assert name in scrape("127.0.0.1:" + server.address.rpartition(":")[2])


def test_a_forked_child_leaves_the_socket_alone(name: str, tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with pylocks.Domain(name) as domain, metrics.start(domain, f"unix:{path}") as server:
        child = os.fork()
        if child == 0:
            server.stop()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert name in scrape_unix(path)


def test_without_prometheus_client_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['prometheus_client'] = None\ntry: import pylocks.metrics\n"
    code += "except ImportError as error: print(error)"
    assert "pip install 'pylocks[service]'" in run.python("-c", code).check()
