"""Load on the handler, bounded in count and time, on loopback only; each test reports its figures.

`make test` runs it once over; `make stress` with ten times the calls.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

SCALE = int(os.environ.get("STRESS_SCALE", "1"))
_figures: list[dict[str, object]] = []


@pytest.fixture
def report(request):
    """Record a test's figures: sent, answered, failed cleanly, hung; any other call was lost."""

    def note(sent: int, answered: int, failed_cleanly: int, hung: int = 0, **more: object) -> None:
        lost = sent - answered - failed_cleanly - hung
        name = request.node.name.removeprefix("test_").replace("_", " ")
        figures = {"sent": sent, "answered": answered, "failed cleanly": failed_cleanly, "lost": lost, "hung": hung}
        _figures.append({"test": name, **figures, **more})
        assert lost == 0
        assert hung == 0

    return note


def pytest_terminal_summary(terminalreporter):
    if not _figures:
        return
    terminalreporter.section("stress figures")
    for figures in _figures:
        terminalreporter.write_line(", ".join(f"{key}: {value}" for key, value in figures.items()))
    if path := os.environ.get("STRESS_REPORT"):
        Path(path).write_text(json.dumps(_figures, indent=1))
