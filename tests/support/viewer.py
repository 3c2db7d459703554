"""chrome://tracing's viewer in a real browser: what it makes of a timeline.

The viewer is the one page that Go ships for its own traces (Debian: golang-1.19-src, or another version;
TRACE_VIEWER names a folder with trace_viewer_full.html and webcomponents.min.js), the browser is Chromium,
headless.  A small page loads a file into the viewer and sends back what the viewer's model holds.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LIMIT_S = 90
DRAW_S = 2
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FILES = ("trace_viewer_full.html", "webcomponents.min.js")
FOLDERS = ("usr/share/go-*/src/cmd/trace/static", "usr/share/go-*/misc/trace", "usr/local/go/misc/trace")
HEADLESS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)  # fmt: skip

PAGE = """<html><head><title>timeline</title><script src="/webcomponents.min.js"></script>
<link rel="import" href="/trace_viewer_full.html">
<style>html, body { margin: 0; height: 100%; overflow: hidden } #viewer { width: 100%; height: 100% }
tr-ui-b-info-bar-group, tr-ui-b-mouse-mode-selector, tr-ui-a-analysis-view { display: none }</style>
<script>
document.addEventListener('WebComponentsReady', async function() {
  try {
    const container = document.createElement('track-view-container');
    container.id = 'track_view_container';
    const viewer = document.createElement('tr-ui-timeline-view');
    viewer.track_view_container = container;
    Polymer.dom(viewer).appendChild(container);
    viewer.id = 'viewer';
    viewer.globalMode = true;
    Polymer.dom(document.body).appendChild(viewer);
    const text = await (await fetch('/timeline')).text();
    const model = new tr.Model();
    const options = new tr.importer.ImportOptions();
    options.shiftWorldToZero = false;
    await new tr.importer.Import(model, options).importTracesWithProgressDialog([text]);
    viewer.model = model;
    viewer.viewTitle = document.title;
    viewer.trackView.viewport.showFlowEvents = true;
    tell({
      slices: model.getAllThreads().flatMap(thread => [...thread.sliceGroup.slices].map(slice => ({
        process: thread.parent.name, pid: thread.parent.pid, thread: thread.name, tid: thread.tid,
        name: slice.title, category: slice.category, start: slice.start, end: slice.end,
        inside: slice.parentSlice ? slice.parentSlice.title : null, args: slice.args}))),
      flows: model.flowEvents.map(flow => ({name: flow.title, from: flow.startSlice && flow.startSlice.title,
        to: flow.endSlice && flow.endSlice.title, start: flow.start, end: flow.start + flow.duration})),
      warnings: model.importWarnings.map(warning => warning.message)});
  } catch (error) { tell({failed: String(error && error.stack || error)}); }
});
function tell(what) { fetch('/told', {method: 'POST', body: JSON.stringify(what)}); }
</script></head><body><img src="/drawn" hidden></body></html>"""


def folder() -> Path | None:
    """Where the viewer lies."""
    given = os.environ.get("TRACE_VIEWER")
    found = [Path(given)] if given else [path for each in FOLDERS for path in sorted(Path("/").glob(each))]
    return next((path for path in found if all((path / name).is_file() for name in FILES)), None)


def browser() -> str | None:
    """Its program."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def missing() -> str:
    """Why no timeline can be opened here; "" if one can be."""
    if browser() is None:
        return f"none of {', '.join(BROWSERS)} is installed"
    if folder() is None:
        return "no trace viewer is installed (Debian: golang-1.19-src), and TRACE_VIEWER names none"
    return ""


@contextmanager
def serving(timeline: Path) -> Iterator[tuple[str, queue.SimpleQueue[Any]]]:
    """The page's address on loopback, and what it tells."""
    viewer = folder()
    assert viewer is not None
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    read = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            kind = "text/javascript" if name.endswith(".js") else "text/html"
            if name == "":
                data = PAGE.encode()
            elif name == "timeline":
                data = timeline.read_bytes()
            elif name in FILES:
                data = (viewer / name).read_bytes()
            else:  # /drawn: who waits for the page to be complete waits for the viewer
                read.wait(LIMIT_S)
                time.sleep(DRAW_S)
                data = b""
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            read.set()
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", told
    finally:
        read.set()
        server.shutdown()
        server.server_close()
        thread.join()


def opened(timeline: Path) -> dict[str, Any]:
    """What the viewer's model holds of the file."""
    program = browser()
    assert program is not None
    with serving(timeline) as (address, told), tempfile.TemporaryDirectory() as profile:
        process = subprocess.Popen(
            [program, *HEADLESS, f"--user-data-dir={profile}", "--remote-debugging-port=0", address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            found: dict[str, Any] = told.get(timeout=LIMIT_S)
        finally:
            os.killpg(process.pid, 9)
            process.wait()
    assert "failed" not in found, found["failed"]
    return found


def shoot(timeline: Path, picture: Path, width: int, height: int) -> None:
    """What the viewer shows of the file, as PNG."""
    program = browser()
    assert program is not None
    with serving(timeline) as (address, told), tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [program, *HEADLESS, f"--user-data-dir={profile}", f"--window-size={width},{height}",
             f"--screenshot={picture}", address],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=LIMIT_S,
        )  # fmt: skip
        found = told.get(timeout=LIMIT_S)
    assert "failed" not in found, found["failed"]
