import json
import sys
import time
import typing

import pytest

from dspy_lambda_infra.local.events import EVENTS, Request
from tests.support import Context, failures, sqs

# Against the invocation's own end, which was taken at the same moment: what the machine needs until the call runs
# does not count.
KEPT = """
class Left(dspy.Module):
    async def aforward(self) -> float:
        invocation = dspy.settings.lm.call.invocation
        return invocation.ends - invocation.deadline
"""


@pytest.fixture
def left(make_project, make_serve):
    """The seconds that a call is given, by kind of event, remaining time and the age of the request."""

    def measure(kind, remaining_ms, age=None, **variables):
        serve = make_serve(make_project({"left": KEPT}), **variables)
        event = EVENTS[kind](Request("POST", "/Left", body=b"{}"))
        now = (time.time() - (age or 0)) * 1000
        event["requestContext"] |= {"requestTimeEpoch": now} if kind == "rest" else {"timeEpoch": now}
        kept = json.loads(serve(event, Context(remaining_ms))["body"])["result"]
        return remaining_ms / 1000 - kept

    return measure


@pytest.mark.parametrize(
    ("kind", "remaining_ms", "age", "seconds"),
    [
        ("url", 900_000, 0, 899.5),
        ("alb", 60_000, 0, 59.5),
        ("rest", 10_000, 0, 9.5),
        ("rest", 900_000, 0, 28.5),
        ("http", 900_000, 0, 29.5),
        # The gateway's clock runs since the request came in, a cold start included.
        ("rest", 900_000, 9, 19.5),
        ("rest", 900_000, 3600, 28.5),
        ("rest", 900_000, -30, 28.5),
        # A very short timeout keeps most of itself for the program.
        ("url", 1_000, 0, 0.8),
    ],
)
def test_a_call_has_what_function_and_gateway_leave_it(left, kind, remaining_ms, age, seconds):
    # A request grows older on its way into the function, never younger.
    slack = 3 if kind in ("rest", "http") and age is not None and 0 <= age < 60 else 0.001
    assert seconds - slack <= left(kind, remaining_ms, age) <= seconds + 0.001


def test_reserve_and_integration_limit_can_be_set(left):
    assert left("rest", 900_000, DSPY_LAMBDA_INTEGRATION_SECONDS="120") == pytest.approx(119.5, abs=3)
    assert left("url", 900_000, DSPY_LAMBDA_DEADLINE_RESERVE_MS="5000") == pytest.approx(895)


def test_the_clock_of_sam_local_stands_still_and_is_not_believed(left):
    assert left("rest", 900_000, age=40, AWS_SAM_LOCAL="true") == pytest.approx(28.5)


def test_a_batch_keeps_back_what_its_records_take_to_be_answered(make_project, make_serve, records):
    source = """
    class Left(dspy.Module):
        async def aforward(self, pad: str = ""):
            invocation = dspy.settings.lm.call.invocation
            KEPT.append(invocation.ends - invocation.deadline)
    KEPT = []
    """
    serve = make_serve(make_project({"left": source}))
    seen = sys.modules[serve.environment.programs["Left"].module].KEPT
    for count, seconds in ((1, 0.50218), (5000, 1.6)):
        seen.clear()
        assert failures(serve(sqs(*[{}] * count), Context(100_000))) == []
        assert seen[0] == pytest.approx(seconds)


def test_the_next_invocation_keeps_back_the_time_to_replace_a_process_that_is_used_up(
    make_project, make_serve, records
):
    serve = make_serve(make_project({"left": KEPT}))

    class Resort:
        restarts, seconds = 0, 3.0
        planned: typing.ClassVar = []

        def why(self, stuck):
            return "threads"

        def plan(self, reason):
            self.planned.append(reason)
            return True

    serve.environment.last_resort = Resort()

    def kept(seconds):
        return serve({"program": "Left", "inputs": {}}, Context(seconds * 1000))["outputs"]["result"]

    assert kept(2) == pytest.approx(0.4)  # and had too little time itself
    assert Resort.planned == []
    assert kept(60) == pytest.approx(6)
    assert Resort.planned == ["threads"]
    assert kept(60) == pytest.approx(0.5)
