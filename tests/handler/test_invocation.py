import json
import sys
import time
import typing

import pytest

from dspy_lambda_infra.local.events import EVENTS, Request
from tests.support import Context, failures, sqs

# Relative to the invocation's end, which was computed at the same moment: the time until the call runs
# does not count.
KEPT = """
class Left(dspy.Module):
    async def aforward(self) -> float:
        invocation = dspy.settings.lm.call.invocation
        return invocation.ends - invocation.deadline
"""


@pytest.fixture
def left(make_project, make_serve):
    """The seconds that a call gets, by kind of event, remaining time and age of the request."""

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
        # The gateway's timeout starts with the request, so it includes a cold start.
        ("rest", 900_000, 9, 19.5),
        ("rest", 900_000, 3600, 28.5),
        ("rest", 900_000, -30, 28.5),
        # With a very short timeout, most of it is left for the program.
        ("url", 1_000, 0, 0.8),
    ],
)
def test_a_calls_deadline_respects_function_and_gateway_timeouts(left, kind, remaining_ms, age, seconds):
    # A request can only get older on its way to the function.
    slack = 3 if kind in ("rest", "http") and age is not None and 0 <= age < 60 else 0.001
    assert seconds - slack <= left(kind, remaining_ms, age) <= seconds + 0.001


def test_reserve_and_integration_limit_can_be_set(left):
    assert left("rest", 900_000, DSPY_LAMBDA_INTEGRATION_SECONDS="120") == pytest.approx(119.5, abs=3)
    assert left("url", 900_000, DSPY_LAMBDA_DEADLINE_RESERVE_MS="5000") == pytest.approx(895)


def test_the_request_time_of_sam_local_is_ignored(left):
    assert left("rest", 900_000, age=40, AWS_SAM_LOCAL="true") == pytest.approx(28.5)


def test_a_batchs_reserve_grows_with_its_records(make_project, make_serve, records):
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


def test_the_next_invocation_reserves_time_to_replace_an_exhausted_process(make_project, make_serve, records):
    serve = make_serve(make_project({"left": KEPT}))

    class Resort:
        restarts, seconds = 0, 3.0
        planned: typing.ClassVar = []

        def exhausted_resource(self, stuck):
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
