"""What the commands and the metrics say of semaphores, events and their like."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager as Context
from contextlib import contextmanager
from typing import Any

import pytest
from support.insiders import in_a_row, inside
from support.syncs import Forked

import pylocks
from pylocks import cli
from pylocks.observe import snapshot, stacks
from pylocks.observe.model import plain

Capture = pytest.CaptureFixture[str]


def on_stage(domain: pylocks.Domain) -> Context[Any]:
    """Two wait for "slots", one reads "prices", and one wants to write them."""
    slots = pylocks.Semaphore(0, name="slots", domain=domain)
    prices = pylocks.RWLock("prices", domain=domain)

    @contextmanager
    def stage() -> Iterator[list[Forked]]:
        with (
            in_a_row(slots, slots.acquire, slots.acquire) as permits,
            inside(prices, prices.read.acquire) as readers,
            in_a_row(prices, prices.write.acquire) as writers,
        ):
            yield [*permits, *readers, *writers]

    return stage()


def test_the_commands(name: str, capsys: Capture) -> None:
    with pylocks.Domain(name) as domain, on_stage(domain) as children:
        domain.lock("plain")
        assert cli.main(["ls"]) == 0
        (row,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{name} "))
        assert row.split()[1:6] == ["in", "use", "3", "1", "3"]

        assert cli.main(["top", name, "--once"]) == 0
        summary, _, *rows = capsys.readouterr().out.splitlines()
        assert summary == f"{name}, 1 locks, 2 others, 1 held, 3 waiting, 4 threads"
        assert [row.split()[0] for row in rows] == ["slots", "prices", "plain"]
        assert rows[0].split()[1] == "2" and rows[0].endswith("0 left") and "Semaphore" in rows[0]
        assert str(children[2].pid) in rows[1].split() and rows[1].endswith("1 reading")

        assert cli.main(["inspect", "prices", "--domain", name, "--once"]) == 0
        title, _, holds, waits = capsys.readouterr().out.splitlines()
        assert title == f"prices in {name}, RWLock; 1 reading; 1 waiting" and "served" not in title
        assert holds.split()[0] == "holds" and {str(children[2].pid), "read"} <= set(holds.split())
        assert waits.split()[0] == "1" and {str(children[3].pid), "write"} <= set(waits.split())


def test_as_json(name: str, capsys: Capture) -> None:
    with pylocks.Domain(name) as domain, on_stage(domain) as children:
        assert cli.main(["inspect", "slots", "--domain", name, "--once", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)["object"]
        assert (told["kind"], told["state"], told["value"]) == ("Semaphore", "0 left", 0)
        assert [waiter["pid"] for waiter in told["waiters"]] == [child.pid for child in children[:2]]
        assert cli.main(["top", name, "--once", "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)["domains"]
        assert found["locks"] == [] and [each["name"] for each in found["objects"]] == ["slots", "prices"]
        assert found["objects"][1]["holders"][0]["what"] == "read"
        json.dumps(plain(snapshot(domain)))


def test_stacks_of_those_inside_and_those_who_wait(
    name: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacks, "program", lambda: "py-spy")
    monkeypatch.setattr(stacks, "stacks", lambda threads: {tid: (f"f ({pid})",) for pid, tid in threads})
    with pylocks.Domain(name) as domain, on_stage(domain) as children:
        assert cli.main(["inspect", "prices", "--domain", name, "--once", "--stacks"]) == 0
        text = capsys.readouterr().out
    reader, writer = (child.pid for child in children[2:])
    assert f"thread {reader} of process {reader} holds:\n    f ({reader})" in text
    assert f"thread {writer} of process {writer} waits:\n    f ({writer})" in text


def test_metrics_tell_of_those_with_a_name_or_in_use(name: str) -> None:
    """How many wait, what is left; and never a guard's tickets as if they were somebody's acquisitions."""
    client = pytest.importorskip("prometheus_client")
    from pylocks import metrics

    with pylocks.Domain(name) as domain, on_stage(domain):
        unused = pylocks.Semaphore(1, domain=domain)
        changed = pylocks.Condition(name="changed", domain=domain)
        with domain.lock("plain"):
            pass
        registry = client.CollectorRegistry()
        registry.register(metrics.Collector(domain))
        samples = {
            (
                sample.name,
                sample.labels.get("object", sample.labels.get("lock")),
                sample.labels.get("kind"),
            ): sample.value
            for family in registry.collect()
            for sample in family.samples
        }
        assert unused.value == 1 and changed.waiters == 0
    objects = {key[1:]: value for key, value in samples.items() if key[0] == "pylocks_object_waiters"}
    assert objects == {("slots", "Semaphore"): 2, ("prices", "RWLock"): 1, ("changed", "Condition"): 0}
    values = {key[1]: value for key, value in samples.items() if key[0] == "pylocks_object_value"}
    assert values == {"slots": 0, "prices": 1}
    assert [key[1] for key in samples if key[0] == "pylocks_lock_acquisitions_total"] == ["plain"]
    assert samples["pylocks_domain_acquisitions_total", None, None] == 1


def test_the_service_of_a_domain_serves_them(name: str) -> None:
    pytest.importorskip("prometheus_client")
    from pylocks import metrics

    with (
        pylocks.Domain(name) as domain,
        on_stage(domain),
        metrics.start(domain, "127.0.0.1:0") as server,
        urllib.request.urlopen(f"http://{server.address}/metrics") as answer,
    ):
        text = answer.read().decode()
    assert f'pylocks_object_waiters{{domain="{name}",kind="Semaphore",object="slots"}} 2.0' in text
