"""The README's figures match the last benchmark."""

import re

import pytest

from tests.conftest import ROOT

RESULTS = (ROOT / "benchmarks" / "RESULTS.md").read_text()
README = (ROOT / "README.md").read_text()


def measured(row, column):
    """Return a number from RESULTS.md, from the row with that prefix."""
    (line,) = [line for line in RESULTS.splitlines() if line.startswith(row)]
    return float(re.search(r"[\d.]+", line.split("|")[column])[0])


def claimed(row):
    """Return our figure and the other's from the README."""
    (line,) = [line for line in README.splitlines() if line.startswith(row)]
    return [float(re.search(r"[\d.]+", cell)[0]) for cell in line.split("|")[2:4]]


@pytest.mark.parametrize(
    ("row", "ours", "other"),
    [
        (
            "| cold start to the first HTTP answer",
            ("| dspy-lambda, HTTP event |", 5),
            ("| FastAPI + Mangum + DSPy + Powertools, HTTP event |", 5),
        ),
        (
            "| CPU for one HTTP event",
            ("| dspy-lambda: the whole HTTP event |", 2),
            ("| FastAPI + Mangum + DSPy + Powertools: the whole HTTP event |", 2),
        ),
        ("| 10 SQS records", ("| 500 | sync | 10 |", 5), ("| 500 | sync | 10 |", 7)),
        ("| 100 users", ("| dspy-lambda serve | sync |", 3), ("| dspy-cli serve | sync |", 3)),
    ],
)
def test_readme_figures_match_the_benchmark_results(row, ours, other):
    assert claimed(row) == pytest.approx([measured(*ours), measured(*other)], rel=0.2)
