"""Makes docs/lab.png: the head of the laboratory's page, as a browser shows it.

    python docs/lab_png.py                 # runs all experiments, some minutes
    python docs/lab_png.py report.html     # of a page that there is

Needs Chromium, and pylocks[cli] where pylocks is not the one of this checkout.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT = 1180, 890
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
HEADLESS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--enable-logging=stderr",
)  # fmt: skip


def shoot(browser: str, page: Path, picture: Path, profile: Path) -> None:
    """Write a picture of the page; exits with a message if its console complains."""
    done = subprocess.run(
        [browser, *HEADLESS, f"--window-size={WIDTH},{HEIGHT}", f"--user-data-dir={profile}",
         f"--screenshot={picture}", page.resolve().as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    if done.returncode != 0 or complaints:
        sys.exit("\n".join(complaints) or f"{browser} ended with status {done.returncode}:\n{done.stderr}")


def main() -> None:
    """The command line."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"docs/lab_png.py: none of {', '.join(BROWSERS)} is installed")
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(sys.argv[1]) if sys.argv[1:] else Path(scratch, "lab.html")
        if not sys.argv[1:]:
            command = [sys.executable, "-m", "pylocks", "lab", "--html", str(page)]
            subprocess.run(command, cwd=HERE.parent, check=True)
        shoot(browser, page, HERE / "lab.png", Path(scratch, "profile"))


if __name__ == "__main__":
    main()
