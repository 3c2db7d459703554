"""Benchmarks of pylocks beside other locks: ``pylocks bench``; bench/README.md describes them.

What runs inside a measured process (subjects, csubjects, cases, worker, arena) imports its neighbours
relatively and of pylocks only what is public: it may be loaded beside another version of pylocks.
"""
