import pytest

from dspy_lambda.errors import (
    DeadlineExceeded,
    InvalidInput,
    ModelUnavailable,
    ProgramFailed,
    RateLimited,
)
from tests.support import AECHO, ECHO, Context, without_retries


def test_the_sample_direct_event_is_answered(serve, event):
    answer = serve(event("direct"))
    assert answer["program"] == "Triage"
    assert answer["outputs"]["queue"] == "billing"
    assert answer["outputs"]["contact"]["name"].startswith("gpt-4.1-mini: My invoice")


def test_the_program_may_be_omitted_if_only_one_is_served(make_project, make_serve):
    serve = make_serve(make_project({"echo": ECHO}))
    answer = {"program": "Echo", "outputs": {"answer": "gpt-4.1-nano: q"}}
    assert serve({"inputs": {"question": "q"}}) == answer
    assert serve({"program": "Echo", "inputs": {"question": "q"}}) == answer


@pytest.mark.parametrize(
    "event",
    [
        {"inputs": {"question": "q"}},
        {"program": "Nope", "inputs": {"question": "q"}},
        {"program": 5, "inputs": {"question": "q"}},
        {"program": "Echo", "inputs": {}},
        {"program": "Echo", "inputs": None},
        {"program": "Echo", "inputs": {"question": "\ud800"}},
    ],
)
def test_invalid_inputs_raise_invalid_input(make_project, make_serve, records, event):
    serve = make_serve(make_project({"echo": ECHO, "aecho": AECHO}))
    records()
    with pytest.raises(InvalidInput):
        serve(event)
    (call,) = records().calls
    assert call["outcome"] == "invalid_input"


def test_endless_nesting_is_invalid_input(make_project, make_serve):
    source = "class Any_(dspy.Module):\n    async def aforward(self, x) -> int: return 1\n"
    serve = make_serve(make_project({"any": source}))
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidInput, match="cannot be read"):
        serve({"inputs": {"x": deep}})


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"rate_limit_rate": 1}, RateLimited),
        ({"error_rate": 1}, ModelUnavailable),
        ({"drop_rate": 1}, ModelUnavailable),
        ({"malformed_rate": 1}, ModelUnavailable),
        ({"hang_rate": 1}, DeadlineExceeded),
    ],
)
@pytest.mark.parametrize("program", ["Echo", "AEcho"])
def test_failures_raise_the_names_that_step_functions_matches(make_project, make_serve, models, fault, error, program):
    serve = without_retries(make_serve(make_project({"echo": ECHO, "aecho": AECHO})))
    models.behave(**fault)
    context = Context(1000 if error is DeadlineExceeded else 30_000)
    with pytest.raises(error) as raised:
        serve({"program": program, "inputs": {"question": "q"}}, context)
    assert type(raised.value).__name__ == error.__name__
    models.behave()
    assert serve({"program": program, "inputs": {"question": "q"}})["program"] == program


def test_a_failed_program_raises_program_failed(make_project, make_serve):
    serve = make_serve(make_project({"echo": ECHO, "broken": "import nothing_of_that_name\n" + AECHO}))
    with pytest.raises(ProgramFailed, match="could not be loaded"):
        serve({"program": "AEcho", "inputs": {"question": "q"}})
