"""Benchmarks of pylocks beside other locks; see README.md in this directory."""
