"""Experiments on lock-holder and lock-waiter preemption: ``pylocks lab``; docs/lab.md describes them.

Built on the engine of pylocks.bench: vCPUs are its worker processes, and what is added is a thief.
"""
