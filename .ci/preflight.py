"""Say in one line what is missing before anything can be built; print nothing if all is there.

The Makefile runs this with whatever python3 is, so it must parse under very old ones too.
"""

import os
import shlex
import subprocess
import sys
import tempfile

SOURCE = """
#include <Python.h>
#include <linux/futex.h>
int main(void) { return FUTEX_WAIT_BITSET == 9 ? 0 : 1; }
"""

TOO_OLD = "Python 3.10 or later is needed, and %s is %s: name another, as in `make test PYTHON=python3.12`."
NO_VENV = (
    "%s can't make virtual environments: install its venv and ensurepip modules "
    "(Debian and Ubuntu: the package python%s-venv)."
)
NO_COMPILER = "no C compiler (%s: %s): install gcc or clang, or set CC."
NO_PYTHON_H = (
    "no Python.h in %s: install the headers of this Python "
    "(Debian and Ubuntu: the package python%s-dev; Fedora: python3-devel)."
)
BROKEN_COMPILER = (
    "%s can't compile a program that includes Python.h and linux/futex.h (%s): install the headers "
    "of the C library and of Linux (Debian and Ubuntu: the package libc6-dev)."
)


def problem():
    """The first obstacle as a sentence, or None."""
    version = "%d.%d" % sys.version_info[:2]
    if not sys.platform.startswith("linux"):
        return "pylocks runs on Linux only; this is %s." % sys.platform
    if sys.version_info < (3, 10):
        return TOO_OLD % (sys.executable, version)
    try:
        import ensurepip
        import sysconfig
        import venv  # noqa: F401

        ensurepip.version()
    except Exception:  # distributions leave out these modules, or what they need, in several ways
        return NO_VENV % (sys.executable, version)
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    include = sysconfig.get_path("include")
    with tempfile.NamedTemporaryFile("w", suffix=".c") as source:
        source.write(SOURCE)
        source.flush()
        try:
            outcome = subprocess.run(
                compiler + ["-fsyntax-only", "-I", include, source.name],
                capture_output=True,
                text=True,
            )
        except OSError as error:
            return NO_COMPILER % (compiler[0], error.strerror)
    if outcome.returncode == 0:
        return None
    if not os.path.exists(os.path.join(include, "Python.h")):
        return NO_PYTHON_H % (include, version)
    errors = [line for line in outcome.stderr.splitlines() if "error" in line]
    return BROKEN_COMPILER % (compiler[0], errors[0] if errors else outcome.stderr.strip())


if __name__ == "__main__":
    found = problem()
    sys.exit("pylocks: " + found if found else 0)
