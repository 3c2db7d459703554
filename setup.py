"""The compiled half of the package; everything declarative is in pyproject.toml."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

if not sys.platform.startswith("linux"):
    raise SystemExit(
        f"pylocks runs on Linux only (this is {sys.platform}): its waits are shared futexes and "
        "its life words are robust futexes, which no other kernel has."
    )

# Isolated builds do not have the project on sys.path; csrc/build_core.py needs this too.
sys.path.insert(0, str(Path(__file__).resolve().parent / "csrc"))

from flags import COMPILE_ARGS

INCLUDE = Path("csrc/include")


class BuildPython(build_py):
    """Install csrc/include as pylocks/include, so that pylocks.get_include() finds it anywhere.

    An editable install copies nothing: there get_include() answers with csrc/include itself.
    """

    def _headers(self) -> dict[str, str]:
        """Where each public header goes: {path in build_lib: path in the source tree}."""
        target = Path(self.build_lib, "pylocks", "include")
        return {
            str(target / header.relative_to(INCLUDE)): str(header) for header in sorted(INCLUDE.rglob("*.h"))
        }

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for target, header in self._headers().items():
                self.mkpath(str(Path(target).parent))
                self.copy_file(header, target, preserve_mode=False)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, *self._headers()]


setup(
    cffi_modules=["csrc/build_core.py:ffibuilder"],
    ext_modules=[
        Extension(
            "pylocks._lock",
            sources=[str(path) for path in sorted(Path("csrc/fast").glob("*.c"))],
            depends=["csrc/flags.py", *(str(header) for header in sorted(Path("csrc").rglob("*.h")))],
            include_dirs=[str(INCLUDE), "csrc"],
            extra_compile_args=COMPILE_ARGS,
        )
    ],
    cmdclass={"build_py": BuildPython},
)
