"""Draws the diagrams of docs/start/concepts.md: python docs/make_diagrams.py [FOLDER]

By default into docs/diagrams, from where the site takes them; a test holds them to this file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
INK, SOFT, LINE = "#1f2933", "#616e7c", "#9aa5b1"
BLUE, GREEN, AMBER, GREY, RED = "#dbeafe", "#d8f3e3", "#fdeccb", "#eef1f4", "#fbdcdc"
FONT = "font-family='DejaVu Sans, Verdana, sans-serif'"
MONO = "font-family='DejaVu Sans Mono, Menlo, monospace'"


class Drawing:
    """Shapes with text, written as SVG."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.size, self.title = (width, height), title
        self.parts: list[str] = []

    def box(self, x: float, y: float, w: float, h: float, fill: str = GREY, edge: str = LINE) -> None:
        """A rectangle."""
        self.parts.append(
            f"<rect x='{x}' y='{y}' width='{w}' height='{h}' rx='5' fill='{fill}' stroke='{edge}'/>"
        )

    def text(
        self, x: float, y: float, words: str, size: float = 13, *, colour: str = INK, at: str = "middle",
        mono: bool = False, bold: bool = False,
    ) -> None:  # fmt: skip
        """A line of text whose base is at y."""
        font = MONO if mono else FONT
        weight = " font-weight='bold'" if bold else ""
        self.parts.append(
            f"<text x='{x}' y='{y}' {font} font-size='{size}' fill='{colour}' text-anchor='{at}'{weight}"
            f" xml:space='preserve'>{escape(words)}</text>"
        )

    def arrow(
        self, x: float, y: float, to_x: float, to_y: float, colour: str = INK, dashed: bool = False
    ) -> None:
        """A straight line with a head."""
        dash = " stroke-dasharray='5 4'" if dashed else ""
        self.parts.append(
            f"<line x1='{x}' y1='{y}' x2='{to_x}' y2='{to_y}' stroke='{colour}' stroke-width='1.6'{dash}"
            " marker-end='url(#head)'/>"
        )

    def line(self, x: float, y: float, to_x: float, to_y: float) -> None:
        """A thin one."""
        self.parts.append(f"<line x1='{x}' y1='{y}' x2='{to_x}' y2='{to_y}' stroke='{LINE}'/>")

    def labelled(self, x: float, y: float, w: float, h: float, fill: str, *lines: str) -> None:
        """A box with a bold first line, the others smaller beneath."""
        self.box(x, y, w, h, fill)
        top = y + (h - 17 * len(lines)) / 2 + 13
        for i, words in enumerate(lines):
            self.text(x + w / 2, top + 17 * i, words, 13 if i == 0 else 12, bold=i == 0,
                      colour=INK if i == 0 else SOFT)  # fmt: skip

    def svg(self) -> str:
        """The whole picture."""
        width, height = self.size
        head = (
            "<marker id='head' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' markerHeight='7'"
            f" orient='auto-start-reverse'><path d='M0 0 10 5 0 10z' fill='{INK}'/></marker>"
        )
        return "\n".join(
            [
                f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}'"
                f" height='{height}' role='img'>",
                f"<title>{escape(self.title)}</title>",
                f"<defs>{head}</defs>",
                f"<rect width='{width}' height='{height}' fill='#ffffff'/>",
                *self.parts,
                "</svg>\n",
            ]
        )


def domain() -> Drawing:
    """Threads, the segment, the service."""
    d = Drawing(820, 330, "A domain: processes whose threads are vCPUs, one shared segment, a service")
    for i, (process, threads) in enumerate((("orders.py", 2), ("orders.py", 1), ("report.py", 1))):
        y = 20 + i * 102
        d.box(20, y, 170, 88, "#ffffff")
        d.text(105, y + 20, f"process {process}", 12, colour=SOFT)
        for t in range(threads):
            x = 105 + (t - (threads - 1) / 2) * 78
            d.labelled(x - 36, y + 32, 72, 42, BLUE, "vCPU", "a thread")
        d.arrow(192, y + 53, 252, y + 53)
    d.box(256, 20, 330, 292, "#ffffff", INK)
    d.text(421, 42, "the domain: a segment of shared memory", 13, bold=True)
    rows = (
        ("header", "protocol, layout version, geometry", GREY),
        ("vCPU table", "alive? waits for what?", BLUE),
        ("lock cells", "tail, head, owner, slow: 32 bytes", GREEN),
        ("event channels", "what sleepers sleep on", AMBER),
        ("tombstones", "tickets that were abandoned", RED),
        ("directory", "names of locks", GREY),
    )
    for i, (name, what, fill) in enumerate(rows):
        y = 56 + i * 42
        d.box(272, y, 298, 36, fill)
        d.text(284, y + 23, name, 13, at="start", bold=True)
        d.text(562, y + 23, what, 11, at="end", colour=SOFT)
    d.labelled(650, 70, 150, 76, "#ffffff", "the hypervisor", "a service; optional:", "recovers at once")
    d.arrow(648, 108, 590, 108, dashed=True)
    d.labelled(650, 196, 150, 76, "#ffffff", "observers", "top, inspect, ...:", "read, and no more")
    d.arrow(648, 234, 590, 234, dashed=True)
    return d


def tickets() -> Drawing:
    """A cell and its queue."""
    d = Drawing(820, 270, "A lock cell and its queue of tickets")
    words = (
        ("head", "42", "the ticket now served"),
        ("tail", "47", "the next to hand out"),
        ("owner", "42, vCPU 3", "who is inside"),
        ("slow", "1", "somebody sleeps or left"),
    )
    for i, (name, value, what) in enumerate(words):
        x = 20 + i * 198
        d.box(x, 16, 186, 74, GREEN)
        d.text(x + 93, 35, name, 13, mono=True, colour=SOFT)
        d.text(x + 93, 58, value, 18, mono=True, bold=True)
        d.text(x + 93, 79, what, 11, colour=SOFT)
    queue = (
        ("42", "holds the lock", "vCPU 3", GREEN),
        ("43", "awake, comes next", "vCPU 0", BLUE),
        ("44", "sleeps", "vCPU 7", AMBER),
        ("45", "abandoned", "left a tombstone", RED),
        ("46", "sleeps", "vCPU 1", AMBER),
    )
    for i, (number, state, who, fill) in enumerate(queue):
        x = 20 + i * 132
        d.box(x, 150, 122, 90, fill)
        d.text(x + 61, 178, number, 20, mono=True, bold=True)
        d.text(x + 61, 204, state, 12)
        d.text(x + 61, 224, who, 12, colour=SOFT)
    d.parts.append(
        f"<rect x='680' y='150' width='122' height='90' rx='5' fill='none' stroke='{LINE}'"
        " stroke-dasharray='5 4'/>"
    )
    d.text(741, 178, "47", 20, mono=True, colour=SOFT)
    d.text(741, 204, "who comes now:", 12, colour=SOFT)
    d.text(741, 224, "one atomic add", 12, colour=SOFT)
    d.arrow(81, 92, 81, 146)
    d.text(90, 124, "head: served in order", 11, colour=SOFT, at="start")
    d.line(311, 92, 311, 120)
    d.line(311, 120, 741, 120)
    d.arrow(741, 120, 741, 146)
    d.text(732, 138, "tail", 11, colour=SOFT, at="end")
    return d


def kick() -> Drawing:
    """The way of a kick, and why it can't be lost."""
    d = Drawing(820, 420, "Going to sleep and being kicked: the order of steps on both sides")
    left, right = 170, 650
    d.labelled(left - 130, 14, 260, 44, BLUE, "waiter, with ticket 43")
    d.labelled(right - 130, 14, 260, 44, GREEN, "holder of ticket 42, releasing")
    for x in (left, right):
        d.line(x, 58, x, 404)
    waiter = (
        (84, "1  read the channel's sequence number", "#ffffff"),
        (126, "2  count itself as parked there", AMBER),
        (168, "3  raise the lock's slow flag; fence", AMBER),
        (210, "4  look at head again: 43? then go in", BLUE),
        (252, "5  futex wait, while the number is that", "#ffffff"),
        (358, "6  awake: look at head, go in", BLUE),
    )
    unlocker = (
        (126, "a  head = 43; fence", GREEN),
        (190, "b  look at slow: 0? then done", AMBER),
        (252, "c  anybody parked on 43's channel?", AMBER),
        (304, "d  sequence number + 1; futex wake one", "#ffffff"),
    )
    for x, steps in ((left, waiter), (right, unlocker)):
        for y, words, fill in steps:
            d.box(x - 155, y, 310, 32, fill)
            d.text(x - 145, y + 21, words, 12.5, at="start")
    d.arrow(right - 157, 142, left + 157, 220, dashed=True)
    d.arrow(left + 157, 180, right - 157, 204, dashed=True)
    d.arrow(right - 157, 322, left + 157, 368)
    d.text(410, 142, "either 4 sees a", 12, colour=SOFT)
    d.text(410, 246, "or b sees 3", 12, colour=SOFT)
    d.text(410, 332, "the kick", 13, bold=True)
    return d


def patch() -> Drawing:
    """What becomes of a site."""
    d = Drawing(820, 310, "A patch site: six bytes, and the three things that they become")

    def row(x: float, y: float, bytes_: str, fill: str, padding: int = 0) -> None:
        for i, byte in enumerate(bytes_.split()):
            d.box(x + i * 36, y, 34, 30, fill if i < 6 - padding else GREY)
            d.text(x + i * 36 + 17, y + 20, byte, 13, mono=True)

    d.text(300, 32, "as compiled: an indirect call, right before any patching", 13, at="start", bold=True)
    row(300, 44, "ff 15 35 92 00 00", AMBER)
    d.text(300, 94, "call *ops+unlock_kick(%rip)", 12, mono=True, colour=SOFT, at="start")
    columns = (
        (30, "a direct call", "e8 6e 22 fe ff 90", GREEN, 1, "call kick; nop"),
        (300, "an inline instruction", "f3 90 0f 1f 40 00", BLUE, 4, "pause; nop"),
        (570, "a nop", "66 0f 1f 44 00 00", GREY, 0, "nopw 0(%rax,%rax)"),
    )
    for x, title, raw, fill, padding, code in columns:
        d.arrow(407, 104, x + 107, 166)
        d.text(x, 190, title, 13, at="start", bold=True)
        row(x, 202, raw, fill, padding)
        d.text(x, 252, code, 12, mono=True, colour=SOFT, at="start")
    why = "chosen when a process first attaches: a setting, else the domain's, else what the machine is"
    d.text(410, 292, why, 12.5, colour=SOFT)
    return d


DRAWINGS: dict[str, Callable[[], Drawing]] = {
    "domain": domain, "tickets": tickets, "kick": kick, "patch": patch
}  # fmt: skip


def main() -> None:
    """Write them."""
    folder = Path(sys.argv[1]) if sys.argv[1:] else HERE / "diagrams"
    folder.mkdir(exist_ok=True)
    for name, draw in DRAWINGS.items():
        (folder / f"{name}.svg").write_text(draw().svg())


if __name__ == "__main__":
    main()
