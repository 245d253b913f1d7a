import contextlib
import enum
import json
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional

import dspy
import pydantic
import pytest

from dspy_lambda.errors import InvalidInput
from dspy_lambda.programs import choose_entry
from dspy_lambda.schemas import Schemas, schemas_of


def schemas(program: dspy.Module) -> Schemas:
    return schemas_of(program, choose_entry(program).method)


class Colour(enum.Enum):
    RED = "red"


class Item(pydantic.BaseModel):
    name: str
    count: int = 1


class Hinted(dspy.Module):
    def forward(
        self,
        item: Item,
        colour: Colour,
        kind: Literal["a", "b"],
        tags: list[str],
        size: Annotated[int, pydantic.Field(ge=1)] = 3,
        note: str | None = None,
        copy: str = "x",
        schema: Any = None,
    ) -> Item: ...


def test_hints_convert_in_lax_mode_and_extra_fields_are_ignored():
    given = {"item": {"name": "n", "count": "2"}, "colour": "red", "kind": "a", "tags": [], "size": "4", "more": 1}
    values = schemas(Hinted()).inputs.validate(given)
    assert values == {"item": Item(name="n", count=2), "colour": Colour.RED, "kind": "a", "tags": [], "size": 4}


def test_absent_fields_are_left_to_pythons_own_defaults():
    values = schemas(Hinted()).inputs.validate({"item": {"name": "n"}, "colour": "red", "kind": "b", "tags": ["t"]})
    assert set(values) == {"item", "colour", "kind", "tags"}


def test_every_misfit_is_named_by_field_without_its_value():
    with pytest.raises(InvalidInput) as error:
        schemas(Hinted()).inputs.validate(
            {"item": {}, "colour": "secret", "kind": "secret", "tags": ["t", 5], "size": 0}
        )
    locations = [tuple(misfit["loc"]) for misfit in error.value.errors]
    assert locations == [("item", "name"), ("colour",), ("kind",), ("tags", 1), ("size",)]
    assert "secret" not in repr(error.value.errors) + str(error.value)
    assert all(set(misfit) == {"loc", "msg", "type"} for misfit in error.value.errors)


@pytest.mark.parametrize("inputs", [None, [], "text", 5, True])
def test_inputs_that_are_no_object_do_not_fit(inputs):
    with pytest.raises(InvalidInput, match="JSON object"):
        schemas(Hinted()).inputs.validate(inputs)


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
    assert predicted["properties"]["parts"]["items"]["$ref"] == "#/components/schemas/Unhinted.Item"


def test_a_bare_predict_takes_its_signature_with_its_defaults():
    found = schemas(dspy.Predict(Sized))
    assert found.inputs.validate({"text": "t", "level": 1}) == {"text": "t", "level": 1}
    assert found.input_schema["properties"]["mood"]["default"] == "good"


class Several(dspy.Module):
    def __init__(self):
        super().__init__()
        self.one = dspy.Predict("a -> b")
        self.two = dspy.Predict("b -> c")

    def forward(self, a: str) -> dspy.Prediction: ...


def test_outputs_of_several_predictors_are_not_guessed():
    assert schemas(Several()).output_schema == {"type": "object", "title": "SeveralOutputs"}


class Plain(dspy.Module):
    def forward(self, a: "str") -> list[int]: ...


def test_a_plain_result_stands_under_result():
    assert schemas(Plain()).output_schema["properties"]["result"]["type"] == "array"
    assert schemas(Hinted()).output_schema["properties"]["count"]["type"] == "integer"


class Picture(dspy.Module):
    async def aforward(self, image: dspy.Image) -> str: ...


def test_an_image_is_made_from_its_address():
    values = schemas(Picture()).inputs.validate({"image": "https://example.com/a.png"})
    assert isinstance(values["image"], dspy.Image)
    assert values["image"].url == "https://example.com/a.png"
    with pytest.raises(InvalidInput):
        schemas(Picture()).inputs.validate({"image": "/etc/passwd"})


def test_so_is_one_within_a_list_or_an_option():
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
def test_json_that_no_type_of_dspys_can_be_made_from_does_not_fit(kind):
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


def test_a_tool_cannot_be_made_from_json_but_code_and_reasoning_can_from_a_text():
    with pytest.raises(InvalidInput) as error:
        schemas(Tooled()).inputs.validate({"tools": [{"name": "secret"}]})
    assert [misfit["loc"] for misfit in error.value.errors] == [["tools", 0]]
    values = schemas(Texts()).inputs.validate({"code": "1 + 1", "why": "because"})
    assert (values["code"].code, values["why"].content) == ("1 + 1", "because")


class Careful(dspy.Module):
    async def aforward(
        self,
        image: dspy.Image | None = None,
        table: dict[str, int] | None = None,
        checked: Annotated[str, pydantic.AfterValidator(lambda v: 1 / 0 if v == "0" else check(v))] = "",
    ): ...


def check(value: str) -> str:
    raise ValueError(f"bad value {value}")


@pytest.mark.parametrize("inputs", [{"image": "secret"}, {"table": {"secret": "secret"}}, {"checked": "secret"}])
def test_no_misfit_quotes_what_the_caller_or_a_validator_wrote(inputs):
    with pytest.raises(InvalidInput) as error:
        schemas(Careful()).inputs.validate(inputs)
    assert error.value.errors[0]["loc"][0] in inputs
    assert "secret" not in repr(error.value.errors) + str(error.value)


class Partly(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question, context -> answer")

    def forward(self, question, tool: Callable = print, **more): ...


def test_fields_beside_named_parameters_are_optional_and_what_json_cannot_fill_is_left_out():
    found = schemas(Partly())
    assert found.inputs.validate({"question": "q", "tool": "x"}) == {"question": "q"}
    assert found.inputs.validate({"question": "q", "context": "c"}) == {"question": "q", "context": "c"}
    assert found.input_schema["required"] == ["question"]


class Hopeless(dspy.Module):
    def forward(self, a: int) -> "list[dspy.Prediction] | OnlyForTheTypeChecker": ...  # noqa: F821


class Listed(dspy.Module):
    def forward(self, a: int) -> list[dspy.Prediction]: ...


def test_a_return_hint_that_has_no_schema_is_any_object():
    assert schemas(Hopeless()).output_schema == {"type": "object", "title": "HopelessOutputs"}
    assert schemas(Listed()).output_schema["type"] == "object"


class Positional(dspy.Module):
    def forward(self, a: int, /): ...


def test_a_positional_only_parameter_is_refused():
    with pytest.raises(TypeError, match="positional-only"):
        schemas(Positional())


class Headlines(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("text -> headlines: list[str]")

    def forward(self, text: str) -> list[str]: ...


class Reasoned(Headlines):
    def __init__(self):
        super().__init__()
        self.predict = dspy.ChainOfThought("text -> headlines: list[str]")


class Acting(Headlines):
    def __init__(self):
        super().__init__()
        self.predict = dspy.ReAct("text -> headlines: list[str]", tools=[])


class Untyped(Headlines):
    def forward(self, text): ...


@pytest.mark.parametrize(
    ("program", "field"),
    [(Headlines, "headlines"), (Reasoned, "result"), (Acting, "headlines"), (Untyped, "result"), (Hinted, "result")],
)
def test_a_plain_result_goes_by_the_first_predictors_only_output_field(program, field):
    found = schemas(program())
    assert found.result_field == field
    if program is Headlines:
        assert list(found.output_schema["properties"]) == ["headlines"]


class Toned(dspy.Module):
    def forward(self, text: str, tone: Optional[str], size: int | None, mood: str = "good"): ...  # noqa: UP045


def test_a_parameter_that_may_be_none_may_be_left_out():
    found = schemas(Toned())
    assert found.inputs.validate({"text": "t"}) == {"text": "t", "tone": None, "size": None}
    assert found.inputs.validate({"text": "t", "tone": "dry", "size": "3"}) == {"text": "t", "tone": "dry", "size": 3}
    assert found.input_schema["required"] == ["text"]
    assert found.input_schema["properties"]["tone"]["default"] is None


class Review(pydantic.BaseModel):
    effort: int = pydantic.Field(alias="effort_[1-5]")


class Reviewer(dspy.Module):
    def forward(self, draft: Review) -> Review: ...


def test_aliases_are_of_inputs_alone():
    found = schemas(Reviewer())
    assert found.inputs.validate({"draft": {"effort_[1-5]": 2}})["draft"].effort == 2
    assert list(found.output_schema["properties"]) == ["effort"]


class Taking(dspy.Module):
    def forward(self, **inputs): ...


class TakingMore(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question: str -> answer")

    async def aforward(self, question: str, tool: Callable = print, **more): ...


def test_what_forward_takes_as_kwargs_is_passed_as_it_is():
    found = schemas(Taking())
    assert found.inputs.validate({"a": [1], "b": None}) == {"a": [1], "b": None}
    assert found.input_schema["additionalProperties"] is True
    found = schemas(TakingMore())
    assert found.inputs.validate({"question": "q", "k": 3, "tool": "x"}) == {"question": "q", "k": 3}
    with pytest.raises(InvalidInput):
        found.inputs.validate({"question": 5, "k": 3})


@pytest.mark.parametrize("name", ["config", "lm", "signature", "demos", "interpreter_factory", "max_iters", "self"])
def test_no_caller_reaches_what_dspys_modules_take_beside_their_fields(name):
    assert schemas(Taking()).inputs.validate({name: {"api_base": "http://localhost"}, "a": 1}) == {"a": 1}


class Configured(dspy.Module):
    def forward(self, config: dict, **more): ...


def test_a_declared_parameter_may_be_called_config():
    assert schemas(Configured()).inputs.validate({"config": {"a": 1}, "lm": 1}) == {"config": {"a": 1}}


@pytest.mark.parametrize(
    "make", [lambda: dspy.Predict(Sized), lambda: dspy.ReAct(Sized, tools=[]), lambda: dspy.ChainOfThought(Sized)]
)
def test_dspys_own_modules_take_their_signatures_fields_alone(make):
    found = schemas(make())
    assert found.inputs.validate({"text": "t", "level": 1, "trajectory": "x"}) == {"text": "t", "level": 1}
    assert set(found.input_schema["properties"]) == {"text", "level", "mood"}


class Retrieving(dspy.Module):
    def __init__(self):
        super().__init__()
        self.answer = dspy.Predict("context: list[str], question -> answer")
        self.search = dspy.Predict("question -> query")

    def forward(self, **inputs): ...


class Agent(dspy.Module):
    def __init__(self):
        super().__init__()
        self.steps = {"agent": dspy.ReAct("question -> answer", tools=[])}
        self.same = self.steps["agent"]

    def forward(self, **inputs): ...


def test_what_one_of_several_predictors_asks_for_is_not_required():
    found = schemas(Retrieving())
    assert found.inputs.validate({"question": "q"}) == {"question": "q"}
    assert "required" not in found.input_schema
    with pytest.raises(InvalidInput):
        found.inputs.validate({"question": "q", "context": 5})


def test_an_agent_is_one_predictor():
    found = schemas(Agent())
    assert found.input_schema["required"] == ["question"]
    assert set(found.input_schema["properties"]) == {"question"}


class Passages(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.ChainOfThought("context, question: str, k: int -> answer")

    def forward(self, context, question, k=None): ...


class Bounded(dspy.Signature):
    """A length is one of a text."""

    text = dspy.InputField(max_length=3)
    answer = dspy.OutputField()


def test_a_type_that_the_signature_leaves_out_is_not_checked():
    found = schemas(Passages())
    for context in (["a", "b"], {"title": "t"}, "text", None):
        inputs = {"context": context, "question": "q"}
        assert found.inputs.validate(inputs) == inputs
    assert found.input_schema["properties"]["context"] == {"title": "Context"}
    with pytest.raises(InvalidInput):
        found.inputs.validate({"context": [], "question": 5})
    with pytest.raises(InvalidInput):
        schemas(dspy.Predict(Bounded)).inputs.validate({"text": "long"})


def test_a_signatures_text_may_be_several_as_dspy_has_it():
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


def test_none_is_taken_where_it_is_the_default():
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


def test_other_defaults_are_shown_beside_it(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "planted-key")
    monkeypatch.setenv("SHORT", "plain")
    shown = schemas(Keyed()).input_schema
    assert shown["properties"]["tone"]["default"] == "kind"
    assert shown["$defs"]["Settings"]["properties"]["mode"]["default"] == "plain"


def test_an_answers_default_that_holds_a_variables_value_is_not_shown(monkeypatch):
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


def test_a_schema_is_made_only_when_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "dspy_lambda.answers", None)
    assert schemas(Keyed()).inputs.fields == {"q", "settings", "api_key", "tone"}


def test_the_text_that_an_image_is_made_from_is_documented():
    kinds = schemas(Picture()).input_schema["properties"]["image"]["anyOf"]
    assert kinds == [{"type": "string"}, {"$ref": "#/components/schemas/Picture.Image"}]
