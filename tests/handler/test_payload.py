import contextlib
import json
import math
import threading

import dspy
import pydantic
import pytest
from dspy.adapters.types.tool import ToolCallResults
from dspy.utils import DummyLM
from hypothesis import given
from hypothesis import strategies as st

from dspy_lambda.errors import InvalidInput, ProgramFailed
from dspy_lambda.payload import MAX_BODY_BYTES, read_json, read_value, to_outputs

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@given(JSON)
def test_json_reads_as_the_standard_library_reads_it(value):
    assert read_json(json.dumps(value)) == value
    assert read_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=60))
def test_bytes_read_as_json_or_are_refused(body):
    with contextlib.suppress(InvalidInput):
        json.dumps(read_json(body))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b" \n", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"NaN", 400),
        (b"[" * 100_000, 400),
        (b"[" * 500 + b"]" * 500, 400),
        (b"1" * 5000, 400),
        (rb'{"a": "\ud800"}', 422),
        (rb'{"a": "\udc00\ud800"}', 422),
        (rb'{"a": "\ud800A"}', 422),
        (rb'{"a": "\ud800"', 400),
        (rb'{"a": "\u12"}', 400),
        ('{"a": "\ud800"}', 422),
        (b'"' + b"a" * MAX_BODY_BYTES, 413),
    ],
)
def test_unreadable_bodies_have_their_own_status(body, status):
    with pytest.raises(InvalidInput) as error:
        read_json(body)
    assert error.value.status == status


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ({"a": "\ud800"}, 422),
        ({"a": [{"deep": "x\udfff"}]}, 422),
        ({"\ud800": 1}, 422),
        ({"a": math.nan}, 400),
        ({"a": 10**5000}, 400),
        (nested(300), 400),
        (nested(100_000), 400),
    ],
    ids=range(7),
)
def test_parsed_values_are_checked_by_the_same_rules(value, status):
    with pytest.raises(InvalidInput) as error:
        read_value(value)
    assert error.value.status == status


@given(JSON)
def test_values_that_json_can_represent_are_unchanged(value):
    assert read_value(value) == value


def test_text_keeps_nul_and_whole_surrogate_pairs():
    assert read_json(rb'{"a": "\u0000\ud83d\ude00"}') == {"a": "\0😀"}


def test_a_whole_surrogate_pair_next_to_another_error_is_not_reported_as_half():
    for body in (rb'{"q": NaN, "r": "\ud83d\ude00"}', rb'{"r": "\ud83d\ude00"'):
        with pytest.raises(InvalidInput) as error:
            read_json(body)
        assert error.value.status == 400


class Aliased(pydantic.BaseModel):
    effort: int = pydantic.Field(alias="effort_[1-5]")


class Model(pydantic.BaseModel):
    when: float


@pytest.mark.parametrize(
    ("result", "outputs"),
    [
        (dspy.Prediction(answer="a", score=math.nan), {"answer": "a", "score": None}),
        ({"a": math.inf, "b": (1, 2)}, {"a": None, "b": [1, 2]}),
        (Model(when=1.5), {"when": 1.5}),
        ({"raw": b"\xff"}, {"raw": "_w=="}),
        (Model(when=math.nan), {"when": None}),
        ({"m": Model(when=math.inf)}, {"m": {"when": None}}),
        ({"a": dspy.Prediction(b=1), "c": [dspy.Prediction(d="\ud800")]}, {"a": {"b": 1}, "c": [{"d": "\ufffd"}]}),
        ("text", {"result": "text"}),
        (None, {"result": None}),
        (Aliased.model_validate({"effort_[1-5]": 3}), {"effort": 3}),
        (dspy.Prediction(review=Aliased.model_validate({"effort_[1-5]": 3})), {"review": {"effort": 3}}),
        ([1, Model(when=2)], {"result": [1, {"when": 2.0}]}),
        ({"a": "half \ud800 pair", "\udfff": ["\ud801"]}, {"a": "half \ufffd pair", "\ufffd": ["\ufffd"]}),
    ],
)
def test_results_become_json_objects(result, outputs):
    assert json.loads(to_outputs(result)) == outputs
    json.dumps(outputs, allow_nan=False).encode()


class Observed:
    """What a tool may return: of a class that JSON knows nothing of."""

    def __init__(self, text="seen"):
        self.text = text

    def __str__(self):
        if self.text is None:
            raise ValueError
        return self.text


def events(value):
    result = ToolCallResults.ToolCallResult(name="look_up", value=value)
    return dspy.History(messages=[{"question": "q", "results": ToolCallResults(tool_call_results=[result])}])


@pytest.mark.parametrize(
    ("result", "outputs"),
    [
        (dspy.Prediction(trajectory={"observation_0": Observed()}), {"trajectory": {"observation_0": "seen"}}),
        (dspy.Prediction(trajectory={"o": Observed(None)}), {"trajectory": {"o": "Observed"}}),
        (dspy.Prediction(trajectory={"o": Observed("\ud800")}), {"trajectory": {"o": "\ufffd"}}),
        (
            {"trajectory": {"o": Observed(), "n": 1, "t": "\ud800"}},
            {"trajectory": {"o": "seen", "n": 1, "t": "\ufffd"}},
        ),
        ({"own": dspy.Prediction(trajectory=[{"o": Observed()}])}, {"own": {"trajectory": [{"o": "seen"}]}}),
        ({"trajectory": {Observed(): {Observed}, 1: b"a"}}, {"trajectory": {"seen": str({Observed}), "1": "YQ=="}}),
        (
            {"trajectory": {"o": Model(when=math.inf)}, (1, 2): "\ud800"},
            {"trajectory": {"o": {"when": None}}, "1,2": "\ufffd"},
        ),
    ],
    ids=range(7),
)
def test_an_agents_tool_results_become_text_if_json_cannot_represent_them(result, outputs):
    assert json.loads(to_outputs(result)) == outputs


def test_a_react_whose_tool_returns_an_object_is_answered():
    def look_up() -> Observed:
        return Observed()

    def turn(tool):
        return {"next_thought": "t", "next_tool_name": tool, "next_tool_args": {}}

    with dspy.context(lm=DummyLM([turn("look_up"), turn("finish"), {"reasoning": "r", "answer": "a"}])):
        result = dspy.ReAct("question -> answer", tools=[look_up])(question="q")
    outputs = json.loads(to_outputs(result))
    assert (outputs["answer"], outputs["trajectory"]["observation_0"]) == ("a", "seen")


def test_react_v2s_tool_results_become_text_in_its_history():
    (message,) = json.loads(to_outputs(dspy.Prediction(history=events(Observed()))))["history"]["messages"]
    assert message["results"]["tool_call_results"][0]["value"] == "seen"


def test_outputs_that_json_cannot_represent_are_named_next_to_a_trajectory():
    with pytest.raises(ProgramFailed, match=r"result \(lock\)"):
        to_outputs(dspy.Prediction(trajectory={"o": Observed()}, answer=threading.Lock()))


class Circle(list):
    pass


CIRCLE = Circle()
CIRCLE.append(CIRCLE)


async def _asynchronous():
    yield 1


async def _never_awaited(): ...


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (object, "object"),
        (lambda: {"a": {1: object()}}, "object"),
        (lambda: dspy.Prediction(a=threading.Lock()), "lock"),
        (lambda: (n for n in range(3)), "generator"),
        (_asynchronous, "async_generator"),
        (_never_awaited, "coroutine"),
        (lambda: {"a": 10**5000}, "a number too large"),
        (lambda: nested(300), "too deep"),
        (lambda: CIRCLE, "a cycle"),
    ],
    ids=range(9),
)
def test_a_result_that_json_cannot_represent_is_named(make, kind):
    with pytest.raises(ProgramFailed, match=rf"result \(.*{kind}.*\); return a Prediction"):
        to_outputs(make())


def test_a_result_that_is_not_an_object_is_named_after_its_field():
    assert json.loads(to_outputs(["a"], field="headlines")) == {"headlines": ["a"]}
    assert json.loads(to_outputs({"a": 1}, field="headlines")) == {"a": 1}


def test_half_a_surrogate_pair_is_refused_in_a_sentence():
    with pytest.raises(
        InvalidInput, match=r"^The text contains half of a surrogate pair, which cannot be sent to a model\.$"
    ):
        read_json(b'{"a": "\\ud800"}')
