"""The ``pylocks serve`` command: a domain's hypervisor in the foreground."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from typing import Any

from pylocks.policy import PREEMPTION

__all__ = ["add_parser"]


class KeyValue(logging.Formatter):
    """Time, level and what happened, key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        return f"time={_stamp(record)} level={record.levelname.lower()} {record.getMessage()}"


class AsJson(logging.Formatter):
    """The same as an object of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        fields: dict[str, Any] = getattr(record, "fields", {"event": record.getMessage()})
        return json.dumps({"time": _stamp(record), "level": record.levelname.lower(), **fields}, default=str)


def _stamp(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``serve`` to the command line."""
    parser = commands.add_parser(
        "serve",
        help="be the hypervisor of a domain",
        description="Serve a named domain: recover at once what the dead held, mend lost kicks, tell of "
        "stalls, and wake who waits with lock_spinning=hosted. Ends with SIGTERM or SIGINT. "
        "Exit status: 0 stopped, 1 it can't serve, 2 usage.",
    )
    parser.add_argument(
        "domain",
        nargs="?",
        metavar="DOMAIN",
        help='name of the domain; by default the one in which TicketLock("name") looks',
    )
    parser.add_argument("--create", action="store_true", help="make the domain if it does not exist")
    parser.add_argument("--mode", type=_mode, default=0o600, help="of the domain, octal (default: 600)")
    parser.add_argument("--wait", action="store_true", help="take over when the present hypervisor ends")
    parser.add_argument(
        "--stall",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="report a holder that keeps others waiting for so long (default: 10)",
    )
    parser.add_argument(
        "--metrics", metavar="ADDRESS", help="serve figures for Prometheus at 127.0.0.1:PORT or unix:PATH"
    )
    parser.add_argument(
        "--spin",
        default="own",
        metavar="own|auto|off|TIME",
        help="how long waiters spin: as each sees fit (the default), the same but not while participants "
        "queue for CPUs, not at all, or a time such as 50us",
    )
    parser.add_argument(
        "--preemption",
        default="own",
        metavar="|".join(PREEMPTION),
        help="by what waiters tell that a holder does not run; bpf: a PreemptionMonitor, which this process "
        "runs, with the privilege that it needs, unless the user has one (default: own)",
    )
    parser.add_argument("--log-json", action="store_true", help="log objects of JSON instead of key=value")
    parser.set_defaults(run=_run)


def _mode(text: str) -> int:
    try:
        return int(text, 8)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not octal") from None


def _run(given: argparse.Namespace) -> int:
    import pylocks

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(AsJson() if given.log_json else KeyValue())
    logger = logging.getLogger("pylocks.hypervisor")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    name = f"user.{os.geteuid()}" if given.domain is None else given.domain
    try:
        with pylocks.Domain(name, create=given.create, mode=given.mode) as domain:
            pylocks.Hypervisor(
                domain,
                wait=given.wait,
                stall=given.stall,
                metrics=given.metrics,
                spin=given.spin,
                preemption=given.preemption,
            ).serve()
    except (pylocks.PylocksError, OSError, ValueError) as error:
        advice = "; --create makes it" if isinstance(error, pylocks.UnknownDomainError) else ""
        print(f"pylocks serve: {error}{advice}", file=sys.stderr)
        return 1
    finally:
        logger.removeHandler(handler)
    return 0
