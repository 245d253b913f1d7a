"""What takes others along, and does not, on the local Lambda: minutes long, so `make isolation` runs it.

`STRESS_SCALE=10` runs all kinds and the full counts.
"""

from tests.stress.conftest import SCALE, pytest_terminal_summary, report

__all__ = ["SCALE", "pytest_terminal_summary", "report"]
