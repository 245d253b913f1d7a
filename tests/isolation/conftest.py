"""Isolation of calls that could affect others, on the local Lambda. Takes minutes, so `make isolation` runs it.

`STRESS_SCALE=10` runs all kinds and the full counts.
"""

from tests.stress.conftest import SCALE, pytest_terminal_summary, report

__all__ = ["SCALE", "pytest_terminal_summary", "report"]
