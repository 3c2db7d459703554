"""The C compiler flags, in one place for setup.py and csrc/build_core.py."""

from __future__ import annotations

# Both extensions.  They come after the flags that Python was built with and after
# CFLAGS, so that they hold whatever the distribution prefers.
COMPILE_ARGS = [
    "-std=gnu11",
    "-D_GNU_SOURCE",
    "-O2",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Werror",
]
