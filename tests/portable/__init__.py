"""The core and a suite of checks in C alone: `python -m portable` in tests/, `make aarch64`, `make musl`."""
