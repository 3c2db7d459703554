"""The contract: what every slow path keeps, patched or not, between threads and between processes.

Each check is a function of a Stage; tests/test_contract.py runs every check on every stage there is.
"""

from __future__ import annotations

from support import contract_death, contract_fork, contract_queue, contract_thread
from support.clauses import CHECKS

__all__ = ["CHECKS", "contract_death", "contract_fork", "contract_queue", "contract_thread"]
