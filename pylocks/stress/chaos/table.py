"""The figures of chaos on a terminal: with rich if it is there, in plain text otherwise."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from .. import terminal, units
from ..results import Row

if TYPE_CHECKING:
    from rich.console import Console


def lines(row: Row) -> list[tuple[str, str, str]]:
    """(what, figure, of which) for each line of a row's table."""
    chaos = row["chaos"]
    after = chaos["after"]
    stall, whole = chaos["stall_ns"], chaos["stall_from_kill_ns"]
    fed = chaos["stall_without_cpu_wait_ns"]

    def spread(how: dict[str, int | None]) -> str:
        return f"p99 {units.duration(how['p99'])}, median {units.duration(how['p50'])}"

    where = (
        f"{chaos['kills_inside']:,} inside a critical section, {chaos['kills_waiting']:,} waiting, "
        f"{chaos['kills_releasing']:,} releasing, {chaos['kills_starting']:,} starting"
    )
    slots = f"through {chaos['vcpu_slots']:,} vCPU slots"
    fresh = f"forks, {chaos['replaced_by_spawn']:,} fresh interpreters, {slots}"
    rate = f"{units.count(row['acquisitions_per_s'])}/s; longest wait {units.duration(row['wait_ns']['max'])}"
    shown = [
        ("killed", f"{chaos['kills']:,}", where),
        ("replaced by", f"{chaos['replaced_by_fork']:,}", fresh),
        ("stopped", f"{chaos['stops']:,}", f"for {units.duration(chaos['stopped_ns'])} in all"),
        ("interrupted", f"{chaos['interrupts']:,}", f"of {chaos['interrupts_sent']:,} signals, in mid-turn"),
        ("timed out", f"{chaos['timeouts']:,}", ""),
        ("owner deaths told", f"{chaos['owner_deaths_reported']:,}", "to the next holder"),
        ("longest stall", units.duration(stall["max"]), f"{spread(stall)}, of {chaos['stalls']:,}"),
        ("from the kill", units.duration(whole["max"]), f"{spread(whole)}, with stops and living holders"),
        ("without CPU waits", units.duration(fed["max"]), f"{spread(fed)}, had holders had a CPU"),
        ("acquisitions", units.count(row["acquisitions"]), rate),
    ]
    if "tombstones" in after:
        left = after["tombstones"], after["slots_of_the_dead"], len(after["not_free"])
        text = "tombstones, slots of the dead, locks not free"
        shown.append(("left in the end", "/".join(map(str, left)), text))
    return shown


def title(row: Row) -> str:
    """What the row was."""
    return (
        f"{row['label']}: {row['processes']} processes, {row['locks']:,} locks, "
        f"{row['seconds']:.1f} s, ended by {row['ended']}"
    )


def closing(result: dict[str, Any]) -> list[str]:
    """What is said below the tables, but the verdict."""
    said = terminal.notes(result)
    if result["verdict"] == "fail":
        said.append(f"the same decisions again, at the machine's timing: {result['options']['command']}")
    return said


def show(result: dict[str, Any], to: IO[str]) -> None:
    """Print the figures of each row, and the verdict."""
    terminal.show(result, to, _rich, _plain)


def _rich(result: dict[str, Any], console: Console) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    for row in result["rows"]:
        console.print()
        console.print(Text(title(row), style="red" if row["violations"] else "bold"))
        if "chaos" not in row:
            continue
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(style="dim")
        for line in lines(row):
            table.add_row(*line)
        console.print(table)
    console.print()
    for text in closing(result):
        console.print(Text(text, style="dim"))


def _plain(result: dict[str, Any], to: IO[str], width: int) -> None:
    for row in result["rows"]:
        print(f"\n{title(row)}", file=to)
        for what, figure, rest in lines(row) if "chaos" in row else []:
            print(f"  {what:18} {figure:>10}  {rest}".rstrip(), file=to)
    print(file=to)
    terminal.fill(closing(result), to, width)
