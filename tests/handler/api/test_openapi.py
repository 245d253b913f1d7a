"""The OpenAPI document is valid, matches the application, and is created only on demand."""

import dataclasses
import datetime
import enum
import json
import sys
import uuid
from typing import Annotated, Any, Literal, NotRequired

import dspy
import jsonschema
import pydantic
import pytest
import typing_extensions
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator

from dspy_lambda.api.app import describe
from dspy_lambda.config import load_config
from dspy_lambda.payload import to_outputs
from dspy_lambda.programs.copies import Copier
from dspy_lambda.programs.program import Program, choose_entry
from dspy_lambda.programs.schemas import schemas_of
from dspy_lambda_infra.local.events import EVENTS, Request
from tests.conftest import QUICKSTART
from tests.support import AECHO, ECHO

CONFIG = load_config(QUICKSTART)


def served(serve, kind="rest") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(serve.get("/openapi.json", kind).body)
    OpenAPIV31SpecValidator(document).validate()
    return document


def check(document, schema: str, value: Any) -> None:
    """Raise if a value does not fit one of the document's schemas."""
    whole = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    jsonschema.Draft202012Validator(whole, format_checker=jsonschema.FormatChecker()).validate(value)


def program(hint: Any, name: str = "Echoes", **members: Any) -> Program:
    """A program that returns its only input, with matching hints."""

    def forward(self, value):
        return value

    forward.__annotations__ = {"value": hint, "return": hint}
    instance = type(name, (dspy.Module,), {"forward": forward, **members})()
    entry = choose_entry(instance)
    return Program(name, "modules", "fast", instance, entry, schemas_of(instance, entry.method), Copier(instance))


def test_each_program_has_a_path_with_its_schemas_and_its_problems(serve):
    document = served(serve)
    for name in ("Answer", "Summarise", "Triage", "Perspectives"):
        call = document["paths"][f"/{name}"]["post"]
        assert call["operationId"] == name
        schemas = {
            media_type: body["schema"]["$ref"].rpartition("/")[2]
            for part in (call["requestBody"], *call["responses"].values())
            for media_type, body in part["content"].items()
        }
        assert call["requestBody"]["content"].keys() == {"application/json"}
        assert schemas == {"application/json": f"{name}Outputs", "application/problem+json": "Problem"}
        assert set(call["responses"]) == {"200", "400", "413", "415", "422", "429", "500", "502", "503", "504"}
    assert document["paths"]["/Answer"]["post"]["description"] == "Answer a question in a sentence."


@pytest.mark.parametrize(("kind", "servers"), [("rest", [{"url": "/prod"}]), ("http", None), ("url", None)])
def test_the_server_is_the_stage_of_the_request(serve, kind, servers):
    assert served(serve, kind).get("servers") == servers
    assert served(serve, "url").get("servers") is None


def test_responses_match_the_document(make_project, make_serve):
    serve = make_serve(make_project({"echo": ECHO, "broken": "import nothing_of_that_name\n" + AECHO}))
    document = served(serve)
    check(document, "Programs", json.loads(serve.get("/programs").body))
    check(document, "Liveness", json.loads(serve.get("/health/live").body))
    check(document, "Readiness", json.loads(serve.get("/health/ready").body))
    for body, status in ((b"{", 400), (b"{}", 422)):
        answer = serve.post("/Echo", body)
        assert answer.status == status
        check(document, "Problem", json.loads(answer.body))
    check(document, "EchoOutputs", json.loads(serve.post("/Echo", {"question": "q"}).body))


def test_a_program_that_could_not_be_loaded_is_not_in_the_document(make_project, make_serve):
    serve = make_serve(make_project({"echo": ECHO, "broken": "import nothing_of_that_name\n" + AECHO}))
    assert "/AEcho" not in served(serve)["paths"]


def test_the_document_is_created_once_on_demand(make_project, make_serve, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "dspy_lambda.api.openapi", None)
        patch.setitem(sys.modules, "dspy_lambda.programs.json_schema", None)
        serve = make_serve(make_project({"echo": ECHO}))
        assert serve.post("/Echo", {"question": "q"}).status == 200
    first = served(serve)
    monkeypatch.setitem(sys.modules, "dspy_lambda.api.openapi", None)
    assert served(serve) == first


@pytest.mark.parametrize("kind", EVENTS)
def test_a_body_is_read_by_the_handler_and_not_by_fastapi(serve, kind):
    """FastAPI would answer 422 if a body is not JSON, in its own format."""
    answer = serve.http(Request("POST", "/Answer", headers=[("Content-Type", "application/json")], body=b"{"), kind)
    assert (answer.status, json.loads(answer.body)["title"]) == (400, "Invalid input")


@pytest.mark.parametrize(
    "members", [{"__doc__": "What it does.\n\n    More."}, {"__doc__": None}, {"__doc__": property(lambda self: "x")}]
)
@pytest.mark.parametrize("name", ["Größe", "Programs", "Problem", "list_programs_"])
def test_any_class_name_is_valid_in_the_document(name, members):
    document = describe(CONFIG, {name: program(int, name, **members)})
    OpenAPIV31SpecValidator(json.loads(json.dumps(document))).validate()
    assert f"/{name}" in document["paths"]


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Item(pydantic.BaseModel):
    name: str
    effort: int = pydantic.Field(1, alias="effort_[1-5]")


class Node(pydantic.BaseModel):
    children: list["Node"] = []


class Place(typing_extensions.TypedDict):
    city: str
    street: NotRequired[str]


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
# A hint, and JSON that matches it.
LEAVES = [
    (int, st.integers()),
    (float, FLOATS | st.integers(-1000, 1000)),
    (str, st.text()),
    (bool, st.booleans()),
    (Any, JSON),
    (dict, st.dictionaries(st.text(), JSON)),
    (Literal["a", "b"], st.sampled_from(["a", "b"])),
    (Color, st.sampled_from(["red", "blue"])),
    (Annotated[int, pydantic.Field(ge=1, le=5)], st.integers(1, 5)),
    (Annotated[str, pydantic.Field(max_length=3)], st.text(max_size=3)),
    (datetime.date, st.dates().map(str)),
    (uuid.UUID, st.uuids().map(str)),
    (Item, st.fixed_dictionaries({"name": st.text()}, optional={"effort_[1-5]": st.integers()})),
    (Node, st.just({"children": [{"children": []}, {}]})),
    (Place, st.fixed_dictionaries({"city": st.text()}, optional={"street": st.text()})),
    (Point, st.fixed_dictionaries({"x": st.integers()}, optional={"y": FLOATS})),
]


def compound(inner):
    def of_two(pair):
        (one, ones), (other, others) = pair
        model = pydantic.create_model("Made", one=(one, ...), other=(other | None, None))
        make: Any = typing_extensions.TypedDict
        typed = make("Made", {"one": one, "other": NotRequired[other]})
        fields = st.fixed_dictionaries({"one": ones}, optional={"other": others})
        return st.sampled_from(
            [(one | other, ones | others), (tuple[one, other], st.tuples(ones, others).map(list))]
            + [(kind, fields) for kind in (model, typed)]
        )

    def of_one(pair):
        hint, values = pair
        lists = st.lists(values, max_size=3)
        return st.sampled_from(
            [
                (list[hint], lists),
                (tuple[hint, ...], lists),
                (dict[str, hint], st.dictionaries(st.text(), values, max_size=3)),
                (hint | None, st.none() | values),
            ]
        )

    return inner.flatmap(of_one) | st.tuples(inner, inner).flatmap(of_two)


HINTS = st.recursive(st.sampled_from(LEAVES), compound, max_leaves=4)


@settings(max_examples=40, deadline=None)
@given(HINTS, st.data())
def test_the_document_of_any_hints_is_valid_and_inputs_that_match_it_are_accepted(pair, data):
    hint, fitting = pair
    echoes = program(hint)
    document = json.loads(json.dumps(describe(CONFIG, {"Echoes": echoes}), allow_nan=False))
    OpenAPIV31SpecValidator(document).validate()

    inputs = {"value": data.draw(fitting)}
    check(document, "EchoesInputs", inputs)
    result = echoes.instance(**echoes.schemas.inputs.validate(inputs))
    check(document, "EchoesOutputs", json.loads(to_outputs(result, field=echoes.schemas.result_field)))

    others = {"value": data.draw(JSON | st.sampled_from(LEAVES).flatmap(lambda leaf: leaf[1]))}
    try:
        check(document, "EchoesInputs", others)
    except jsonschema.ValidationError:
        return
    echoes.schemas.inputs.validate(others)
