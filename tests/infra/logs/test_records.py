import math

import pytest

from dspy_lambda_infra.logs.records import Unreadable, entry, read
from tests.infra.logs.lines import BASE, OTHERS, line


def test_a_call_is_read_with_all_its_figures():
    found = read(line(cold_start=True, cost_usd=None, exception_name="ValueError", exception="why"))
    assert (found.program, found.model, found.outcome, found.duration_ms) == ("Answer", "default", "success", 100.0)
    assert (found.input_tokens, found.output_tokens, found.cost_usd, found.cold_start) == (10, 2, None, True)
    assert (found.at, found.request_id, found.why) == (1_782_907_200, BASE["function_request_id"], "ValueError: why")


@pytest.mark.parametrize("message", ["late model call", "model call outside any program call"])
def test_answers_outside_of_calls_have_tokens_and_no_duration(message):
    found = read(line(message=message))
    assert (found.duration_ms, found.outcome, found.input_tokens, found.cost_usd) == (None, "", 10, 0.001)


def test_an_abandoned_answer_costs_nothing_that_is_unknown():
    found = read(b'{"message": "late model call", "program": "A", "lm_calls": 0, "lm_calls_abandoned": 1}')
    assert (found.cost_usd, found.input_tokens) == (0.0, 0)


@pytest.mark.parametrize("other", OTHERS)
def test_lines_that_are_not_records_are_none(other):
    assert read(other) is None


def test_a_line_with_a_prefix_is_read_as_logs_tail_writes_it():
    assert read(b"2026-07-01T12:00:00+00:00 2026/07/01/[$LATEST]8f " + line()).program == "Answer"


@pytest.mark.parametrize(
    "broken",
    [
        line()[:-40],
        line(duration_ms="fast"),
        line(duration_ms=None),
        line(duration_ms=True),
        line(duration_ms=-1),
        line(duration_ms=math.nan),
        line(duration_ms=10**400),
        line(input_tokens=1.5),
        line(output_tokens=2**60),
        line(cost_usd="free"),
        line(cost_usd=math.inf),
        b'{"message": "program call"}',
    ],
)
def test_a_call_that_is_cut_or_has_other_values_is_unreadable(broken):
    with pytest.raises(Unreadable):
        read(broken)


def test_strange_texts_become_short_texts():
    found = read(line(program=["<script>"], model="m" * 1000, timestamp=3, xray_trace_id=None))
    assert (found.program, len(found.model)) == ("['<script>']", 200)
    assert math.isnan(found.at)


def test_an_entry_is_an_object():
    assert entry(b'{"a": 1}') == {"a": 1}
    assert [entry(text) for text in (b"", b"[1]", b'{"a": ', b'"x"')] == [None] * 4
