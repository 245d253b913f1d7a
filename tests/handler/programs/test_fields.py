import contextlib
import json
import sys
from typing import Annotated, Any, Literal

import dspy
import pydantic
import pytest

from dspy_lambda.errors import InvalidInput
from tests.support import schemas


class Item(pydantic.BaseModel):
    name: str
    count: int = 1


class Sized(dspy.Signature):
    """Sizes."""

    text: str = dspy.InputField(desc="what to size")
    level: int = dspy.InputField(ge=1, le=5)
    mood: Literal["good", "bad"] = dspy.InputField(default="good")
    size: float = dspy.OutputField(desc="in metres")
    parts: list[Item] = dspy.OutputField()


class Unhinted(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict(Sized)

    def forward(self, text, level, other=None):
        return self.predict(text=text, level=level)


def test_missing_hints_come_from_the_signature():
    found = schemas(Unhinted())
    assert found.inputs.validate({"text": "t", "level": "2"}) == {"text": "t", "level": 2}
    with pytest.raises(InvalidInput) as error:
        found.inputs.validate({"text": 1, "level": 9})
    assert [misfit["loc"] for misfit in error.value.errors] == [["text"], ["level"]]
    properties = found.input_schema["properties"]
    assert properties["text"]["description"] == "what to size"
    assert (properties["level"]["minimum"], properties["level"]["maximum"]) == (1, 5)
    assert found.input_schema["required"] == ["text", "level"]
    predicted, _ = found.output_schema["anyOf"]
    assert predicted["properties"]["size"] == {"description": "in metres", "title": "Size", "type": "number"}
    assert predicted["properties"]["parts"]["items"]["$ref"] == "#/components/schemas/UnhintedOutputs.Item"


def test_a_bare_predict_uses_its_signature_and_its_defaults():
    found = schemas(dspy.Predict(Sized))
    assert found.inputs.validate({"text": "t", "level": 1}) == {"text": "t", "level": 1}
    assert found.input_schema["properties"]["mood"]["default"] == "good"


class Picture(dspy.Module):
    async def aforward(self, image: dspy.Image) -> str: ...


def test_an_image_is_created_from_its_url():
    values = schemas(Picture()).inputs.validate({"image": "https://example.com/a.png"})
    assert isinstance(values["image"], dspy.Image)
    assert values["image"].url == "https://example.com/a.png"
    with pytest.raises(InvalidInput):
        schemas(Picture()).inputs.validate({"image": "/etc/passwd"})


def test_images_in_lists_and_optional_fields_are_created_from_urls():
    given = {"images": ["https://example.com/a.png"], "one": "https://example.com/b.png"}
    values = schemas(Album()).inputs.validate(given)
    assert isinstance(values["images"][0], dspy.Image)
    assert isinstance(values["one"], dspy.Image)


class Album(dspy.Module):
    async def aforward(self, images: list[dspy.Image], one: dspy.Image | None = None): ...


TYPES = [kind for kind in vars(dspy).values() if isinstance(kind, type) and issubclass(kind, dspy.Type)]


JUNK = [
    *(None, 5, 1.5, True, "text", "/etc/passwd", [], [1], [{}], {}, {"func": "f"}, {"func": None, "name": "n"}),
    *({"url": 5}, {"url": "https://example.com", "download": True}, {"tool_calls": [{"name": 1}]}, {"code": 5}),
]


@pytest.mark.parametrize("kind", TYPES)
def test_json_that_does_not_match_a_dspy_type_is_invalid(kind):
    for hint in (kind, list[kind], kind | None, dict[str, kind]):

        class Takes(dspy.Module):
            def forward(self, value: hint): ...

        inputs = schemas(Takes()).inputs
        for junk in JUNK:
            for value in (junk, [junk], {"key": junk}):
                with contextlib.suppress(InvalidInput):
                    inputs.validate({"value": value})


class Tooled(dspy.Module):
    def forward(self, tools: list[dspy.Tool]): ...


class Texts(dspy.Module):
    def forward(self, code: dspy.Code, why: dspy.Reasoning): ...


def test_code_and_reasoning_are_created_from_a_string_but_a_tool_is_not():
    with pytest.raises(InvalidInput) as error:
        schemas(Tooled()).inputs.validate({"tools": [{"name": "secret"}]})
    assert [misfit["loc"] for misfit in error.value.errors] == [["tools", 0]]
    values = schemas(Texts()).inputs.validate({"code": "1 + 1", "why": "because"})
    assert (values["code"].code, values["why"].content) == ("1 + 1", "because")


class Passages(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.ChainOfThought("context, question: str, k: int -> answer")

    def forward(self, context, question, k=None): ...


class Bounded(dspy.Signature):
    """A length is one of a text."""

    text = dspy.InputField(max_length=3)
    answer = dspy.OutputField()


def test_a_signature_field_without_a_type_is_not_validated():
    found = schemas(Passages())
    for context in (["a", "b"], {"title": "t"}, "text", None):
        inputs = {"context": context, "question": "q"}
        assert found.inputs.validate(inputs) == inputs
    assert found.input_schema["properties"]["context"] == {"title": "Context"}
    with pytest.raises(InvalidInput):
        found.inputs.validate({"context": [], "question": 5})
    with pytest.raises(InvalidInput):
        schemas(dspy.Predict(Bounded)).inputs.validate({"text": "long"})


def test_a_signatures_str_field_accepts_a_list_of_strings_as_in_dspy():
    inputs = schemas(Passages()).inputs
    assert inputs.validate({"context": "c", "question": ["a", "b"]}) == {"context": "c", "question": ["a", "b"]}
    with pytest.raises(InvalidInput) as error:
        inputs.validate({"context": "c", "question": ["a", 5]})
    assert [misfit["loc"] for misfit in error.value.errors] == [["question"]]


class Defaulted(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("k: int, size: int -> answer")

    def forward(self, k: int = None, tags: Annotated[list, pydantic.Field(max_length=1)] = None, size=None, n=3): ...  # noqa: RUF013


def test_none_is_accepted_where_it_is_the_default():
    found = schemas(Defaulted())
    nothing = {"k": None, "tags": None, "size": None}
    assert found.inputs.validate(nothing) == nothing
    assert found.inputs.validate({"k": "3"}) == {"k": 3}
    for inputs in ({"k": "x"}, {"tags": [1, 2]}, {"size": "x"}):
        with pytest.raises(InvalidInput):
            found.inputs.validate(inputs)
    assert found.input_schema["properties"]["k"]["anyOf"] == [{"type": "integer"}, {"type": "null"}]


class Endless(dspy.Module):
    def forward(self, budget: float = float("inf"), least: float = float("nan"), most: float = 1.5): ...


def test_a_default_that_json_cannot_hold_is_not_shown():
    properties = schemas(Endless()).input_schema["properties"]
    assert ["default" in properties[name] for name in ("budget", "least", "most")] == [False, False, True]


class Settings(pydantic.BaseModel):
    key: str = "planted-key"
    headers: dict[str, str] = {"Authorization": "Bearer planted-key"}
    mode: str = "plain"


class Keyed(dspy.Module):
    def forward(self, q: str, settings: Settings, api_key: str = "planted-key", tone: str = "kind"): ...


class KeyedSignature(dspy.Signature):
    q: str = dspy.InputField()
    api_key: str = dspy.InputField(default="planted-key")
    answer: str = dspy.OutputField()


@pytest.mark.parametrize("program", [Keyed(), dspy.Predict(KeyedSignature)])
def test_a_default_that_holds_a_variables_value_is_not_shown(program, monkeypatch):
    assert "planted-key" in json.dumps(schemas(program).input_schema)
    monkeypatch.setenv("SOME_KEY", "planted-key")
    shown = schemas(program).input_schema
    assert "planted-key" not in json.dumps(shown)
    assert "api_key" not in shown["required"]


def test_other_defaults_are_shown_next_to_a_hidden_one(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "planted-key")
    monkeypatch.setenv("SHORT", "plain")
    shown = schemas(Keyed()).input_schema
    assert shown["properties"]["tone"]["default"] == "kind"
    assert shown["$defs"]["Settings"]["properties"]["mode"]["default"] == "plain"


def test_an_output_default_that_holds_a_variables_value_is_not_shown(monkeypatch):
    class Answers(dspy.Module):
        def forward(self, q: str) -> Settings: ...

    monkeypatch.setenv("SOME_KEY", "planted-key")
    assert "planted-key" not in json.dumps(schemas(Answers()).output_schema)


class Opaque:
    def __repr__(self):
        return "planted-key"


class Holding(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    client: Any = Opaque()


def test_no_warning_quotes_a_default(recwarn):
    class Takes(dspy.Module):
        def forward(self, holding: Holding, other: Holding | None = None): ...

    assert "planted-key" not in json.dumps(schemas(Takes()).input_schema)
    assert not [warning for warning in recwarn if "planted-key" in str(warning.message)]


def test_a_schema_is_created_only_on_demand(monkeypatch):
    monkeypatch.setitem(sys.modules, "dspy_lambda.programs.json_schema", None)
    assert schemas(Keyed()).inputs.fields == {"q", "settings", "api_key", "tone"}


def test_an_images_schema_includes_the_string_it_is_created_from():
    kinds = schemas(Picture()).input_schema["properties"]["image"]["anyOf"]
    assert kinds == [{"type": "string"}, {"$ref": "#/components/schemas/PictureInputs.Image"}]
