import enum
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional

import dspy
import pydantic
import pytest

from dspy_lambda.errors import InvalidInput
from tests.support import schemas


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


def test_absent_fields_get_pythons_defaults():
    values = schemas(Hinted()).inputs.validate({"item": {"name": "n"}, "colour": "red", "kind": "b", "tags": ["t"]})
    assert set(values) == {"item", "colour", "kind", "tags"}


def test_a_validation_message_names_field_and_reason_within_a_length_limit():
    inputs = {"item": {"name": "n"}, "colour": "red", "kind": "secret", "tags": ["t", 5]}
    with pytest.raises(InvalidInput) as error:
        schemas(Hinted()).inputs.validate(inputs)
    assert str(error.value).startswith("The inputs do not fit the program: kind: Input should be ")
    assert str(error.value).endswith("; tags.1: Input should be a valid string.")
    with pytest.raises(InvalidInput) as error:
        schemas(Hinted()).inputs.validate(inputs | {"tags": [5] * 200})
    assert len(str(error.value)) < 1000
    assert len(error.value.errors) == 100


def test_every_validation_error_names_its_field_but_not_the_value():
    with pytest.raises(InvalidInput) as error:
        schemas(Hinted()).inputs.validate(
            {"item": {}, "colour": "secret", "kind": "secret", "tags": ["t", 5], "size": 0}
        )
    locations = [tuple(misfit["loc"]) for misfit in error.value.errors]
    assert locations == [("item", "name"), ("colour",), ("kind",), ("tags", 1), ("size",)]
    assert "secret" not in repr(error.value.errors) + str(error.value)
    assert all(set(misfit) == {"loc", "msg", "type"} for misfit in error.value.errors)


@pytest.mark.parametrize("inputs", [None, [], "text", 5, True])
def test_inputs_that_are_not_an_object_are_invalid(inputs):
    with pytest.raises(InvalidInput, match="JSON object"):
        schemas(Hinted()).inputs.validate(inputs)


class Sized(dspy.Signature):
    text: str = dspy.InputField()
    level: int = dspy.InputField()
    mood: str = dspy.InputField(default="good")
    size: float = dspy.OutputField()


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
def test_no_validation_error_quotes_the_caller_or_a_validator(inputs):
    with pytest.raises(InvalidInput) as error:
        schemas(Careful()).inputs.validate(inputs)
    assert error.value.errors[0]["loc"][0] in inputs
    assert "secret" not in repr(error.value.errors) + str(error.value)


class Partly(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question, context -> answer")

    def forward(self, question, tool: Callable = print, **more): ...


def test_signature_fields_besides_named_parameters_are_optional_and_parameters_without_json_are_left_out():
    found = schemas(Partly())
    assert found.inputs.validate({"question": "q", "tool": "x"}) == {"question": "q"}
    assert found.inputs.validate({"question": "q", "context": "c"}) == {"question": "q", "context": "c"}
    assert found.input_schema["required"] == ["question"]


class Positional(dspy.Module):
    def forward(self, a: int, /): ...


def test_a_positional_only_parameter_is_refused():
    with pytest.raises(TypeError, match="positional-only"):
        schemas(Positional())


class Toned(dspy.Module):
    def forward(self, text: str, tone: Optional[str], size: int | None, mood: str = "good"): ...  # noqa: UP045


def test_a_parameter_that_allows_none_is_optional():
    found = schemas(Toned())
    assert found.inputs.validate({"text": "t"}) == {"text": "t", "tone": None, "size": None}
    assert found.inputs.validate({"text": "t", "tone": "dry", "size": "3"}) == {"text": "t", "tone": "dry", "size": 3}
    assert found.input_schema["required"] == ["text"]
    assert found.input_schema["properties"]["tone"]["default"] is None


class Taking(dspy.Module):
    def forward(self, **inputs): ...


class TakingMore(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question: str -> answer")

    async def aforward(self, question: str, tool: Callable = print, **more): ...


def test_kwargs_are_passed_to_forward_unchanged():
    found = schemas(Taking())
    assert found.inputs.validate({"a": [1], "b": None}) == {"a": [1], "b": None}
    assert found.input_schema["additionalProperties"] is True
    found = schemas(TakingMore())
    assert found.inputs.validate({"question": "q", "k": 3, "tool": "x"}) == {"question": "q", "k": 3}
    with pytest.raises(InvalidInput):
        found.inputs.validate({"question": 5, "k": 3})


@pytest.mark.parametrize("name", ["config", "lm", "signature", "demos", "interpreter_factory", "max_iters", "self"])
def test_callers_cannot_set_dspy_module_arguments_that_are_not_fields(name):
    assert schemas(Taking()).inputs.validate({name: {"api_base": "http://localhost"}, "a": 1}) == {"a": 1}


class Configured(dspy.Module):
    def forward(self, config: dict, **more): ...


def test_a_declared_parameter_may_be_called_config():
    assert schemas(Configured()).inputs.validate({"config": {"a": 1}, "lm": 1}) == {"config": {"a": 1}}


@pytest.mark.parametrize(
    "make", [lambda: dspy.Predict(Sized), lambda: dspy.ReAct(Sized, tools=[]), lambda: dspy.ChainOfThought(Sized)]
)
def test_dspys_own_modules_accept_only_their_signatures_fields(make):
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


def test_fields_of_one_of_several_predictors_are_not_required():
    found = schemas(Retrieving())
    assert found.inputs.validate({"question": "q"}) == {"question": "q"}
    assert "required" not in found.input_schema
    with pytest.raises(InvalidInput):
        found.inputs.validate({"question": "q", "context": 5})


def test_an_agent_counts_as_one_predictor():
    found = schemas(Agent())
    assert found.input_schema["required"] == ["question"]
    assert set(found.input_schema["properties"]) == {"question"}
