import enum
from datetime import date
from typing import Annotated, Literal

import dspy
import pydantic
import pytest

ADAPTERS = pytest.mark.parametrize("adapter", [dspy.ChatAdapter(), dspy.JSONAdapter()])


class Colour(enum.Enum):
    RED = "red"


class Inner(pydantic.BaseModel):
    colours: list[Colour]
    kind: Literal["x", "y"]


class Everything(dspy.Signature):
    """Every kind of field."""

    question: str = dspy.InputField()
    text: str = dspy.OutputField()
    number: int = dspy.OutputField()
    amount: float = dspy.OutputField()
    sure: bool = dspy.OutputField()
    choice: Literal["a", "b"] = dspy.OutputField()
    items: list[Inner] = dspy.OutputField()
    maybe: str | None = dspy.OutputField()
    table: dict[str, int] = dspy.OutputField()


@pytest.fixture
def ask(models):
    """Call a signature with the model server's answers."""

    def ask(module, adapter=None, **inputs):
        lm = dspy.LM("openai/own-model", api_base=models.url, api_key="k", cache=False)
        with dspy.context(lm=lm, adapter=adapter or dspy.ChatAdapter()):
            made = module(**inputs)
        return made

    return ask


@ADAPTERS
def test_every_kind_of_output_field_gets_a_matching_value(models, ask, adapter):
    made = ask(dspy.ChainOfThought(Everything), adapter, question="What\n\nis it?")
    assert made.text == made.reasoning == "own-model: What\n\nis it?"
    assert (made.number, made.amount, made.sure, made.choice) == (42, 4.2, True, "a")
    assert made["items"] == [Inner(colours=[Colour.RED], kind="x")]
    assert models.stats()["requests"] == 1
    assert models.stats()["per_model"] == {"own-model": 1}


class Person(pydantic.BaseModel):
    name: str
    email: str | None


class Simple(dspy.Signature):
    """What XML can say without types of nested values."""

    question: str = dspy.InputField()
    text: str = dspy.OutputField()
    number: int = dspy.OutputField()
    choice: Literal["a", "b"] = dspy.OutputField()
    names: list[str] = dspy.OutputField()
    numbers: list[int] = dspy.OutputField()
    table: dict[str, int] = dspy.OutputField()
    author: Person = dspy.OutputField()


def test_the_xml_adapters_structure_is_filled_in(models, ask):
    made = ask(dspy.Predict(Simple), dspy.XMLAdapter(), question="Is 1 < 2 & 3?")
    echo = "own-model: Is 1 < 2 & 3?"
    assert dict(made.items()) == {
        "text": echo,
        "number": 42,
        "choice": "a",
        "names": [echo],
        "numbers": [42],
        "table": {},
        "author": Person(name=echo, email=echo),
    }
    assert models.stats()["requests"] == 1


class Ticket(dspy.Signature):
    """Fields whose names describe their content."""

    message: str = dspy.InputField()
    short_summary: str = dspy.OutputField()
    tags: list[str] = dspy.OutputField()
    author: Person = dspy.OutputField()
    confidence: float = dspy.OutputField()


@ADAPTERS
def test_samples_suit_their_field_names_and_quote_no_input(models, ask, adapter):
    models.behave(samples=True)
    made = ask(dspy.Predict(Ticket), adapter, message="secret words")
    assert made.toDict() == {
        "short_summary": "A sample short summary.",
        "tags": ["sample tag"],
        "author": {"name": "Ada Lovelace", "email": "ada@example.com"},
        "confidence": 0.9,
    }


class Review(pydantic.BaseModel):
    stars: int = pydantic.Field(ge=1, le=5)
    share: float = pydantic.Field(gt=0, lt=0.4)
    even: int = pydantic.Field(ge=51, multiple_of=2)
    title: str = pydantic.Field(max_length=8)
    nick: str = pydantic.Field(min_length=60)
    zip_code: str = pydantic.Field(pattern=r"^\d{5}$")
    when: date
    few: list[str] = pydantic.Field(min_length=3)
    none: list[int] = pydantic.Field(max_length=0)
    pair: tuple[int, str]
    replies: list["Review"]


class Bounded(dspy.Signature):
    """A field's own bounds are in the prompt's text, those within a model in its schema."""

    question: str = dspy.InputField()
    rating: int = dspy.OutputField(ge=1, le=5)
    points: int = dspy.OutputField(le=5)
    many: int = dspy.OutputField(gt=1000)
    chance: float = dspy.OutputField(desc="between 0 and 1", gt=0, lt=1)
    label: str = dspy.OutputField(max_length=10)
    names: list[str] = dspy.OutputField(min_length=2)
    review: Review = dspy.OutputField()
    answer: Annotated[str, "no bounds"] = dspy.OutputField()


@ADAPTERS
@pytest.mark.parametrize("samples", [True, False])
def test_model_answers_stay_within_the_bounds_of_their_fields(models, ask, adapter, samples):
    models.behave(samples=samples)
    made = ask(dspy.Predict(Bounded), adapter, question="Why?")
    assert made.review.replies  # it refers to itself; pydantic has checked its bounds
    assert models.stats()["requests"] == 1
    assert 1 <= made.rating <= 5
    assert made.points <= 5
    assert made.many > 1000
    assert 0 < made.chance < 1
    assert len(made.label) <= 10
    assert len(set(made.names)) >= 2


def test_a_react_agent_finishes_at_once_with_samples(models, ask):
    models.behave(samples=True)

    def look_up(word: str) -> str:
        return word

    made = ask(dspy.ReAct("question -> answer", tools=[look_up]), question="Why?")
    assert made.answer == "A sample answer."
    assert models.stats()["requests"] == 2


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_react_v2_agent_submits_by_calling_its_last_tool(models, ask):
    def look_up(topic: str = "any") -> str:
        """Look a topic up."""
        return topic

    agent = dspy.ReActV2("question -> answer: str, rating: int", tools=[look_up])
    found = ask(agent, question="why?")
    assert (found.answer, found.rating, found.termination_reason) == ("own-model: why?", 3, "submit")
