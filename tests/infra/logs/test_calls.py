import pytest

from dspy_lambda_infra.logs.calls import CallTable, cells, clock
from dspy_lambda_infra.logs.records import read
from dspy_lambda_infra.terminal import Terminal, columns
from tests.infra.logs.lines import line

CALL = read(line())


def shown(width, record=CALL, **options):
    table = CallTable(Terminal(width, colors=False, unicode=True, **options), [cells(record)])
    return table.header(), table.row(record)


def test_a_row_has_every_figure_of_its_call():
    header, row = shown(None, read(line(cost_usd=None, duration_ms=1234.5)))
    assert header.split() == ["time", "program", "model", "outcome", "ms", "in", "out", "cost", "USD", "request", "id"]
    assert row.split()[2:] == ["Answer", "default", "success", "1,234", "10", "2", "unknown", CALL.request_id]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140])
def test_rows_fit_the_terminal_and_keep_program_outcome_and_duration(width):
    record = read(line(program="AnswersQuestionsAboutContracts", model="a-model-with-a-long-alias"))
    for text in (*shown(width, record), CallTable(Terminal(width, colors=False, unicode=True)).row(record)):
        assert columns(text) <= width
    assert "success" in shown(width, record)[1]
    assert " 100" in shown(width, record)[1]
    assert "Answers" in shown(width, record)[1]


def test_eighty_columns_have_all_figures_and_the_beginning_of_the_request_id():
    _, row = shown(80)
    assert row.split()[-2:] == ["0.001000", CALL.request_id[: len(row.split()[-1]) - 1] + "…"]
    assert len(row.split()[-1]) >= 9


@pytest.mark.parametrize(("outcome", "code"), [("success", 32), ("deadline", 31), ("invalid_input", 33)])
def test_outcomes_have_colors_on_a_terminal(outcome, code):
    table = CallTable(Terminal(200, colors=True, unicode=True))
    assert f"\x1b[{code}m{outcome.ljust(13)}\x1b[0m" in table.row(read(line(outcome=outcome)))


def test_names_cannot_write_control_characters():
    _, row = shown(None, read(line(program="\x1b[2Jevil", outcome="a\nb", function_request_id="\r")))
    assert row.isprintable()
    assert "\\x1b[2Jevil" in row


def test_a_time_that_no_calendar_has_is_a_hyphen():
    assert [clock(at) for at in (float("nan"), 1e300, -1e300)] == ["-"] * 3
