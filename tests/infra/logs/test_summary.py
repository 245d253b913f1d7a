import pytest

from dspy_lambda_infra.logs.records import read
from dspy_lambda_infra.logs.summary import cost, milliseconds, summary
from dspy_lambda_infra.logs.totals import Totals
from dspy_lambda_infra.terminal import Terminal
from tests.infra.logs.lines import line


def totals(*lines):
    found = Totals()
    for one in lines:
        found.add(read(one))
    return found


def shown(found, width=None):
    return list(summary(found, Terminal(width, colors=False, unicode=True)))


def test_each_program_and_model_has_a_row_and_all_have_a_sum():
    lines = shown(totals(line(), line(duration_ms=300, outcome="deadline"), line(model="big", cache_hits=1)))
    assert lines[1].split() == ["Answer", "big", "1", "0", "100", "100", "100", "100", "10", "2", "0.001000", "1", "0"]
    assert lines[2].split() == [
        "Answer",
        "default",
        "2",
        "1",
        "100",
        "300",
        "300",
        "300",
        "20",
        "4",
        "0.002000",
        "0",
        "0",
    ]
    assert lines[3].split() == ["total", "3", "1", "100", "300", "300", "300", "30", "6", "0.003000", "1", "0"]
    assert lines[4].startswith("percentiles: nearest rank; exact up to 4,096 calls")
    assert lines[5] == "Answer, default: 1 deadline"


def test_unknown_costs_are_named_and_never_counted_as_zero():
    lines = shown(totals(line(cost_usd=None), line(), line(cost_usd=None)))
    assert "0.001000+" in lines[1]
    assert lines[-1] == "Answer, default: cost unknown for 2 calls, which the sum lacks"
    assert cost(totals(line(cost_usd=None)).all) == "unknown"


def test_answers_outside_of_calls_are_named():
    assert "include 1 answers after or outside of calls" in shown(totals(line(message="late model call")))[-1]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_table_fits_the_terminal(width):
    table = shown(totals(line(program="P" * 100, model="M" * 100)), width)
    assert max(map(len, table[: next(n for n, text in enumerate(table) if text.startswith("percentiles"))])) <= width


def test_milliseconds_have_three_digits():
    assert [milliseconds(value) for value in (0.1234, 12.34, 1234.5, float("nan"))] == ["0.123", "12.3", "1,234", "-"]
