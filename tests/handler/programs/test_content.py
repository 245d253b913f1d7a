"""DSPy's content types as JSON inputs and outputs, over every source."""

import base64
import dataclasses
import json
from typing import NamedTuple

import dspy
import jsonschema
import pydantic
import pytest
from dspy.experimental import Citations, Document
from dspy.utils import DummyLM
from typing_extensions import TypeAliasType, TypedDict

from dspy_lambda.errors import InvalidInput
from dspy_lambda.payload import to_outputs
from dspy_lambda.programs.content import MARKER, holds_image, plain
from dspy_lambda.programs.program import choose_entry
from dspy_lambda.programs.schemas import schemas_of
from tests.support import failures, problem, sqs

PNG = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,AAAA"
CITATION = {
    "type": "char_location",
    "cited_text": "sky",
    "document_index": 0,
    "start_char_index": 0,
    "end_char_index": 3,
}
TYPES = {
    "Image": dspy.Image,
    "Audio": dspy.Audio,
    "File": dspy.File,
    "History": dspy.History,
    "ToolCalls": dspy.ToolCalls,
    "Reasoning": dspy.Reasoning,
    "Code": dspy.Code,
    "Citations": Citations,
    "Document": Document,
}
DOCUMENT = {"data": "text", "title": "t", "media_type": "text/plain", "context": None}
UNTITLED = {**DOCUMENT, "title": None}
# A type, what a caller sends, and what a program that returns it answers.
FORMS = [
    ("Image", PNG, {"url": PNG}),
    ("Image", {"url": PNG}, {"url": PNG}),
    ("Image", "https://example.com/a.png", {"url": "https://example.com/a.png"}),
    ("Audio", "data:audio/wav;base64,AAAA", {"data": "AAAA", "audio_format": "wav"}),
    ("Audio", {"data": "AAAA", "audio_format": "mp3"}, {"data": "AAAA", "audio_format": "mp3"}),
    ("Audio", {"data": "AAAA", "format": "mp3"}, {"data": "AAAA", "audio_format": "mp3"}),
    ("File", PDF, {"file_data": PDF, "file_id": None, "filename": None}),
    ("File", {"file_id": "f", "filename": "a.pdf"}, {"file_data": None, "file_id": "f", "filename": "a.pdf"}),
    ("History", {"messages": [{"question": "a", "answer": "b"}]}, {"messages": [{"question": "a", "answer": "b"}]}),
    ("ToolCalls", [{"name": "f", "args": {"a": 1}}], {"tool_calls": [{"name": "f", "args": {"a": 1}}]}),
    ("ToolCalls", {"tool_calls": [{"name": "f", "args": {}}]}, {"tool_calls": [{"name": "f", "args": {}}]}),
    ("Reasoning", "because", "because"),
    ("Reasoning", {"content": "because"}, "because"),
    ("Code", "x = 1", "x = 1"),
    ("Citations", [CITATION], {"citations": [CITATION]}),
    ("Citations", {"citations": [CITATION]}, {"citations": [CITATION]}),
    ("Document", "text", UNTITLED),
    ("Document", {"data": "text", "title": "t"}, DOCUMENT),
]
HEADER = "from dspy.experimental import Citations, Document\n"
ECHO = """
class {name}(dspy.Module):
    def forward(self, value: {hint}, values: list[{hint}] = []) -> dspy.Prediction:
        assert isinstance(value, {hint})
        return dspy.Prediction(value=value, values=values)
"""


@pytest.fixture
def serve(make_project, make_serve):
    """One program per type, which returns its inputs."""
    hints = {name: name if name in ("Citations", "Document") else f"dspy.{name}" for name in TYPES}
    source = HEADER + "".join(ECHO.format(name=f"Echo{name}", hint=hint) for name, hint in hints.items())
    return make_serve(make_project({"echoes": source}))


def test_every_form_round_trips_over_every_source(serve):
    for name, sent, answered in FORMS:
        program, inputs = f"Echo{name}", {"value": sent, "values": [sent]}
        expected = {"value": answered, "values": [answered]}
        assert serve({"program": program, "inputs": inputs})["outputs"] == expected
        answer = serve.post(f"/{program}", inputs)
        assert (answer.status, json.loads(answer.body)) == (200, expected)
        assert failures(serve(sqs({"program": program, "inputs": inputs}))) == []
        again = {"value": answered, "values": [answered]}
        assert serve({"program": program, "inputs": again})["outputs"] == expected


REFUSED = [
    ("Image", "/etc/passwd"),
    ("Image", "file:///etc/passwd"),
    ("Image", {"url": "/etc/passwd"}),
    ("Image", {"url": "https://example.com/a.png", "download": True}),
    ("Image", 3),
    ("Image", "http://127.0.0.1:9001/2018-06-01/runtime/invocation/next"),
    ("Image", {"url": "http://169.254.169.254/latest/meta-data"}),
    ("Image", "http://0x7f000001/"),
    ("Image", "http://2130706433/"),
    ("Image", "https://[::ffff:10.0.0.1]/a.png"),
    ("Image", "https://10.0.0.1/a.png"),
    ("Image", "https://localhost/a.png"),
    ("Image", "https://models.internal/a.png"),
    ("Image", "gs://bucket/a.png"),
    ("File", {"file_data": "http://10.0.0.1/a.pdf"}),
    ("File", {"file_id": "http://169.254.169.254/latest/meta-data", "filename": "a.pdf"}),
    ("File", {"file_data": "s3://bucket/a.pdf"}),
    ("File", {"file_id": " file:///etc/passwd"}),
    ("Image", "s3://bucket/a.png"),
    ("Audio", "/etc/passwd"),
    ("Audio", "https://example.com/a.wav"),
    ("Audio", {"data": "AAAA"}),
    ("File", "/etc/passwd"),
    ("File", {}),
    ("History", {"messages": "x"}),
    ("ToolCalls", "x"),
    ("Reasoning", 3),
    ("Code", 3),
    ("Citations", [{"cited_text": "x"}]),
    ("Document", {"title": "t"}),
]


def test_bad_inputs_name_the_field_over_every_source(serve):
    for name, sent in REFUSED:
        answer = serve.post(f"/Echo{name}", {"value": sent})
        assert answer.status == 422, (name, sent)
        assert problem(answer)["errors"][0]["loc"][0] == "value", (name, sent)
        assert "passwd" not in answer.body.decode()
        with pytest.raises(InvalidInput, match="value"):
            serve({"program": f"Echo{name}", "inputs": {"value": sent}})
        assert failures(serve(sqs({"program": f"Echo{name}", "inputs": {"value": sent}}))) == ["m0"]


class Page(pydantic.BaseModel):
    image: dspy.Image
    number: int = 1
    note: str = pydantic.Field("hidden", exclude=True)


class Pages(dspy.Module):
    def forward(self, page: Page, more: dict[str, list[dspy.Image]] | None = None): ...


def inputs_of(program):
    return schemas_of(program, choose_entry(program).method).inputs


def test_an_image_in_a_model_or_a_container_is_checked_too():
    inputs = inputs_of(Pages())
    assert inputs.validate({"page": {"image": {"url": PNG}}})["page"].image.url == PNG
    with pytest.raises(InvalidInput) as raised:
        inputs.validate({"page": {"image": {"url": "http://10.0.0.1/"}}})
    assert [error["loc"] for error in raised.value.errors] == [["page", "image"]]
    with pytest.raises(InvalidInput) as raised:
        inputs.validate({"page": {"image": {"url": PNG}}, "more": {"a": ["http://10.0.0.1/"]}})
    assert [error["loc"] for error in raised.value.errors] == [["more"]]  # "a" comes from the caller


class Photo(dspy.Image):
    """An image of a class of its own."""


@dataclasses.dataclass
class Card:
    image: dspy.Image


class Row(NamedTuple):
    image: dspy.Image


class Entry(TypedDict):
    image: dspy.Image


Alias = TypeAliasType("Alias", list[dspy.Image])


@pytest.mark.parametrize(
    ("hint", "sent"),
    [
        (Photo, "http://10.0.0.1/"),
        (Card, {"image": "http://10.0.0.1/"}),
        (Row, ["http://10.0.0.1/"]),
        (Entry, {"image": "http://10.0.0.1/"}),
        (Alias, ["http://10.0.0.1/"]),
    ],
)
def test_an_image_of_any_class_in_any_container_is_checked(hint, sent):
    class Program(dspy.Module):
        def forward(self, value: hint): ...

    with pytest.raises(InvalidInput):
        inputs_of(Program()).validate({"value": sent})


@pytest.mark.parametrize(
    "host",
    [
        "\uff11\uff12\uff17.0.0.1",
        "127.0\u30020\u30021",
        "\u2460\u2461\u2466.0.0.1",
        "169.254.169\u00ad.254",
        "models.\uff49nternal",
        "127.0.0.1\\@example.com",
        "%31%32%37.0.0.1",
        "models.internal%2e",
        "169.254.169.254%20",
        "224.0.0.1",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:7f00:1::]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
    ],
)
def test_a_private_host_is_recognized_as_http_clients_read_it(host):
    program = dspy.Predict(dspy.Signature({"value": (dspy.Image, dspy.InputField()), "out": (str, dspy.OutputField())}))
    with pytest.raises(InvalidInput):
        inputs_of(program).validate({"value": f"http://{host}/a.png"})


@pytest.mark.parametrize(
    "host", ["example.com:8080", "user@example.com", "b\u00fccher.example", "8.8.8.8", "[2606:4700::1111]", "a_b.io"]
)
def test_a_public_host_is_accepted(host):
    program = dspy.Predict(dspy.Signature({"value": (dspy.Image, dspy.InputField()), "out": (str, dspy.OutputField())}))
    assert inputs_of(program).validate({"value": f"http://{host}/a.png"})["value"].url == f"http://{host}/a.png"


@pytest.mark.parametrize(
    ("hint", "sent"),
    [
        (pydantic.Json, json.dumps([MARKER]).replace("<", "\\u003c")),
        (pydantic.Base64Str, base64.b64encode(MARKER.encode()).decode()),
        (pydantic.Base64Bytes, base64.b64encode(MARKER.encode()).decode()),
    ],
)
def test_a_marker_that_a_hint_decodes_is_refused(hint, sent):
    class Program(dspy.Module):
        def forward(self, value: hint): ...

    with pytest.raises(InvalidInput) as raised:
        inputs_of(Program()).validate({"value": sent})
    assert raised.value.errors[0]["loc"][0] == "value"


@pytest.mark.parametrize("sent", ["x {}", ["{}"], {"{}": 1}, {"a": [{"b": "{}"}]}])
def test_a_text_with_dspys_marker_cannot_add_an_image_to_a_prompt(sent):
    sent = json.loads(json.dumps(sent).replace("{}", MARKER))
    program = dspy.Predict("question -> answer")
    with pytest.raises(InvalidInput) as raised:
        inputs_of(program).validate({"question": sent})
    assert raised.value.errors[0]["loc"][0] == "question"
    assert MARKER not in str(raised.value)


def test_content_within_models_and_lists_becomes_plain_json():
    page = Page(image=dspy.Image(PNG), number=2)
    result = dspy.Prediction(page=page, pages=[page], inner=dspy.Prediction(image=page.image))
    assert json.loads(to_outputs(result)) == {
        "page": {"image": {"url": PNG}, "number": 2},
        "pages": [{"image": {"url": PNG}, "number": 2}],
        "inner": {"image": {"url": PNG}},
    }
    assert json.loads(to_outputs(dspy.Image(PNG))) == {"url": PNG}


@pytest.mark.parametrize(
    ("name", "text", "answered"),
    [
        ("Image", '{"url": "https://example.com/a.png"}', {"url": "https://example.com/a.png"}),
        ("Audio", '{"data": "AAAA", "audio_format": "wav"}', {"data": "AAAA", "audio_format": "wav"}),
        ("History", '{"messages": [{"a": "b"}]}', {"messages": [{"a": "b"}]}),
        ("ToolCalls", '[{"name": "f", "args": {"a": 1}}]', {"tool_calls": [{"name": "f", "args": {"a": 1}}]}),
        ("Reasoning", "because", "because"),
        ("Code", "```python\nx = 1\n```", "x = 1"),
        ("Citations", json.dumps([CITATION]), {"citations": [CITATION]}),
        ("Document", "text", UNTITLED),
    ],
)
def test_what_a_model_answers_becomes_plain_json(name, text, answered):
    signature = dspy.Signature({"question": (str, dspy.InputField()), "out": (TYPES[name], dspy.OutputField())})
    with dspy.context(lm=DummyLM([{"out": text}])):
        prediction = dspy.Predict(signature)(question="q")
    assert json.loads(to_outputs(prediction)) == {"out": answered}


def test_an_answer_with_the_markers_text_remains_text():
    assert plain({"answer": f"{MARKER}[]"}) == {"answer": f"{MARKER}[]"}
    assert json.loads(to_outputs({"answer": f"{MARKER}[]"})) == {"answer": f"{MARKER}[]"}


@pytest.mark.parametrize(("name", "sent", "answered"), FORMS)
def test_schemas_describe_what_is_sent_and_what_is_answered(name, sent, answered):
    program = dspy.Predict(
        dspy.Signature({"value": (TYPES[name], dspy.InputField()), "out": (TYPES[name], dspy.OutputField())})
    )
    schemas = schemas_of(program, choose_entry(program).method)
    inputs, outputs = (local(schema) for schema in (schemas.input_schema, schemas.output_schema))
    if isinstance(sent, str):
        jsonschema.validate({"value": sent}, inputs)
    jsonschema.validate({"value": answered}, inputs)
    jsonschema.validate({"out": answered}, outputs["anyOf"][0] | {"$defs": outputs["$defs"]})
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"out": 3}, outputs["anyOf"][0] | {"$defs": outputs["$defs"]})


def local(schema):
    """Point the references at the schema itself, instead of an OpenAPI document."""
    text = json.dumps({"$defs": {}, **schema})
    for prefix in ("PredictInputs", "PredictOutputs"):
        text = text.replace(f"#/components/schemas/{prefix}.", "#/$defs/")
    return json.loads(text)


class Account(pydantic.BaseModel):
    pin: pydantic.SecretStr
    friends: "list[Account]"
    photos: list[dspy.Image]


def test_hints_of_hints_are_searched_once():
    """SecretStr's own hints are pydantic's schemas, whose every path would take forever."""
    assert not holds_image(pydantic.SecretStr)
    assert not holds_image(dict[str, list[pydantic.SecretStr] | None])
    assert holds_image(Account)
