"""What pylocks makes of the machine it runs on, and what it chooses from that.

machine.look() is shown made-up /proc and /sys trees; decide() made-up facts.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
from pathlib import Path

import pytest

from pylocks import errors, machine
from pylocks.machine import Machine
from pylocks.ops import Choice, Decision, Traits, choices, decide, parse, slow_paths


def place(root: Path, name: str, content: str | bytes) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def quota_of(root: Path) -> float | None:
    return machine.look(root).quota


# -------------------------------------------------------------------- cgroups


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert quota_of(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "quota"),
    [("150000 100000\n", 1.5), ("max 100000\n", None), ("50000 100000", 0.5), ("800000 100000\n", 8.0)],
)
def test_version_2(tmp_path: Path, text: str, quota: float | None) -> None:
    place(tmp_path, "proc/self/cgroup", "0::/user.slice/shop\n")
    place(tmp_path, "sys/fs/cgroup/user.slice/shop/cpu.max", text)
    assert quota_of(tmp_path) == quota


@pytest.mark.parametrize("tightest", ["cpu.max", "a/cpu.max", "a/b/cpu.max"])
def test_the_least_quota_on_the_way_to_the_root_counts(tmp_path: Path, tightest: str) -> None:
    place(tmp_path, "proc/self/cgroup", "0::/a/b\n")
    for name in ("cpu.max", "a/cpu.max", "a/b/cpu.max"):
        text = "100000 100000" if name == tightest else "400000 100000"
        place(tmp_path, f"sys/fs/cgroup/{name}", text)
    place(tmp_path, "sys/fs/cpu.max", "1 100000")  # above the mount: not a control group
    place(tmp_path, "sys/fs/cgroup/other/cpu.max", "1 100000")  # not on the way
    assert quota_of(tmp_path) == 1.0


def test_version_2_beside_version_1(tmp_path: Path) -> None:
    place(tmp_path, "proc/self/cgroup", "12:cpuset:/x\n3:cpu,cpuacct:/x\n1:name=systemd:/x\n0::/x\n")
    place(tmp_path, "sys/fs/cgroup/unified/x/cpu.max", "max 100000")
    place(tmp_path, "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "250000\n")
    place(tmp_path, "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n")
    place(tmp_path, "sys/fs/cgroup/cpuset/x/cpu.cfs_quota_us", "1\n")
    place(tmp_path, "sys/fs/cgroup/cpuset/x/cpu.cfs_period_us", "100000\n")
    assert quota_of(tmp_path) == 2.5


@pytest.mark.parametrize(
    ("mount", "controllers"), [("cpu", "cpu"), ("cpu,cpuacct", "cpu,cpuacct"), ("cpu", "cpuacct,cpu")]
)
@pytest.mark.parametrize(("quota", "expected"), [("300000", 3.0), ("-1", None), ("0", None)])
def test_version_1(tmp_path: Path, mount: str, controllers: str, quota: str, expected: float | None) -> None:
    place(tmp_path, "proc/self/cgroup", f"4:{controllers}:/docker/0123\n")
    place(tmp_path, f"sys/fs/cgroup/{mount}/docker/0123/cpu.cfs_quota_us", quota)
    place(tmp_path, f"sys/fs/cgroup/{mount}/docker/0123/cpu.cfs_period_us", "100000")
    assert quota_of(tmp_path) == expected


@pytest.mark.parametrize(
    "path", ["/", "/docker/0123456789ab", "/kubepods/burstable/pod1/0123", "/../../other"]
)
def test_in_a_container_the_mount_itself_is_the_group(tmp_path: Path, path: str) -> None:
    """The path is the host's, or relative to another namespace; what is mounted is one's own group."""
    place(tmp_path, "proc/self/cgroup", f"0::{path}\n4:cpu:{path}\n")
    place(tmp_path, "sys/fs/cgroup/cpu.max", "200000 100000")
    assert quota_of(tmp_path) == 2.0


def test_in_a_container_with_version_1(tmp_path: Path) -> None:
    place(tmp_path, "proc/self/cgroup", "4:cpu,cpuacct:/docker/0123\n")
    place(tmp_path, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000")
    place(tmp_path, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000")
    assert quota_of(tmp_path) == 0.5


GARBAGE: list[bytes] = [
    b"",
    b"\n",
    b"\0",
    b"max",
    b"100000",
    b"100000 0",
    b"0 100000",
    b"-5 100000",
    b"a b c",
    b"1e5 100000",
    "² 100000".encode(),
    b"\xff\xfe\xfd",
    b"\x80" * 5000,
    b"100000 \xff",
]


@pytest.mark.parametrize("text", GARBAGE, ids=lambda text: repr(text[:20]))
def test_what_is_no_quota_is_no_limit(tmp_path: Path, text: bytes) -> None:
    place(tmp_path, "proc/self/cgroup", "0::/a\n4:cpu:/a\n")
    place(tmp_path, "sys/fs/cgroup/a/cpu.max", text)
    place(tmp_path, "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", text)
    place(tmp_path, "sys/fs/cgroup/cpu/a/cpu.cfs_period_us", text)
    assert quota_of(tmp_path) in (None, 1.0)


@pytest.mark.parametrize(
    "text", [*GARBAGE, b":", b"::", b"0:", b"0::", b"cpu\n", b"x:cpu:/\n" * 3], ids=lambda t: repr(t[:20])
)
def test_an_unreadable_list_of_control_groups_is_none(tmp_path: Path, text: bytes) -> None:
    place(tmp_path, "proc/self/cgroup", text)
    assert quota_of(tmp_path) is None


def test_directories_where_files_are_expected(tmp_path: Path) -> None:
    for name in ("proc/self/cgroup", "proc/cpuinfo"):
        (tmp_path / name).mkdir(parents=True)
    found = machine.look(tmp_path)
    assert found.quota is None and found.hypervisor is False


# ------------------------------------------------------------------ the rest


CPUINFO = "processor\t: 0\nvendor_id\t: Acme\nflags\t\t: fpu vme sse2{} nopl\nbugs\t\t: hypervisor\n\n"


def test_the_hypervisor_bit(tmp_path: Path) -> None:
    assert machine.look(place(tmp_path, "proc/cpuinfo", CPUINFO.format(" hypervisor"))).hypervisor
    assert not machine.look(place(tmp_path, "proc/cpuinfo", CPUINFO.format(""))).hypervisor
    assert not machine.look(place(tmp_path, "proc/cpuinfo", CPUINFO.format(" hypervisors"))).hypervisor


@pytest.mark.parametrize("sign", ["sys/hypervisor/type", "proc/device-tree/hypervisor/compatible"])
def test_other_processors_name_the_hypervisor_elsewhere(tmp_path: Path, sign: str) -> None:
    place(tmp_path, "proc/cpuinfo", "processor : 0\nFeatures : fp asimd\n")
    assert not machine.look(tmp_path).hypervisor
    assert machine.look(place(tmp_path, sign, "xen")).hypervisor


@pytest.mark.parametrize("text", GARBAGE, ids=lambda text: repr(text[:20]))
def test_garbage_in_cpuinfo_is_no_hypervisor(tmp_path: Path, text: bytes) -> None:
    assert not machine.look(place(tmp_path, "proc/cpuinfo", text)).hypervisor


def test_this_machine() -> None:
    found = machine.look()
    assert found.cpus == len(os.sched_getaffinity(0)) >= 1
    assert found.quota is None or found.quota > 0
    assert found.architecture == platform.machine()
    assert 0 < found.parallel <= found.cpus


@pytest.mark.parametrize(("cpus", "quota", "parallel"), [(4, None, 4.0), (4, 1.5, 1.5), (2, 8.0, 2.0)])
def test_parallel_is_what_mask_and_quota_both_allow(cpus: int, quota: float | None, parallel: float) -> None:
    assert facts(cpus=cpus, quota=quota).parallel == parallel


# ----------------------------------------------------------------- decisions


def facts(
    *,
    cpus: int = 8,
    quota: float | None = None,
    hypervisor: bool = False,
    futex: bool = True,
    membarrier: bool = True,
    architecture: str = "x86_64",
) -> Machine:
    return Machine(cpus, quota, hypervisor, futex, membarrier, architecture)


def name_of(decision: Decision, op: str) -> str:
    return str(decision.choices[op][0].name)


def test_one_cpu_never_spins() -> None:
    """Linux left PV spinning on where there was one CPU (3553ae5690a8)."""
    decision = decide({}, "enlightened", facts(cpus=1, hypervisor=True))
    assert decision.spin.ns == decision.spin.near == 0
    assert "one CPU" in decision.spin.reason
    assert decision.slow_path == "futex"


@pytest.mark.parametrize("quota", [0.1, 0.5, 1.0, 1.99])
def test_a_quota_below_two_cpus_never_spins(quota: float) -> None:
    decision = decide({}, "enlightened", facts(quota=quota))
    assert decision.spin.ns == 0
    assert "quota" in decision.spin.reason and f"{quota:g}" in decision.spin.reason


def test_a_quota_below_the_cpus_spins_less_than_a_hypervisor_would() -> None:
    bound = decide({}, "enlightened", facts(quota=3.0, hypervisor=True)).spin
    free = decide({}, "enlightened", facts(hypervisor=True)).spin
    metal = decide({}, "enlightened", facts()).spin
    assert 0 < bound.ns < free.ns
    assert 0 < metal.ns < free.ns
    assert bound.near == 2 and free.near == metal.near == 7
    assert "quota" in bound.reason and "hypervisor" in free.reason and "no hypervisor" in metal.reason


def test_a_quota_above_the_cpus_is_none() -> None:
    assert decide({}, "enlightened", facts(quota=64.0)).spin == decide({}, "enlightened", facts()).spin


def test_where_nobody_spins_nobody_asks_whether_the_holder_runs() -> None:
    assert name_of(decide({}, "enlightened", facts(cpus=1)), "vcpu_preempted") == "off"
    assert name_of(decide({}, "enlightened", facts()), "vcpu_preempted") == "same_cpu"


def test_without_futex_waiters_yield() -> None:
    decision = decide({}, "enlightened", facts(futex=False))
    assert decision.slow_path == "yield"
    assert "futex" in decision.choices["lock_spinning"][1]


def traits(slow_path: str, barrier: str = "fence") -> Traits:
    return Traits("enlightened", barrier, slow_path)


@pytest.mark.parametrize("slow_path", [name for name in slow_paths() if name != "native"])
def test_the_domains_slow_path_is_taken_over(slow_path: str) -> None:
    decision = decide({}, "enlightened", facts(), traits(slow_path))
    assert decision.slow_path == slow_path
    assert "creator" in decision.choices["lock_spinning"][1]


@pytest.mark.parametrize("slow_path", ["busted", "native", "", "nonsense", "futex\0"])
def test_a_domain_can_lead_nobody_to_an_unsound_slow_path(slow_path: str) -> None:
    assert decide({}, "enlightened", facts(), traits(slow_path)).slow_path == "futex"


@pytest.mark.parametrize(
    "choice",
    [
        pytest.param(choice, id=f"{choice.op}={choice.name}")
        for choice in choices()
        if choice.protocol in (None, "enlightened") and choice.available
    ],
)
def test_what_is_asked_for_beats_everything(choice: Choice) -> None:
    poor = facts(cpus=1, quota=0.5, hypervisor=True, futex=False, membarrier=False)
    others = decide({}, "enlightened", poor, traits("yield")).choices
    decision = decide({choice.op: choice}, "enlightened", poor, traits("yield"))
    assert decision.choices[choice.op] == (choice, "explicit: PYLOCKS_OPS")
    ours = {choice.op, "unlock_kick"} if choice.name == "hosted" else {choice.op}
    assert {op: c for op, c in decision.choices.items() if op not in ours} == {
        op: c for op, c in others.items() if op not in ours
    }


@pytest.mark.parametrize("protocol", ["native", "enlightened"])
def test_what_does_not_go_with_the_protocol_is_refused(protocol: str) -> None:
    refused = [c for c in choices() if c.protocol not in (None, protocol)]
    assert refused
    for choice in refused:
        with pytest.raises(errors.ProtocolMismatchError, match=f"{choice.op}={choice.name}.*{protocol}"):
            decide({choice.op: choice}, protocol, facts())


def test_native_does_nothing_for_sleepers() -> None:
    """On bare metal with the wrong variant, PV calls cost Linux for nothing (e639222a5119)."""
    decision = decide({}, "native", facts())
    assert {op: choice.kind for op, (choice, _) in decision.choices.items()} == {
        "cpu_relax": "inline",
        "unlock_barrier": "nop",
        "lock_spinning": "nop",
        "unlock_kick": "nop",
        "vcpu_preempted": "inline",
        "lock_event": "nop",
    }


def test_the_barrier() -> None:
    def barrier(patch: bool = True, domain: Traits | None = None, **found: object) -> str:
        decision = decide({}, "enlightened", dataclasses.replace(facts(), **found), domain, patch)  # type: ignore[arg-type]
        assert name_of(decision, "unlock_barrier") == decision.barrier
        return str(decision.barrier)

    assert barrier() == "membarrier"
    assert barrier(membarrier=False) == "fence"
    assert barrier(architecture="aarch64") == "fence"
    assert barrier(patch=False) == "fence"
    assert barrier(domain=traits("futex", "fence")) == "fence"
    assert barrier(domain=traits("futex", "membarrier"), patch=False) == "membarrier"


def test_every_choice_is_automatic_for_somebody_or_can_be_asked_for() -> None:
    asked = [parse(f"{c.op}={c.name}") for c in choices() if c.available]
    assert len(asked) == sum(c.available for c in choices())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lock_spinning", "not of the form op=choice"),
        ("lock_spinning=", "not of the form op=choice"),
        ("=futex", "unknown op ''"),
        ("lock_spining=futex", "unknown op 'lock_spining'; there are .*lock_spinning"),
        ("lock_spinning=fast", "unknown choice 'fast' for lock_spinning; there are .*futex"),
        ("lock_spinning=yield,lock_spinning=futex", "given twice"),
        ("lock_spinning=yield,,lock_spinning=yield", "given twice"),
        ("lock_spinning=pause", "unknown choice 'pause' for lock_spinning"),
        ("lock_spinning=futex=yield", "unknown choice 'futex=yield'"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(text: str, says: str) -> None:
    with pytest.raises(errors.UnknownOpError, match=f"PYLOCKS_OPS.*{says}"):
        parse(text)


def test_spaces_and_empty_items_in_a_setting_do_no_harm() -> None:
    asked = parse(" lock_spinning = yield , ,lock_event=counters, ")
    assert {op: choice.name for op, choice in asked.items()} == {
        "lock_spinning": "yield",
        "lock_event": "counters",
    }
    assert parse("") == parse(" , ") == {}


def test_what_the_processor_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    known = tuple(dataclasses.replace(c, available=c.op != "cpu_relax") for c in choices())
    monkeypatch.setattr(sys.modules["pylocks.ops"], "_CHOICES", known)
    for choice in choices("cpu_relax"):
        with pytest.raises(errors.UnknownOpError, match=f"no '{choice.name}' for cpu_relax"):
            parse(f"cpu_relax={choice.name}")
