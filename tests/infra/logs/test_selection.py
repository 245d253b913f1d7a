import pytest

from dspy_lambda_infra.logs.records import read
from dspy_lambda_infra.logs.selection import Selection
from tests.infra.logs.lines import BASE, line

AT = 1_782_907_200


@pytest.mark.parametrize(
    ("selection", "matching", "other"),
    [
        (Selection(since=AT), {}, {"timestamp": "2026-07-01T11:59:59.999Z"}),
        (Selection(until=AT + 1), {}, {"timestamp": "2026-07-01T12:00:01Z"}),
        (Selection(since=AT), {}, {"timestamp": None}),
        (Selection(program="Answer"), {}, {"program": "Answers"}),
        (Selection(model="default"), {}, {"model": None}),
        (Selection(failed=True), {"outcome": "deadline"}, {}),
        (Selection(failed=True), {"outcome": "deadline"}, {"message": "late model call"}),
        (Selection(slow=0.1), {}, {"duration_ms": 99.9}),
        (Selection(request=BASE["function_request_id"]), {}, {"function_request_id": "x"}),
        (Selection(request="m-1"), {"message_id": "m-1"}, {"message_id": "m-2"}),
        (Selection(request="c-1"), {}, {"correlation_id": "c-11"}),
        (Selection(request="1-2-3"), {"xray_trace_id": "Root=1-2-3;Parent=4"}, {"xray_trace_id": "Root=1-2-33"}),
        (Selection(request="1-2-3"), {"xray_trace_id": "1-2-3"}, {}),
        (Selection(request="a" * 32), {"trace_id": "a" * 32}, {"trace_id": "a" * 31}),
    ],
)
def test_each_criterion_selects(selection, matching, other):
    assert selection.has(read(line(**matching)))
    assert not selection.has(read(line(**other)))
