from dspy_lambda_infra.logs.records import read
from dspy_lambda_infra.logs.totals import MAX_ROWS, REST, Totals
from tests.infra.logs.lines import line


def totals(*lines):
    found = Totals()
    for one in lines:
        found.add(read(one))
    return found


def test_calls_are_summed_by_program_and_model():
    found = totals(
        line(),
        line(outcome="deadline", cache_hits=2, cold_start=True),
        line(model="big", input_tokens=1_000_000),
        line(program="Triage"),
    )
    rows = {(program, model): row for program, model, row in found.rows()}
    assert list(rows) == [("Answer", "big"), ("Answer", "default"), ("Triage", "default")]
    row = rows["Answer", "default"]
    assert (row.calls, row.errors, row.outcomes["deadline"], row.cache_hits, row.cold_starts) == (2, 1, 1, 2, 1)
    assert (found.all.calls, found.all.input_tokens, found.all.cost_usd) == (4, 1_000_030, 0.004)


def test_an_unknown_cost_is_counted_and_not_zero():
    row = totals(line(cost_usd=None), line(cost_usd=0), line()).all
    assert (row.cost_usd, row.unknown_costs) == (0.001, 1)


def test_sums_of_costs_are_exact():
    assert totals(*[line(cost_usd=0.1)] * 10_000).all.cost_usd == 1000.0


def test_answers_outside_of_calls_add_tokens_and_cost_but_no_call():
    row = totals(line(), line(message="late model call", cost_usd=None)).all
    assert (row.calls, row.outside, row.errors, row.output_tokens, row.unknown_costs) == (1, 1, 0, 4, 1)


def test_names_without_end_are_summed_in_one_row():
    found = totals(*(line(program=f"P{n}", outcome=f"o{n}") for n in range(MAX_ROWS + 50)))
    assert len(found.rows()) == MAX_ROWS + 1
    assert found.rows()[0][:2] == (REST, REST)
    assert found.rows()[0][2].calls == 50
    assert len(found.all.outcomes) < 25
    assert found.all.outcomes.total() == MAX_ROWS + 50
