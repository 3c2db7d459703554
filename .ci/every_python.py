"""Run `make test` with every Python that is installed; `make test-all` runs this.

python .ci/every_python.py [PYTHON...]: these, or else the newest of each version that is to be found on
PATH and where version managers keep them.  Each has a virtual environment of its own.  The last lines
are a table; the exit status is 0 if all that are there have passed.
"""

import glob
import os
import re
import subprocess
import sys

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.13t", "3.14", "3.14t")
EXPECTED = ("3.10", "3.11", "3.12", "3.13")
"""What the classifiers in pyproject.toml name; a missing one is said."""
PLACES = (
    ("PYENV_ROOT", "~/.pyenv", "versions/{0}*/bin/python{0}"),
    ("UV_PYTHON_INSTALL_DIR", "~/.local/share/uv/python", "cpython-{1}*/bin/python{0}"),
    ("ASDF_DATA_DIR", "~/.asdf", "installs/python/{1}*/bin/python{0}"),
    ("MISE_DATA_DIR", "~/.local/share/mise", "installs/python/{1}*/bin/python{0}"),
    ("MANYLINUX_PYTHONS", "/opt/python", "cp{2}*/bin/python{0}"),
)
"""(variable that says where a version manager keeps them, else this folder, pattern below it)."""

ASK = (
    "import sys, sysconfig; print('%d.%d%s %s %s' % (sys.version_info[:2]"
    " + ('t' if sysconfig.get_config_var('Py_GIL_DISABLED') else '', sys.version.split()[0],"
    " sys.implementation.name)))"
)


def version_of(python):
    """("3.13t", "3.13.1") of a CPython that runs, else None: a shim may be of one that is switched off."""
    try:
        done = subprocess.run([python, "-c", ASK], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.split()
    return (words[0], words[1]) if done.returncode == 0 and words[2:] == ["cpython"] else None


def candidates(version):
    """Where a version may be: the one on PATH first, then the newest that is installed."""
    plain = version.rstrip("t")
    yield "python" + version
    for variable, folder, pattern in PLACES:
        below = os.path.expanduser(os.environ.get(variable) or folder)
        found = glob.glob(os.path.join(below, pattern.format(version, plain, plain.replace(".", ""))))
        yield from sorted(found, key=lambda path: [int(n) for n in re.findall(r"\d+", path)], reverse=True)


def find(version):
    """(command, full version), or None."""
    for python in candidates(version):
        said = version_of(python)
        if said is not None and said[0] == version:
            return python, said[1]
    return None


def chosen(named):
    """(version, command or "", full version) of each that is to be tested, or is missed."""
    if named:
        for python in named:
            said = version_of(python)
            yield (said[0], python, said[1]) if said is not None else (python, "", "")
        return
    for version in VERSIONS:
        found = find(version)
        if found is not None:
            yield (version, *found)
        elif version in EXPECTED:
            yield version, "", ""


def test(python):
    """Run the tests; (exit status, pytest's last line)."""
    make = [os.environ.get("MAKE", "make"), "--no-print-directory", "test", "PYTHON=" + python]
    # What this make was told is for this make, but for ARGS and WORKERS, which are named.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS")}
    make += [name + "=" + os.environ[name] for name in ("ARGS", "WORKERS") if name in os.environ]
    process = subprocess.Popen(
        make, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace"
    )
    last = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        if re.search(r"\b(passed|failed|error|errors|skipped|no tests ran)\b.* in [\d.]+s", line):
            last = line.strip(" =\n")
    return process.wait(), last


def main(named):
    """Test one after the other; 0: all passed, 1: one has not, 2: there was none."""
    rows, status = [], 0
    for version, python, full in chosen(named):
        if not python:
            rows.append((version, "", "can't be run" if named else "not installed"))
            status = max(status, 1 if named else 0)
            continue
        print(f"== Python {full}{'t' if version.endswith('t') else ''}: {python}", flush=True)
        code, last = test(python)
        rows.append((version, full, last if code == 0 else "FAILED: " + (last or "before any test")))
        status = max(status, 1 if code else 0)
    print()
    for version, full, said in rows:
        print(f"{version:6} {full:10} {said}")
    if not any(full for _, full, _ in rows):
        print("pylocks: no Python was found to test with; name some: make test-all PYTHONS='...'")
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
