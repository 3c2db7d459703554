"""The table of experiments: what is stolen from whom, why, and what is expected to be seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pylocks.bench.bars import Bar
from pylocks.bench.scenarios.interface import Scenario

from .plan import MS, Cell

__all__ = ["EXPERIMENTS", "LINEUP", "Claim", "Experiment", "Setup", "experiment"]

NATIVE, YIELD, FUTEX = "pylocks:native", "pylocks:yield", "pylocks:futex"
BOUNDED, WORK = "pylocks:bounded", "empty"
LINEUP = (NATIVE, YIELD, FUTEX, BOUNDED, WORK)
"""The last is no lock: what its acquisitions cost is the work itself, and all above that is waiting."""
STEAL, PERIOD_NS = 0.5, 20 * MS

FRIEBEL = (
    "T. Friebel and S. Biemueller, How to Deal with Lock Holder Preemption, Xen Summit North America 2008"
)
UHLIG = (
    "V. Uhlig, J. LeVasseur, E. Skoglund and U. Dannowski, Towards Scalable Multiprocessor Virtual "
    "Machines, VM 2004"
)
OUYANG = "J. Ouyang and J. Lange, Preemptable Ticket Spinlocks, VEE 2013"
OUSTERHOUT = "J. Ousterhout, Scheduling Techniques for Concurrent Systems, ICDCS 1982"


@dataclass(frozen=True)
class Claim:
    """One thing that is expected; a run says whether it was so."""

    text: str
    bar: Bar
    quiet: bool = False
    """It can't be told where other programs use the CPUs: they preempt holders, too."""


@dataclass(frozen=True)
class Setup:
    """What a run has to work with."""

    cpus: tuple[int, ...]
    """Of the vCPUs."""
    thief_cpus: tuple[int, ...]
    steal: float | None = None
    """None: what each experiment says."""
    period_ns: int = PERIOD_NS


@dataclass(frozen=True)
class Load:
    """One load of an experiment: a cell of it."""

    factor: int
    """vCPUs for each CPU."""
    inside_ns: int = 2_000
    outside_ns: int = 2_000
    quick: bool = True

    @property
    def cell(self) -> str:
        """Its name."""
        return f"{self.factor}x"


@dataclass(frozen=True)
class Experiment:
    """One row."""

    name: str
    meaning: str
    """In one line."""
    source: str
    """Whose idea or observation it is."""
    expected: str
    """The shape that is expected, for people."""
    aim: str
    """Of plan.AIMS."""
    loads: tuple[Load, ...]
    claims: tuple[Claim, ...]
    """The expected shape, as it can be checked."""

    @property
    def steals(self) -> bool:
        """Whether there is anything to be set by --steal."""
        return self.aim != "nobody"

    def scenario(self, setup: Setup) -> Scenario:
        """For the engine; without cells if there are too few CPUs for contention."""
        steal = (STEAL if setup.steal is None else setup.steal) if self.steals else 0.0
        cells = tuple(
            Cell(
                load.cell,
                load.factor * len(setup.cpus),
                load.inside_ns,
                load.outside_ns,
                pin=load.factor == 1,
                quick=load.quick,
                aim=self.aim,
                steal=steal,
                period_ns=setup.period_ns,
                thief_cpus=setup.thief_cpus,
            )
            for load in self.loads
            if load.factor * len(setup.cpus) > 1
        )
        return Scenario(self.name, self.meaning, cells, LINEUP, NATIVE, module="pylocks.lab.host")


def _spins(scenario: str, cell: str, least: float = 0.9) -> Claim:
    bar = Bar(scenario, cell, NATIVE, "waiting", at_least=least)
    return Claim(f"native spends at least {least:.0%} of its CPU time waiting", bar)


def _gives_back(scenario: str, cell: str, subject: str, most: float) -> Claim:
    bar = Bar(scenario, cell, subject, "cost", at_most=most, against=(NATIVE,))
    name = subject.partition(":")[2]
    return Claim(f"{name} takes at most {most:g} of native's CPU time for an acquisition", bar)


def _idle(scenario: str, cell: str) -> Iterator[Claim]:
    bar = Bar(scenario, cell, FUTEX, "burnt", at_most=0.2, against=(NATIVE,))
    yield Claim("while it is stopped, futex burns at most 0.2 of what native burns", bar)
    bar = Bar(scenario, cell, NATIVE, "burnt", at_least=0.7)
    yield Claim("while it is stopped, native burns at least 0.7 CPUs", bar, quiet=True)
    bar = Bar(scenario, cell, YIELD, "burnt", at_least=0.5, against=(NATIVE,))
    yield Claim("yield gives up only what others want: it burns at least half of that", bar, quiet=True)


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment(
        "no-steal",
        "as many vCPUs as CPUs, and nothing is stolen",
        "the case for which ticket locks were made",
        "All alike: where nobody is preempted there is nothing to cure, and the cure costs nothing.",
        "nobody",
        (Load(1),),
        (
            _gives_back("no-steal", "1x", FUTEX, 1.25),
            _gives_back("no-steal", "1x", BOUNDED, 1.25),
            Claim(
                "native spends at most half of its CPU time waiting",
                Bar("no-steal", "1x", NATIVE, "waiting", at_most=0.5),
                quiet=True,
            ),
        ),
    ),
    Experiment(
        "holder-preempted",
        "whoever holds the lock is stopped for a slice, once a period",
        f"lock-holder preemption: {UHLIG}; {FRIEBEL}",
        "While the holder is stopped native waiters burn whatever CPU they get; enlightened ones sleep.",
        "holder",
        # Longer at 2x: of a native lock that has collapsed, a holder that is inside for 2 us in some ms is
        # hardly ever caught.
        (Load(1), Load(2, 100_000, 20_000)),
        (
            *_idle("holder-preempted", "1x"),
            _gives_back("holder-preempted", "1x", FUTEX, 0.9),
            _spins("holder-preempted", "2x"),
            _gives_back("holder-preempted", "2x", FUTEX, 0.25),
            _gives_back("holder-preempted", "2x", BOUNDED, 0.25),
        ),
    ),
    Experiment(
        "next-ticket-preempted",
        "the next in line is stopped until a slice after its turn has come, once a period",
        f"lock-waiter preemption, which only fair locks know: {FRIEBEL}; {OUYANG}",
        "As with the holder, though the lock is free: under strict order only the next ticket may take it.",
        "next",
        (Load(1), Load(2)),
        (
            *_idle("next-ticket-preempted", "1x"),
            _gives_back("next-ticket-preempted", "1x", FUTEX, 0.9),
            _spins("next-ticket-preempted", "2x"),
            _gives_back("next-ticket-preempted", "2x", FUTEX, 0.25),
            Claim(
                "bounded goes on meanwhile: others pass, a thousand times a second at least",
                Bar("next-ticket-preempted", "2x", BOUNDED, "passed", at_least=1_000),
                quiet=True,
            ),
        ),
    ),
    Experiment(
        "overcommit",
        "more vCPUs than CPUs; only the kernel's scheduler preempts",
        f"{FRIEBEL}: more virtual CPUs than processors",
        "Native collapses: nearly all its CPU time is spinning for vCPUs that wait for a CPU.",
        "nobody",
        (Load(2, quick=False), Load(4)),
        (
            _spins("overcommit", "4x"),
            _gives_back("overcommit", "4x", YIELD, 0.5),
            _gives_back("overcommit", "4x", FUTEX, 0.25),
            _gives_back("overcommit", "4x", BOUNDED, 0.25),
        ),
    ),
    Experiment(
        "steal-independent",
        "every vCPU is stopped for a slice of each period, at a time of its own",
        f"a hypervisor that schedules vCPUs one by one: {UHLIG}",
        "Native spins for those who are stopped; enlightened waiters leave the CPU to others.",
        "independent",
        (Load(1),),
        (_gives_back("steal-independent", "1x", FUTEX, 0.9),),
    ),
    Experiment(
        "steal-gang",
        "all vCPUs are stopped together for a slice of each period",
        f"co-scheduling: {OUSTERHOUT}",
        "As if nothing was stolen: who is stopped keeps nobody waiting who runs.",
        "gang",
        (Load(1),),
        (
            _gives_back("steal-gang", "1x", FUTEX, 1.25),
            Claim(
                "native spends at most half of its CPU time waiting",
                Bar("steal-gang", "1x", NATIVE, "waiting", at_most=0.5),
                quiet=True,
            ),
        ),
    ),
    Experiment(
        "steal-quota",
        "the vCPUs share a control group whose quota leaves them half of each period",
        "CPU limits of containers",
        "Spinning uses up the quota of those who have work to do: native does next to nothing with it.",
        "quota",
        (Load(2),),
        (_spins("steal-quota", "2x"), _gives_back("steal-quota", "2x", FUTEX, 0.25)),
    ),
)


def experiment(name: str) -> Experiment:
    """The experiment of that name; LookupError."""
    for found in EXPERIMENTS:
        if found.name == name:
            return found
    raise LookupError(f"no scenario {name!r}; there are {', '.join(one.name for one in EXPERIMENTS)}")
