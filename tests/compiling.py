"""pylocks/bench/compiling.py without the package around it, which need not be built yet."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_spec = spec_from_file_location(
    "pylocks_bench_compiling", Path(__file__).resolve().parent.parent / "pylocks" / "bench" / "compiling.py"
)
assert _spec is not None and _spec.loader is not None
_module = module_from_spec(_spec)
_spec.loader.exec_module(_module)

CompilerError = _module.CompilerError
compiler, digest, make, run = _module.compiler, _module.digest, _module.make, _module.run

CSRC = Path(__file__).resolve().parent.parent / "csrc"
LAYERS = ("patch", "slow", "sync", "hv", "recover")


def core_sources(csrc: Path = CSRC) -> list[Path]:
    """The C files of the core, all but its Python half."""
    return sorted(path for layer in LAYERS for path in (csrc / layer).glob("*.c"))
