"""Builds pylocks._core with cffi in API mode: every C file under csrc/ but the fast path's."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from flags import COMPILE_ARGS  # noqa: E402

# The layers of the core, in the order in which their headers may include each other.
LAYERS = ("probe", "patch", "slow", "sync", "hv", "recover")

# Free-threaded builds have no stable ABI before 3.15, which cffi says twice, once as -D...=1 and once in
# the file: an error here.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
NO_LIMITED_API = ["-U_CFFI_NO_LIMITED_API", "-D_CFFI_NO_LIMITED_API="] if FREE_THREADED else []

# Free-threaded builds have no stable ABI before 3.15, which cffi says twice, once as -D...=1 and once in
# the file: an error here.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
NO_LIMITED_API = ["-U_CFFI_NO_LIMITED_API", "-D_CFFI_NO_LIMITED_API="] if FREE_THREADED else []


def relative(path: Path) -> str:
    """setuptools wants paths relative to setup.py, with forward slashes."""
    return path.relative_to(HERE.parent).as_posix()


ffibuilder = FFI()
ffibuilder.cdef(
    "".join((HERE / name).read_text() for name in ("core.cdef", "probe/probe.cdef", "probe/chaos.cdef"))
)
ffibuilder.set_source(
    "pylocks._core",
    '#include "core.h"\n#include "probe/chaos.h"\n',
    sources=[relative(path) for layer in LAYERS for path in sorted((HERE / layer).glob("*.c"))],
    depends=[relative(path) for path in sorted(HERE.rglob("*.h"))],
    include_dirs=["csrc/include", "csrc"],
    extra_compile_args=[*COMPILE_ARGS, *NO_LIMITED_API],
    extra_link_args=["-pthread"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
