"""The compiled half of the package; everything declarative is in pyproject.toml."""

from __future__ import annotations

import gzip
import os
import sys
import tarfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

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


class SourceDistribution(sdist):
    """A .tar.gz that is the same, byte for byte, whoever makes it of the same files and wherever.

    Given SOURCE_DATE_EPOCH, that is; without it, files keep their times.
    """

    def make_archive(self, base_name: str, format: str, *arguments: object, **keywords: object) -> str:
        if format != "gztar":
            return super().make_archive(base_name, format, *arguments, **keywords)
        given = os.environ.get("SOURCE_DATE_EPOCH")
        when = int(given) if given else None

        def level(entry: tarfile.TarInfo) -> tarfile.TarInfo:
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
            entry.mtime = int(entry.mtime) if when is None else when
            return entry

        made = f"{base_name}.tar.gz"
        base = Path(str(keywords["base_dir"]))
        self.mkpath(os.path.dirname(made) or ".")
        with (
            open(made, "wb") as file,
            gzip.GzipFile("", "wb", 9, file, when) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for path in [base, *sorted(base.rglob("*"))]:
                archive.add(path, path.as_posix(), recursive=False, filter=level)
        return made


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
    cmdclass={"build_py": BuildPython, "sdist": SourceDistribution},
)
