"""What of a call is written, by `telemetry.payloads`: in its log record, and in attributes of its spans."""

import json

import dspy
import pytest

from dspy_lambda.config.telemetry import Telemetry
from dspy_lambda.errors import ConfigError
from dspy_lambda.settings import TEXTS
from dspy_lambda.telemetry.exceptions import Exceptions
from dspy_lambda.telemetry.payloads.rules import LEFT_OUT, Payloads
from dspy_lambda.telemetry.traces.spans import INTERNAL, Trace
from tests.support import AECHO, ECHO, failures, sqs

PROGRAMS = {"echo": ECHO, "aecho": AECHO}
RAISES = """
class Raises(dspy.Module):
    def forward(self, password: str, what: str = "this"):
        raise ValueError(f"{what} is refused with {password}")
"""


@pytest.fixture
def serve(make_project, make_serve):
    def make(modules=None, /, *, variables=None, **telemetry):
        return make_serve(make_project(modules or PROGRAMS, telemetry=telemetry), **(variables or {}))

    return make


def call_of(records):
    (call,) = records().calls
    return call


def payloads_with(log=lambda *_: None, hook=None, **settings):
    return Payloads(Telemetry(**settings), Exceptions(), log, hook)


def span_with(**payload):
    span = Trace().start("x", INTERNAL, None, {})
    span.payload = {name.replace("__", "."): value for name, value in payload.items()}
    return span


@pytest.mark.parametrize("program", ["Echo", "AEcho"])
def test_nothing_is_written_by_default(serve, records, program):
    made = serve()
    made.post(f"/{program}", {"question": "quite private"})
    assert not call_of(records).keys() & {"inputs", "outputs", "inputs_bytes", "outputs_bytes"}
    assert made.environment.telemetry.payloads == {}


@pytest.mark.parametrize("program", ["Echo", "AEcho"])
def test_sizes_are_those_of_the_json(serve, records, program):
    answer = serve(payloads="sizes").post(f"/{program}", {"question": "quite private"})
    call = call_of(records)
    assert call["inputs_bytes"] == len('{"question":"quite private"}')
    assert call["outputs_bytes"] == len(answer.body)
    assert "private" not in json.dumps(call)


@pytest.mark.parametrize("program", ["Echo", "AEcho"])
@pytest.mark.parametrize("word", ["masked", "full"])
def test_texts_are_json_values(serve, records, program, word):
    answer = serve(payloads=word).post(f"/{program}", {"question": "quite private"})
    call = call_of(records)
    assert call["inputs"] == {"question": "quite private"}
    assert call["outputs"] == json.loads(answer.body)


def test_a_programs_own_setting_counts(make_project, make_serve, records):
    own = {"programs": {"Echo": {"telemetry": {"payloads": "full"}}}}
    serve = make_serve(make_project(PROGRAMS, **{"telemetry": {"payloads": "sizes"}, "lambda": own}))
    serve.post("/Echo", {"question": "q"})
    serve.post("/AEcho", {"question": "q"})
    echo, aecho = records().calls
    assert echo["inputs"] == {"question": "q"}
    assert "inputs_bytes" in aecho


def test_long_payloads_are_cut_and_say_so(serve, records):
    serve(payloads="full", max_payload_bytes=200).post("/Echo", {"question": "word " * 100_000})
    call = call_of(records)
    assert call["inputs"]["question"].endswith("... (cut; 500,000 characters in all)")
    assert len(json.dumps([call["inputs"], call["outputs"]])) < 600


@pytest.mark.parametrize(("word", "shown"), [
    ("none", None), ("sizes", None), ("masked", "a word is refused with ***"),
    ("full", "a word is refused with 4711-secret"),
])  # fmt: skip
def test_exception_texts_follow_the_setting(serve, records, word, shown):
    answer = serve({"raises": RAISES}, payloads=word).post("/Raises", {"password": "4711-secret", "what": "a word"})
    assert call_of(records).get("exception") == shown
    assert b"refused" not in answer.body


@pytest.mark.parametrize(("texts", "word", "shown"), [
    ("none", "full", None), ("log", "none", "this is refused with 4711-secret"),
    ("log", "masked", "this is refused with 4711-secret"),
])  # fmt: skip
def test_the_variable_for_exception_texts_decides_if_it_is_set(serve, records, texts, word, shown):
    serve({"raises": RAISES}, payloads=word, variables={TEXTS: texts}).post("/Raises", {"password": "4711-secret"})
    assert call_of(records).get("exception") == shown


def test_texts_of_a_call_with_a_short_secret_are_left_out(serve, records):
    serve({"raises": RAISES}, payloads="masked").post("/Raises", {"password": "abc", "what": "a word"})
    call = call_of(records)
    assert call["inputs"] == {"password": "***", "what": "a word"}
    assert call["exception"] == LEFT_OUT


@pytest.mark.parametrize(("word", "shown"), [
    ("sizes", [12, 27, 16]),
    ("masked", [LEFT_OUT, {"password": "***", "n": 1}, {"question": [1]}]),
    ("full", ["{'not': json", {"password": "secret", "n": 1}, {"question": [1]}]),
])  # fmt: skip
def test_inputs_that_cannot_be_validated_are_shown_by_the_same_rules(serve, records, word, shown):
    bodies = ["{'not': json", {"password": "secret", "n": 1}, {"question": [1]}]
    assert len(failures(serve({"echo": ECHO}, payloads=word)(sqs(*bodies)))) == 3
    calls = {call["message_id"]: call for call in records().calls}
    field = "inputs_bytes" if word == "sizes" else "inputs"
    found = [calls[name][field] for name in ("m0", "m1", "m2")]
    assert found == shown


@pytest.mark.parametrize("body", [b"{'not': json", b'{"question": "q', b"\xff{not text", b"", b"  "])
@pytest.mark.parametrize("word", ["none", "sizes", "masked", "full"])
def test_a_body_that_cannot_be_read_is_shown_by_the_same_rules_for_every_source(serve, records, word, body):
    """A record's body is text, so bytes that are none can only come over HTTP: without a media type, as Base64."""
    made = serve({"echo": ECHO}, payloads=word)
    assert made.post("/Echo", body, "http", headers={}).status == 400
    fields = ("inputs", "inputs_bytes", "exception")
    by_http = {name: value for name, value in call_of(records).items() if name in fields}
    expected = {
        "none": {},
        "sizes": {"inputs_bytes": len(body)},
        "masked": {"inputs": LEFT_OUT},
        "full": {"inputs": body.decode() if body.isascii() else f"({len(body)} bytes)"},
    }[word]
    assert {name: value for name, value in by_http.items() if name != "exception"} == expected
    if body.isascii():
        event = sqs({})
        event["Records"][0]["body"] = body.decode()
        made(event)
        by_sqs = call_of(records)
        assert {name: by_sqs[name] for name in fields if name in by_sqs and name != "exception"} == expected


@pytest.mark.parametrize("name", ["absent_module:mask", "json:absent", "json:__name__"])
def test_a_hook_that_cannot_be_imported_fails_at_init(serve, name):
    with pytest.raises(ConfigError, match=f"^telemetry.mask_with: {name} cannot be "):
        serve(payloads="masked", mask_with=name)


def test_the_projects_hook_masks_fields(make_project, make_serve, records):
    project = make_project({"echo": ECHO}, telemetry={"payloads": "masked", "mask_with": "masks:mask"})
    (project / "masks.py").write_text("def mask(name, value):\n    return '?' if name == 'question' else value\n")
    make_serve(project).post("/Echo", {"question": "who is Ada"})
    call = call_of(records)
    assert call["inputs"] == {"question": "?"}
    assert "Ada" not in json.dumps(call)


def test_a_failing_hook_is_logged_once_and_the_value_masked():
    lines = []

    def fail(name, value):
        raise ValueError("private")

    payloads = payloads_with(lambda *line: lines.append(line), fail, payloads="masked")
    span = span_with(dspy_lambda__inputs={"a": "one two", "b": "three"})
    payloads.apply_to_call([span])
    assert json.loads(span.attributes["dspy_lambda.inputs"]) == {"a": "***", "b": "***"}
    ((level, message, fields),) = lines
    assert (level, message) == ("WARNING", "mask_with failed; the value was masked")
    assert fields["exception_name"] == "ValueError"
    assert "private" not in json.dumps(fields)


def test_a_failing_hook_is_logged_once_for_each_call(make_project, make_serve, records):
    project = make_project({"echo": ECHO}, telemetry={"payloads": "masked", "mask_with": "failing_masks:mask"})
    (project / "failing_masks.py").write_text("def mask(name, value):\n    raise ValueError('private')\n")
    serve = make_serve(project)
    for _ in range(2):
        serve.post("/Echo", {"question": "q"})
    logged = records()
    assert [call["inputs"] for call in logged.calls] == [{"question": "***"}] * 2
    assert [call["outputs"] for call in logged.calls] == [{"answer": "***"}] * 2
    assert [line.get("message") for line in logged.lines].count("mask_with failed; the value was masked") == 2
    lines = []
    payloads = payloads_with(lambda *line: lines.append(line), lambda name, value: 1 / 0, payloads="masked")
    payloads.apply_to_call([span_with(dspy_lambda__inputs={"a": 1}, dspy_lambda__outputs={"b": 2}) for _ in range(3)])
    assert len(lines) == 1


def test_a_spans_payload_becomes_attributes():
    span = span_with(
        dspy_lambda__inputs={"question": "q", "token": "a-token"},
        dspy_lambda__outputs=dspy.Prediction(answer="of a-token"),
        gen_ai__input__messages=[{"role": "user", "content": "[[ ## token ## ]]\na-token\n\n[[ ## question ## ]]\nq"}],
        gen_ai__output__messages=["it is a-token"],
    )
    payloads_with(payloads="masked").apply_to_call([span])
    assert span.payload is None
    read = {name: json.loads(value) for name, value in span.attributes.items()}
    assert read == {
        "dspy_lambda.inputs": {"question": "q", "token": "***"},
        "dspy_lambda.outputs": {"answer": "of ***"},
        "gen_ai.input.messages": [
            {"role": "user", "parts": [{"type": "text", "content": "[[ ## token ## ]]***[[ ## question ## ]]\nq"}]}
        ],
        "gen_ai.output.messages": [{"role": "assistant", "parts": [{"type": "text", "content": "it is ***"}]}],
    }


def test_what_one_span_masks_is_removed_from_the_texts_of_all_spans_of_the_call():
    inner, outer = (
        span_with(gen_ai__output__messages=["it is a-token"]),
        span_with(dspy_lambda__inputs={"token": "a-token"}),
    )
    payloads_with(payloads="masked").apply_to_call([inner, outer])
    assert "a-token" not in json.dumps(inner.attributes)
    short, outer = span_with(gen_ai__output__messages=["it is xy"]), span_with(dspy_lambda__inputs={"token": "xy"})
    payloads_with(payloads="masked").apply_to_call([short, outer])
    assert json.loads(short.attributes["gen_ai.output.messages"])[0]["parts"] == [{"type": "text", "content": LEFT_OUT}]


def test_spans_have_only_sizes_at_sizes():
    span = span_with(dspy_lambda__inputs={"a": "ü"}, gen_ai__input__messages=["x"])
    payloads_with(payloads="sizes").apply_to_call([span])
    assert span.attributes == {"dspy_lambda.inputs.bytes": 10, "gen_ai.input.messages.bytes": 5}
    assert span.payload is None


def test_a_pattern_across_the_cut_is_replaced_as_a_whole():
    payloads = payloads_with(payloads="masked", max_payload_bytes=100, mask=["/[0-9]{9}/"])
    for before in range(85, 105):
        span = span_with(dspy_lambda__outputs={"a": "x" * before + "123456789" + " and more" * 100})
        payloads.apply_to_call([span])
        assert "12" not in span.attributes["dspy_lambda.outputs"].partition("(cut")[0]
