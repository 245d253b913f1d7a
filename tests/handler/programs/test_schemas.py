import dspy
import pydantic
import pytest

from tests.support import schemas


class Item(pydantic.BaseModel):
    name: str
    count: int = 1


class Making(dspy.Module):
    def forward(self, a: str) -> Item: ...


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


def test_a_plain_result_is_described_under_result():
    assert schemas(Plain()).output_schema["properties"]["result"]["type"] == "array"
    assert schemas(Making()).output_schema["properties"]["count"]["type"] == "integer"


class Hopeless(dspy.Module):
    def forward(self, a: int) -> "list[dspy.Prediction] | OnlyForTheTypeChecker": ...  # noqa: F821


class Listed(dspy.Module):
    def forward(self, a: int) -> list[dspy.Prediction]: ...


def test_a_return_hint_without_a_schema_is_any_object():
    assert schemas(Hopeless()).output_schema == {"type": "object", "title": "HopelessOutputs"}
    assert schemas(Listed()).output_schema["type"] == "object"


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
    [(Headlines, "headlines"), (Reasoned, "result"), (Acting, "headlines"), (Untyped, "result"), (Making, "result")],
)
def test_a_plain_result_is_named_after_the_first_predictors_only_output_field(program, field):
    found = schemas(program())
    assert found.result_field == field
    if program is Headlines:
        assert list(found.output_schema["properties"]) == ["headlines"]


class Review(pydantic.BaseModel):
    effort: int = pydantic.Field(alias="effort_[1-5]")


class Reviewer(dspy.Module):
    def forward(self, draft: Review) -> Review: ...


def test_aliases_apply_only_to_inputs():
    found = schemas(Reviewer())
    assert found.inputs.validate({"draft": {"effort_[1-5]": 2}})["draft"].effort == 2
    assert list(found.output_schema["properties"]) == ["effort"]
