"""`pylocks bench`: what it saves, compares, draws, prints and refuses."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from support import run as runs
from support.figures import result, sample
from support.wait import until

import pylocks
from pylocks import cli
from pylocks.bench import bars, compare, report, results, targets
from pylocks.bench.scenarios import SCENARIOS
from pylocks.bench.settings import SETTINGS

SMALL = (
    "bench",
    "fairness",
    "--quick",
    "--rounds",
    "2",
    "--seconds",
    "0.02",
    "--cells",
    "8",
    "--no-progress",
)
SUBJECTS_OF_SMALL = ("--subjects", "pylocks,ticket_yield,pthread_mutex")


def command(*words: str | Path) -> int:
    return cli.main([str(word) for word in words])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run, as --json writes it."""
    path = tmp_path_factory.mktemp("bench") / "saved.json"
    assert command(*SMALL, *SUBJECTS_OF_SMALL, "--json", path) == 0
    return path


def test_a_run_is_saved_with_samples_host_and_warnings(saved: Path) -> None:
    told = json.loads(saved.read_text())
    assert told["schema"] == results.SCHEMA and told["pylocks"] == pylocks.__version__
    assert told["host"]["cpus"] == os.cpu_count() and told["compiler"]
    assert isinstance(told["warnings"], list) and told["options"]["rounds"] == 2
    cells = told["scenarios"]["fairness"]["cells"]
    assert set(cells["8:greedy"]) == {"pylocks", "ticket_yield", "pthread_mutex"}
    assert all(len(samples) == 2 for samples in cells["8:greedy"].values())


def test_a_run_is_compared_with_a_saved_one(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*SMALL, "--subjects", "pylocks,ticket_yield", "--compare", saved) == 0
    shown = capsys.readouterr().out
    assert "this run against saved.json" in shown


def test_rates_are_compared_as_they_are_and_by_the_reference() -> None:
    """Twice as fast as before on a machine that is twice as fast is the same."""
    now = result({"8:S": {"pylocks": [sample(rate=8.0, max=3.0)], "ticket_yield": [sample(rate=4.0)]}})
    then = result({"8:S": {"pylocks": [sample(rate=4.0, max=2.0)], "ticket_yield": [sample(rate=2.0)]}})
    (table,) = compare.tables(now, then, "before")
    assert table.rows[0] == ("8:S pylocks", "8", "4", "2.00", "1.00", "1.50")


def test_two_installations_are_measured_in_the_same_rounds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other one by a path of its own, here a link to this one."""
    checkout = tmp_path / "other"
    checkout.mkdir()
    (checkout / "pylocks").symlink_to(Path(pylocks.__file__).parent)
    (checkout / "csrc").symlink_to(Path(pylocks.get_include()).parent)
    out = tmp_path / "ab.json"
    words = (*SMALL, "--subjects", "pylocks,ticket_yield", "--against", checkout, "--json", out)
    assert command(*words) == 0
    assert "here / other" in capsys.readouterr().out
    cells = json.loads(out.read_text())["scenarios"]["fairness"]["cells"]["8:greedy"]
    assert set(cells) == {"pylocks", "pylocks@other", "ticket_yield"}
    assert len(cells["pylocks"]) == len(cells["pylocks@other"]) == 2


def test_an_interpreter_is_a_target() -> None:
    """Which finds its pylocks by itself: where there is none, that is said."""
    try:
        target = targets.other(sys.executable)
    except targets.BadTargetError as error:
        assert "can't be imported" in str(error)
    else:
        assert target.interpreter == sys.executable and not target.path


DRAW = """
import json, sys
from pylocks.bench import charts
told = json.load(open(sys.argv[1]))
for name in sys.argv[2:]:
    charts.save(told, name)
print(json.dumps(charts.lines(*charts.merged(told), "S", "rate")))
"""


def test_pictures_show_every_subject(saved: Path, tmp_path: Path) -> None:
    """In a process of its own: matplotlib keeps its fonts open."""
    pytest.importorskip("matplotlib")
    told = json.loads(saved.read_text())
    cell = {name: [sample(rate=5.0, max=1e6)] for name in ("pylocks", "ticket_yield", "sem_t")}
    told["scenarios"] = result({"8:S": cell, "64:S": cell})["scenarios"]
    run_file = saved_as(tmp_path, json.dumps(told))
    pictures = {"p.png": b"\x89PNG", "p.svg": b"<?xml"}
    lines = json.loads(runs.python("-c", DRAW, run_file, *(tmp_path / name for name in pictures)).check())
    for name, start in pictures.items():
        assert (tmp_path / name).read_bytes().startswith(start)
    assert {name: counts for name, (counts, _) in lines.items()} == {name: [8, 64] for name in cell}


def test_the_figures_stand_together_in_every_row(saved: Path) -> None:
    told = json.loads(saved.read_text())
    (table,) = report.tables(told)
    assert table.header[1:9] == ("acq/s", "Jain", "p50", "p99", "p99.9", "max", "CPUs", "switches")
    assert all(all(row[:9]) for row in table.rows) and len(table.rows) == 3


def test_what_pylocks_counted_is_shown() -> None:
    """Only events that somebody had."""
    counted = [sample(events={"kicks": 1.0, "parks": 0.0})]
    run_of = result({"8": {"pylocks:counted": counted, "sem_t": [sample()]}}, "parked")
    *_, events = report.tables({**run_of, "options": {"against": None}})
    assert (events.header, events.rows) == (("", "kicks"), (("8 pylocks:counted", "1"),))


def test_bars_are_shown_with_what_became_of_them() -> None:
    """Met, missed, and those that could not be judged."""
    cell = {"pylocks": [sample(rate=2.0, jain=0.5)], "ticket_yield": [sample(rate=1.0)]}
    verdicts = [asdict(verdict) for verdict in bars.judge(result({"8:S": cell}))]
    shown = {row[0]: (row[1], row[3], row[4]) for row in report.bars(verdicts).rows}
    assert shown["overcommit 8:S pylocks: rate / ticket_yield"] == ("2", "≥ 1", "met")
    assert shown["overcommit 8:S pylocks: jain"] == ("0.5", "≥ 0.99", "MISSED")
    assert shown["overcommit 8:S pylocks: rate / the best peer"] == ("", "≥ 0.95", "not measured")


def test_tables_are_plain_without_rich(saved: Path) -> None:
    """The same text, from a process that can't import rich."""
    script = (
        "import json, sys\nsys.modules['rich'] = None\nfrom pylocks.bench import report\n"
        "report.show(json.load(open(sys.argv[1])), sys.stdout)"
    )
    shown = runs.python("-c", script, saved).check()
    for word in ("acq/s", "Jain", "ticket_yield", "pthread_mutex"):
        assert word in shown


def test_json_on_standard_output_is_alone_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*SMALL, "--subjects", "ticket_yield", "--rounds", "1", "--json", "-") == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["schema"] == results.SCHEMA and "Jain" in told.err


def test_a_missed_bar_is_a_failure_only_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    impossible = bars.Bar("fairness", "8:greedy", "ticket_yield", "rate", at_least=1e12)
    monkeypatch.setattr(bars, "BARS", (impossible,))
    words = (*SMALL, "--subjects", "ticket_yield", "--rounds", "1")
    assert command(*words) == 0
    assert command(*words, "--check") == 1


def test_the_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("bench", "--list") == 0
    shown = capsys.readouterr().out
    for one in SCENARIOS:
        assert one.meaning in shown and all(name in shown for name in one.lineup)


def saved_as(folder: Path, text: str) -> Path:
    (folder / "run.json").write_text(text)
    return folder / "run.json"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "no scenario 'nonsense'; there are uncontended"),
        (["two", "--subjects", "nonsense"], "no subject 'nonsense'"),
        (["two", "--subjects", "flock"], "flock takes no part in two"),
        (["two", "--subjects", "ttas,,"], "a name is missing between commas"),
        (["two", "--cells", "9:S"], "there is no 9:S in 2:S"),
        (["two", "--rounds", "0"], "--rounds: 0 is not between"),
        (["two", "--rounds", "many"], "invalid int value"),
        (["two", "--seconds", "0"], "--seconds: 0 is not between"),
        (["two", "--seconds", "nan"], "--seconds: nan is not between"),
        (["two", "--json", "/no/such/place/out.json"], "there is no directory /no/such/place"),
        (["two", "--json", "/"], "is a directory"),
        (["two", "--plot", "out.gif"], "must end in .png or .svg"),
        (["death", "--plot", "out.png"], "--plot draws"),
        (["two", "--compare", "/no/such/file"], "No such file"),
        (["two", "--against", "/no/such/place"], "neither a checkout"),
        (["two", "--against", "/etc/passwd"], "neither a checkout"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_are_refused(words: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command("bench", *words)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[]", "was not written by pylocks bench"),
        ('{"schema": 1}', "was not written by pylocks bench"),
        ('{"schema": 99, "scenarios": {}, "options": {}, "host": {}}', "has format 99"),
    ],
)
def test_a_bad_saved_run_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(compare.BadFileError, match=said):
        compare.load(saved_as(tmp_path, text))


def test_a_checkout_that_was_not_built_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pylocks").mkdir()
    (tmp_path / "pylocks" / "__init__.py").write_text("from pylocks import _lock\n")
    with pytest.raises(targets.BadTargetError, match=r"can't be imported.*build it first"):
        targets.other(str(tmp_path))


def test_another_interpreter_without_pylocks_is_refused(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho no module >&2\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(targets.BadTargetError, match=r"no module.*install pylocks"):
        targets.other(str(fake))


def test_ctrl_c_ends_a_run_and_leaves_nobody() -> None:
    """Neither the processes of the subjects nor their workers."""
    words = ("-m", "pylocks", "bench", "fairness", "--rounds", "1000", "--cells", "8", "--no-progress")
    with runs.Interactive(*words) as process:
        us = psutil.Process(process.pid)
        until(lambda: len(us.children(recursive=True)) > len(us.children()) > 0, "workers of a subject")
        os.kill(process.pid, signal.SIGINT)
        assert process.wait() == 130
        assert not runs.end_session(process.pid), "somebody stayed"


def test_settings_are_told_apart() -> None:
    """Each process is told its own, and nothing that this one is told about pylocks."""
    for setting in SETTINGS:
        told = {name: value for name, value in setting.environment().items() if name.startswith("PYLOCKS_")}
        assert told == setting.variables
