"""Each program's outputs match their schema in /openapi.json, and the schema is as specific as possible."""

import dataclasses
import datetime
import decimal
import enum
import json
import typing
import uuid
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, Literal, NamedTuple, Optional, TypeVar

import dspy
import jsonschema
import pydantic
import pytest
import typing_extensions
from dspy.utils import DummyLM

from dspy_lambda.api.app import describe
from dspy_lambda.config import load_config
from dspy_lambda.payload import to_outputs
from dspy_lambda.programs.copies import Copier
from dspy_lambda.programs.program import Program, choose_entry
from dspy_lambda.programs.schemas import schemas_of
from tests.conftest import QUICKSTART

CONFIG = load_config(QUICKSTART)
UNHINTED = object()
T = TypeVar("T")


class Item(pydantic.BaseModel):
    name: str
    effort: int = pydantic.Field(1, alias="effort_[1-5]")
    hidden: str = pydantic.Field("h", exclude=True)

    @pydantic.computed_field
    def long_name(self) -> str:
        return self.name * 2


class Node(pydantic.BaseModel):
    children: list["Node"] = []


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"


class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]


class Names(pydantic.RootModel[list[str]]):
    pass


class ByName(pydantic.RootModel[dict[str, int]]):
    pass


class AsText(pydantic.BaseModel):
    value: int

    @pydantic.model_serializer
    def write(self):
        return f"<{self.value}>"


class HoldsText(pydantic.BaseModel):
    texts: list[AsText]
    when: int

    @pydantic.field_serializer("when")
    def write(self, value):
        return f"at {value}"


class Place(typing.TypedDict):
    city: str
    street: typing.NotRequired[str]


class Extended(typing_extensions.TypedDict, total=False):
    city: str


@dataclasses.dataclass
class Stop:
    place: Place


@dataclasses.dataclass
class Point:
    x: int
    place: Extended
    y: float = dataclasses.field(default=0.0, init=False)


class Pair(NamedTuple):
    a: int
    b: str


class Color(enum.Enum):
    RED = "red"


class Own:
    def __init__(self):
        self.x = 1


CODE, REASON = dspy.Code(code="1 + 1"), dspy.Reasoning(content="because")
IMAGE = dspy.Image("https://example.com/a.png")
ITEM, PLACE = Item.model_validate({"name": "n"}), {"city": "a"}


class Predicts(dspy.Signature):
    """Several kinds of outputs."""

    question: str = dspy.InputField()
    code: dspy.Code = dspy.OutputField()
    why: dspy.Reasoning = dspy.OutputField()
    score: float = dspy.OutputField(desc="of ten")
    items: list[Item] = dspy.OutputField()


LM = {"answer": "a", "reasoning": "r", "code": "1 + 1", "why": "because", "score": "1.5", "items": '[{"name": "n"}]'}

# A return hint, the expression that forward returns (`p` is its predictor's prediction), the predictor.
ROWS: list[tuple[Any, Any, Any]] = [
    # An object is the output itself.
    (Item, ITEM, None),
    (Node, Node(children=[Node()]), None),
    (Cat | Dog, Dog(), None),
    (Annotated[Cat | Dog, pydantic.Field(discriminator="kind")], Cat(), None),
    (Page[Item], Page[Item](items=[ITEM]), None),
    (ByName, ByName({"a": 1}), None),
    (HoldsText, HoldsText(texts=[AsText(value=1)], when=2), None),
    (Place, PLACE, None),
    (Extended, {}, None),
    (Point, Point(1, {}), None),
    (Stop, Stop(PLACE), None),
    (dict, {"a": 1}, None),
    (dict[str, Item], {"a": ITEM}, None),
    (Mapping[str, int], OrderedDict(a=1), None),
    (Counter[str], Counter("aab"), None),
    # Other results get a name.
    (str, "a", None),
    (type(None), None, None),
    (list[Place], [PLACE], None),
    (list[Item] | None, [ITEM], None),
    (tuple[int, ...], (1, 2), None),
    (set[int], {1}, None),
    (Pair, Pair(1, "b"), None),
    (Names, Names(["a"]), None),
    (Color, Color.RED, None),
    (Literal["a", 1], 1, None),
    (bytes, b"\xff", None),
    (datetime.datetime, datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), None),
    (decimal.Decimal, decimal.Decimal("1.50"), None),
    (uuid.UUID, uuid.UUID(int=1), None),
    (AsText, AsText(value=1), None),
    (dspy.Code, CODE, None),
    (dspy.Reasoning, REASON, None),
    (dspy.Image, IMAGE, None),
    (list[dspy.Image], [IMAGE], None),
    (list[dspy.Prediction], [dspy.Prediction(a=1)], None),
    # Either.
    (Item | None, ITEM, None),
    (Item | None, None, None),
    (Optional[dict], {"a": 1}, None),  # noqa: UP045
    (Optional[dict], None, None),  # noqa: UP045
    (Place | list[str], ["a"], None),
    (dspy.Prediction | None, dspy.Prediction(a=1), None),
    (dspy.Prediction | str, "a", None),
    (dspy.Code | Item, CODE, None),
    # Unknown types.
    (Any, {"a": 1}, None),
    (Any, "a", None),
    (object, ["a"], None),
    (Item | Any, 5, None),
    (Callable, {"a": 1}, None),
    (Own, {"a": 1}, None),
    ("Unknown", "a", None),
    (UNHINTED, {"a": 1}, None),
    (UNHINTED, 5, None),
    # With a predictor.
    (UNHINTED, lambda p: p, "question -> answer"),
    (UNHINTED, lambda p: p.answer, "question -> answer"),
    (UNHINTED, lambda p: None, "question -> answer"),
    (UNHINTED, lambda p: dspy.Prediction(summary=p.answer), "question -> answer"),
    (str, lambda p: p.answer, "question -> answer"),
    (Any, lambda p: p.answer, "question -> answer"),
    (Item | None, None, "question -> answer"),
    (dspy.Prediction, lambda p: p, "question -> answer"),
    (dspy.Prediction, lambda p: dspy.Prediction(summary=p.answer), "question -> answer"),
    (dspy.Prediction, lambda p: dspy.Prediction(answer=len(p.answer)), "question -> answer"),
    (dspy.Prediction, lambda p: p, Predicts),
    (dspy.Prediction, lambda p: dspy.Prediction(p, score=None), Predicts),
    (dspy.Code, lambda p: p.code, Predicts),
]


def make(name: str, hint: Any, given: Any, signature: Any) -> Program:
    def __init__(self):
        dspy.Module.__init__(self)
        if signature is not None:
            self.predict = dspy.Predict(signature)

    def forward(self, question: str):
        prediction = self.predict(question=question) if signature is not None else None
        return given(prediction) if callable(given) else given

    if hint is not UNHINTED:
        forward.__annotations__["return"] = hint
    instance = type(name, (dspy.Module,), {"__init__": __init__, "forward": forward})()
    entry = choose_entry(instance)
    return Program(name, "modules", "fast", instance, entry, schemas_of(instance, entry.method), Copier(instance))


PROGRAMS = {f"Row{n}": make(f"Row{n}", *row) for n, row in enumerate(ROWS)}


@pytest.fixture(scope="module")
def document():
    # As it is serialized.
    return json.loads(json.dumps(describe(CONFIG, PROGRAMS), allow_nan=False))


@pytest.mark.parametrize("name", PROGRAMS)
def test_outputs_are_valid_against_their_schema(document, name):
    program = PROGRAMS[name]
    with dspy.context(lm=DummyLM([LM])):
        result = program.instance(question="q")
    answer = json.loads(to_outputs(result, field=program.schemas.result_field))
    schema = {"$ref": f"#/components/schemas/{name}Outputs", "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(answer)


def test_a_model_in_inputs_and_outputs_has_a_schema_for_each(document):
    class Reviews(dspy.Module):
        def forward(self, item: Item) -> list[Item]: ...

    instance = Reviews()
    entry = choose_entry(instance)
    reviews = Program(
        "Reviews", "modules", "fast", instance, entry, schemas_of(instance, entry.method), Copier(instance)
    )
    schemas = describe(CONFIG, {"Reviews": reviews})["components"]["schemas"]
    assert set(schemas["ReviewsInputs.Item"]["properties"]) == {"name", "effort_[1-5]", "hidden"}
    assert set(schemas["ReviewsOutputs.Item"]["properties"]) == {"name", "effort", "long_name"}


def test_every_reference_in_the_document_resolves(document):
    text = json.dumps(document)
    references = {part.partition('"')[0] for part in text.split('"$ref": "#/components/schemas/')[1:]}
    assert references <= document["components"]["schemas"].keys()
    assert "$defs" not in text


def schema_of(hint: Any, signature: Any = None) -> dict[str, Any]:
    return make("P", hint, None, signature).schemas.output_schema


ANY = {"type": "object", "title": "POutputs"}


@pytest.mark.parametrize(
    ("hint", "required"),
    [
        (Item, ["name", "long_name"]),
        (Place, ["city"]),
        (Point, ["x", "place"]),
        (str, ["result"]),
        (list[Item], ["result"]),
        (AsText, None),
        (dict, None),
        (Any, None),
        (Item | None, None),
    ],
)
def test_only_outputs_that_are_always_present_are_required(hint, required):
    assert schema_of(hint).get("required") == required


def test_code_and_reasoning_are_described_as_strings():
    for hint in (dspy.Code, dspy.Code["java"], dspy.Reasoning):
        assert schema_of(hint)["properties"] == {"result": {"type": "string"}}


def test_an_optional_object_is_described_as_the_object_or_a_named_null():
    item, nothing = schema_of(Item | None)["anyOf"]
    assert item == {"$ref": "#/components/schemas/POutputs.Item"}
    assert nothing == {"type": "object", "properties": {"result": {"type": "null"}}, "required": ["result"]}


@pytest.mark.parametrize("hint", [Any, object, Own, Callable, "Unknown", Item | Any, AsText])
def test_outputs_without_hints_are_any_object(hint):
    assert schema_of(hint) == ANY


def test_a_predictions_schema_is_the_predictors_or_any_object():
    for hint in (dspy.Prediction, UNHINTED):
        schema = schema_of(hint, Predicts)
        assert "required" not in schema
        predicted, other = schema["anyOf"]
        assert predicted["required"] == ["code", "why", "score", "items"]
        assert predicted["properties"]["score"] == {"description": "of ten", "title": "Score", "type": "number"}
        assert predicted["properties"]["code"] == {"type": "string"}
        assert other == {"type": "object"}


class Raises:
    @classmethod
    def __get_pydantic_json_schema__(cls, *_):
        raise RuntimeError

    @classmethod
    def __get_pydantic_core_schema__(cls, *_):
        return pydantic.TypeAdapter(str).core_schema


class Unsendable(pydantic.BaseModel):
    value: int = pydantic.Field(json_schema_extra={"example": object()})


@pytest.mark.parametrize(
    "hint", [Raises, list[Raises], Unsendable, Annotated[int, pydantic.Field(examples=[float("nan")])]]
)
def test_one_programs_odd_hint_does_not_remove_the_others_from_the_document(hint):
    class Takes(dspy.Module):
        def forward(self, value: hint) -> hint: ...

    instance = Takes()
    entry = choose_entry(instance)
    odd = Program("Takes", "modules", "fast", instance, entry, schemas_of(instance, entry.method), Copier(instance))
    document = describe(CONFIG, {"Takes": odd, "Row0": PROGRAMS["Row0"]})
    json.dumps(document, allow_nan=False)
    schemas = document["components"]["schemas"]
    assert (schemas["TakesInputs"]["type"], schemas["TakesOutputs"]["type"]) == ("object", "object")
    assert schemas["Row0Outputs"]["required"] == ["name", "long_name"]
