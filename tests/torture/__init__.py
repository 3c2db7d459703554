"""Kill at every instruction: `python -m torture` in tests/, or `make torture`."""
