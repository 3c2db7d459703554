"""Draws docs/top.svg and docs/inspect.svg: python docs/make_screens.py [PNG directory]

A small shop of real processes is opened, looked at as `pylocks top` and `pylocks inspect` look, and
closed again.  With a directory, the pictures are written there as PNG, too, by Chromium if it is there.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console, RenderableType
from rich.terminal_theme import MONOKAI

import pylocks
from pylocks.observe import snapshot
from pylocks.observe.inspect import Inspection
from pylocks.observe.tables import as_text
from pylocks.observe.top import Top

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT = 112, 21
PARTS = {  # program -> (processes, the locks that it uses, seconds inside and between)
    "till.py": (4, ("orders", "stock", "receipts", "rates"), (0.004, 0.002)),
    "warehouse.py": (2, ("stock", "shelves"), (0.012, 0.02)),
    "prices.py": (1, ("prices", "stock"), (0.002, 0.03)),
    "rates.py": (1, ("rates",), (0.05, 0.3)),
    "packing.py": (3, ("tables",), (0.4, 0.02)),
    "nightly.py": (1, ("ledger",), (60.0, 0.1)),
    "audit.py": (2, ("ledger",), (0.001, 0.1)),
}
WORKER = "import sys; sys.path[:0] = {path!r}; import make_screens; make_screens.work({name!r}, {part!r})"


def work(name: str, part: str) -> None:
    """One process of the shop, until it is killed; so may others be a moment before."""
    warnings.simplefilter("ignore", pylocks.OwnerDiedWarning)
    _, wanted, (inside, between) = PARTS[part]
    shop = pylocks.Domain(name)
    locks = [made(lock, shop, part) for lock in wanted]
    choose = random.Random(os.getpid())
    while True:
        with choose.choice(locks):
            time.sleep(inside * choose.uniform(0.2, 1.8))
        time.sleep(between * choose.random())


def made(name: str, shop: pylocks.Domain, part: str) -> AbstractContextManager[object]:
    """What has that name, as one of this part enters it."""
    if name == "rates":
        rates = pylocks.RWLock(name, domain=shop)
        return rates.write if part == "rates.py" else rates.read
    if name == "tables":
        return pylocks.Semaphore(2, name=name, domain=shop, owned=True)
    return pylocks.TicketLock(name, domain=shop, policy="bounded" if name == "stock" else "fifo")


@contextlib.contextmanager
def shop(name: str, folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """All its processes at work, each under the name of its program."""
    started: list[subprocess.Popen[bytes]] = []
    # Called python3 like any other: the pictures show no path of this machine.
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": programs}
    try:
        for part, (count, _, _) in PARTS.items():
            script = folder / part
            script.write_text(WORKER.format(path=[str(HERE), str(HERE.parent)], name=name, part=part))
            for _ in range(count):
                started.append(subprocess.Popen(["python3", script.name], cwd=folder, env=environment))
            time.sleep(0.3)
        yield started
    finally:
        for process in started:
            process.send_signal(signal.SIGKILL)
            process.wait()


def draw(picture: RenderableType, title: str, file: Path, height: int = HEIGHT) -> None:
    """Export what a terminal would show."""
    console = Console(
        record=True, width=WIDTH, height=height, file=io.StringIO(), force_terminal=True, highlight=False
    )
    console.print(picture)
    # The identifiers in the picture are made of this, so the same picture is the same file.
    console.save_svg(str(file), title=title, theme=MONOKAI, unique_id=file.stem)


def looked_at(view: Top | Inspection, looks: int = 3) -> RenderableType:
    """The picture after so many looks, a second apart."""
    for _ in range(looks):
        view.look()
        time.sleep(1)
    return as_text(view.picture(WIDTH, HEIGHT, 2.0))


def as_png(files: list[Path], folder: Path) -> None:
    """Each picture as a browser shows it."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        sys.exit("PNG needs Chromium")
    for file in files:
        target = folder / f"{file.stem}.png"
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
        size = "--window-size=1500,760"
        subprocess.run([browser, *options, size, f"--screenshot={target}", file.as_uri()], check=True)


def main() -> None:
    """Make the pictures."""
    name = "shop" if not (Path("/dev/shm") / "pylocks.shop").exists() else f"shop-{secrets.token_hex(4)}"
    domain = pylocks.Domain(name)
    folder = HERE / f".{name}"
    folder.mkdir()
    views: dict[str, Callable[[], Top | Inspection]] = {
        "top": lambda: Top(name),
        "inspect": lambda: Inspection("ledger", name),
    }
    files = []
    try:
        with shop(name, folder) as processes:
            everybody = sum(count for count, _, _ in PARTS.values())
            while sum(vcpu.alive for vcpu in snapshot(name).vcpus) < everybody:
                time.sleep(0.1)
            stopped = next(process for process in processes if "nightly.py" in process.args)
            stopped.send_signal(signal.SIGSTOP)
            for view, make in views.items():
                picture = looked_at(make())
                files.append(HERE / f"{view}.svg")
                draw(picture, f"pylocks {view}", files[-1])
    finally:
        shutil.rmtree(folder)
        domain.unlink()
    if len(sys.argv) > 1:
        as_png(files, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
