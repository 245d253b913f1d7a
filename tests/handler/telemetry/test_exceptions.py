"""What is told of an exception, by DSPY_LAMBDA_EXCEPTION_TEXTS."""

import json

import pytest

from dspy_lambda.errors import ConfigError, ModelUnavailable, ProgramFailed
from dspy_lambda.telemetry.exceptions import TEXTS, Exceptions
from tests.conftest import QUICKSTART
from tests.handler import hostile
from tests.support import AECHO, failures, problem, sqs

KEY = "sk-0123456789"
RAISES = """
class Raises(dspy.Module):
    def forward(self, what: str):
        if what == "input":
            from dspy_lambda.errors import InvalidInput
            raise InvalidInput("not like this")
        raise ValueError(f"the reason, with {what}")
class Own(dspy.Module):
    def forward(self, what: str):
        from dspy_lambda.errors import ProgramFailed
        class OwnFailure(ProgramFailed):
            title = "Refused"
            def __init__(self, code):
                super().__init__(f"refused: {code}", status=418)
        raise OwnFailure(7)
class ARaises(dspy.Module):
    async def aforward(self, what: str):
        raise ValueError(f"the reason, with {what}")
"""


@pytest.fixture
def serve(make_project, make_serve):
    def make(texts=None):
        settings = {} if texts is None else {TEXTS: texts}
        return make_serve(make_project({"raises": RAISES, "aecho": AECHO}), OPENAI_API_KEY=KEY, **settings)

    return make


@pytest.mark.parametrize(("texts", "in_log", "in_answer"), [
    (None, False, False), ("none", False, False), ("log", True, False), ("answer", True, True),
])  # fmt: skip
@pytest.mark.parametrize("program", ["Raises", "ARaises"])
def test_the_text_is_where_the_setting_says(serve, records, program, texts, in_log, in_answer):
    serve = serve(texts)
    document = problem(serve.post(f"/{program}", {"what": "a word"}))
    assert ("ValueError: the reason, with a word" in document["detail"]) is in_answer
    assert (f"raises.py:8 {program}.forward" in document["detail"]) is (in_answer and program == "Raises")
    (call,) = records().calls
    assert call.get("exception") == ("the reason, with a word" if in_log else None)
    assert call["exception_name"] == "ValueError"
    with pytest.raises(ProgramFailed) as raised:
        serve({"program": program, "inputs": {"what": "a word"}})
    assert ("the reason, with a word" in str(raised.value)) is in_answer
    assert failures(serve(sqs({"program": program, "inputs": {"what": "x"}}))) == ["m0"]


@pytest.mark.parametrize("texts", ["none", "log", "answer"])
def test_a_failure_whose_class_has_a_constructor_of_its_own_is_a_failure(serve, records, texts):
    serve = serve(texts)
    document = problem(serve.post("/Own", {"what": "x"}))
    assert (document["status"], document["title"]) == (418, "Refused")
    assert document["detail"].startswith("refused: 7")
    assert failures(serve(sqs({"program": "Own", "inputs": {"what": "x"}}))) == ["m0"]
    assert [call["outcome"] for call in records().calls] == ["program_error"] * 2


def test_a_key_is_in_no_text(serve, records):
    document = problem(serve("answer").post("/Raises", {"what": KEY}))
    assert "the reason, with (a key)" in document["detail"]
    assert KEY not in json.dumps([document, records().lines])


def test_what_the_provider_said_is_told_to_developers(serve, models):
    serve = serve("answer")
    models.behave(unauthorized_rate=1)
    document = problem(serve.post("/AEcho", {"question": "q"}))
    assert document["status"] == 502
    assert "LMAuthError: " in document["detail"]


@pytest.mark.parametrize(("texts", "shown"), [("none", False), ("answer", True)])
def test_why_a_program_could_not_be_loaded_is_told_to_developers(make_project, make_serve, records, texts, shown):
    project = make_project({"broken": AECHO + 'raise ValueError("the reason")\n', "raises": RAISES})
    document = problem(make_serve(project, **{TEXTS: texts}).post("/AEcho", {"question": "q"}))
    assert document["status"] == 503
    assert ("ValueError: the reason" in document["detail"]) is shown
    (call,) = records().calls
    assert call["exception_name"] == "ValueError"
    assert ("exception" in call) is shown


def test_the_callers_own_mistakes_need_no_traceback(serve, records):
    document = problem(serve("answer").post("/Raises", {"what": "input"}))
    assert document["detail"] == "not like this"
    (call,) = records().calls
    assert call["exception"] == "not like this"
    assert not call.keys() & {"exception_name", "stack"}


@pytest.mark.parametrize(("texts", "shown"), [(None, False), ("none", False), ("log", True), ("answer", True)])
def test_why_inputs_are_invalid_is_in_the_log_where_the_setting_says(serve, records, texts, shown):
    bodies = ({"program": "Raises", "inputs": {}}, {"program": "Absent", "inputs": {}}, "no json")
    assert failures(serve(texts)(sqs(*bodies))) == ["m0", "m1", "m2"]
    calls = {call["message_id"]: call for call in records().calls}
    assert {call["outcome"] for call in calls.values()} == {"invalid_input"}
    reasons = [calls[name].get("exception") for name in ("m0", "m1", "m2")]
    if not shown:
        assert reasons == [None] * 3
        return
    assert reasons[0] == "The inputs do not fit the program: what: Field required."
    assert reasons[1].startswith("This function serves no program of that name; it serves: AEcho, ARaises, ")
    assert reasons[2].startswith("The body is not JSON")


@pytest.mark.parametrize("texts", ["none", "log", "answer"])
def test_whether_a_failure_is_temporary_does_not_depend_on_what_is_told_of_it(texts):
    failed = ModelUnavailable("no answer that could be parsed", temporary=False)
    assert Exceptions({TEXTS: texts}).explained(failed, ValueError("x")).temporary is False


def test_a_text_that_cannot_be_had_costs_the_text_only():
    exceptions = Exceptions({TEXTS: "answer"})
    for make in hostile.ZOO.values():
        error = exceptions.explained(ProgramFailed("It failed."), make())
        assert (error.status, error.outcome) == (500, "program_error")
        assert error.detail.startswith("It failed.\n")
        assert str(error) == error.detail


def test_without_the_setting_no_code_of_the_exception_runs():
    exceptions = Exceptions({})
    for make in hostile.ZOO.values():
        error = make()
        hostile.touched.clear()
        exceptions.fields(error)
        exceptions.explained(ProgramFailed("It failed."), error)
        assert not hostile.touched


def test_another_word_is_refused(make_serve):
    with pytest.raises(ConfigError, match=f"^{TEXTS}: must be one of none, log, answer, not 'all'"):
        make_serve(QUICKSTART, **{TEXTS: "all"})
