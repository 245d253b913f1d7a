"""The description of an exception, by DSPY_LAMBDA_EXCEPTION_TEXTS."""

import json
from types import SimpleNamespace
from urllib.parse import quote, quote_plus

import pytest

from dspy_lambda.errors import ConfigError, ModelUnavailable, ProgramFailed
from dspy_lambda.settings import TEXTS
from dspy_lambda.telemetry import exceptions
from dspy_lambda.telemetry.exceptions import Exceptions, remember_key
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
class OwnKey(dspy.Module):
    def forward(self, what: str):
        lm = dspy.LM("openai/m", api_base="http://127.0.0.1:9", api_key=f"sk-{what}-of-its-own", num_retries=0)
        try:
            lm("hi")
        except Exception:
            raise ValueError("refused: " + lm.kwargs["api_key"])
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
def test_an_exceptions_text_is_written_only_where_the_setting_allows(serve, records, program, texts, in_log, in_answer):
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
def test_an_error_class_with_its_own_constructor_is_explained(serve, records, texts):
    serve = serve(texts)
    document = problem(serve.post("/Own", {"what": "x"}))
    assert (document["status"], document["title"]) == (418, "Refused")
    assert document["detail"].startswith("refused: 7")
    assert failures(serve(sqs({"program": "Own", "inputs": {"what": "x"}}))) == ["m0"]
    assert [call["outcome"] for call in records().calls] == ["program_error"] * 2


def test_a_key_is_redacted_in_every_text(serve, records):
    document = problem(serve("answer").post("/Raises", {"what": KEY}))
    assert "the reason, with (a key)" in document["detail"]
    assert KEY not in json.dumps([document, records().lines])


def test_the_key_of_a_programs_own_lm_is_redacted(serve, records):
    document = problem(serve("answer").post("/OwnKey", {"what": "one"}))
    assert "refused: (a key)" in document["detail"]
    assert "sk-one" not in json.dumps([document, records().lines])


def hiding(*keys):
    hides = Exceptions("log")
    hides.redact(keys)
    return hides


PEM = '-----BEGIN PRIVATE KEY-----\nMIIEvQ/+"é\n-----END PRIVATE KEY-----'


@pytest.mark.parametrize("written", [str, repr, json.dumps, quote, quote_plus, lambda key: quote(key, safe="")])
def test_a_multiline_key_is_redacted_in_every_notation(written):
    text = hiding(PEM).text(f"no key: {written(PEM)}!")
    assert text.strip("\"'") in ("no key: (a key)!", "no key: '(a key)'!", 'no key: "(a key)"!')


@pytest.mark.parametrize("before", [9_970, 9_999, 10_000, 10_100, 10_140])
@pytest.mark.parametrize("more", ["", "and more" * 10_000])
def test_no_part_of_a_key_across_the_cut_is_shown(before, more):
    key = "sk-" + "".join(chr(65 + n % 26) for n in range(150))
    for front in ("x" * before, (key * (before // len(key) + 1))[-before:]):
        text = hiding(key).text(f"{front}{key}{more}")
        assert len(text) <= 10_000
        assert key[:12] not in text


def test_a_key_that_is_the_prefix_of_another_does_not_expose_the_rest():
    assert hiding("sk-0123456", "sk-0123456789").text("sk-0123456789") == "(a key)"


@pytest.mark.parametrize("lm", [None, SimpleNamespace(kwargs=None), SimpleNamespace(kwargs={"api_key": ["x"]})])
def test_an_lm_without_a_key_adds_nothing_to_redact(lm):
    before = list(exceptions._seen_keys)
    remember_key(lm)
    assert list(exceptions._seen_keys) == before


def test_the_number_of_remembered_keys_is_bounded():
    for n in range(1500):
        remember_key(SimpleNamespace(kwargs={"api_key": f"sk-customer-{n}"}))
    assert "sk-customer-1499" not in hiding().text("sk-customer-1499")
    assert len(exceptions._seen_keys) == 1000


def test_developers_see_the_providers_message(serve, models):
    serve = serve("answer")
    models.behave(unauthorized_rate=1)
    document = problem(serve.post("/AEcho", {"question": "q"}))
    assert document["status"] == 502
    assert "LMAuthError: " in document["detail"]


@pytest.mark.parametrize(("texts", "shown"), [("none", False), ("answer", True)])
def test_developers_see_why_a_program_could_not_be_loaded(make_project, make_serve, records, texts, shown):
    project = make_project({"broken": AECHO + 'raise ValueError("the reason")\n', "raises": RAISES})
    document = problem(make_serve(project, **{TEXTS: texts}).post("/AEcho", {"question": "q"}))
    assert document["status"] == 503
    assert ("ValueError: the reason" in document["detail"]) is shown
    (call,) = records().calls
    assert call["exception_name"] == "ValueError"
    assert ("exception" in call) is shown


def test_a_callers_mistake_is_answered_without_a_traceback(serve, records):
    document = problem(serve("answer").post("/Raises", {"what": "input"}))
    assert document["detail"] == "not like this"
    (call,) = records().calls
    assert call["exception"] == "not like this"
    assert not call.keys() & {"exception_name", "stack"}


@pytest.mark.parametrize(("texts", "shown"), [(None, False), ("none", False), ("log", True), ("answer", True)])
def test_the_reason_for_invalid_inputs_is_logged_only_if_the_setting_asks_for_it(serve, records, texts, shown):
    bodies = ({"program": "Raises", "inputs": {}}, {"program": "Absent", "inputs": {}}, "no json")
    assert failures(serve(texts)(sqs(*bodies))) == ["m0", "m1", "m2"]
    calls = {call["message_id"]: call for call in records().calls}
    assert {call["outcome"] for call in calls.values()} == {"invalid_input"}
    reasons = [calls[name].get("exception") for name in ("m0", "m1", "m2")]
    if not shown:
        assert reasons == [None] * 3
        return
    assert reasons[0] == "The inputs do not fit the program: what: Field required."
    assert reasons[1].startswith("This function serves no program of that name; this function serves: AEcho, ARaises, ")
    assert reasons[2].startswith("The body is not JSON")


@pytest.mark.parametrize("texts", ["none", "log", "answer"])
def test_explaining_an_error_does_not_change_whether_it_is_temporary(texts):
    failed = ModelUnavailable("no answer that could be parsed", temporary=False)
    assert Exceptions(texts).explained(failed, ValueError("x")).temporary is False


def test_an_exception_whose_text_cannot_be_read_is_logged_without_it():
    shown = Exceptions("answer")
    for make in hostile.ZOO.values():
        error = shown.explained(ProgramFailed("It failed."), make())
        assert (error.status, error.outcome) == (500, "program_error")
        assert error.detail.startswith("It failed.\n")
        assert str(error) == error.detail


def test_without_the_setting_no_code_of_the_exception_runs():
    hidden = Exceptions()
    for make in hostile.ZOO.values():
        error = make()
        hostile.touched.clear()
        hidden.fields(error)
        hidden.explained(ProgramFailed("It failed."), error)
        assert not hostile.touched


def test_an_unknown_word_for_exception_texts_is_refused(make_serve):
    with pytest.raises(ConfigError, match=f"^{TEXTS}: must be one of none, log, answer, not 'all'"):
        make_serve(QUICKSTART, **{TEXTS: "all"})
