import enum
import json
import urllib.error
import urllib.request
from typing import Literal

import dspy
import pydantic
import pytest


class Colour(enum.Enum):
    RED = "red"


class Inner(pydantic.BaseModel):
    colours: list[Colour]
    kind: Literal["x", "y"]


class Everything(dspy.Signature):
    """All that a signature can ask for."""

    question: str = dspy.InputField()
    text: str = dspy.OutputField()
    number: int = dspy.OutputField()
    share: float = dspy.OutputField()
    sure: bool = dspy.OutputField()
    choice: Literal["a", "b"] = dspy.OutputField()
    items: list[Inner] = dspy.OutputField()
    maybe: str | None = dspy.OutputField()
    table: dict[str, int] = dspy.OutputField()


@pytest.mark.parametrize("adapter", [dspy.ChatAdapter(), dspy.JSONAdapter()])
def test_every_kind_of_field_gets_a_value_that_fits(models, adapter):
    lm = dspy.LM("openai/own-model", api_base=models.url, api_key="k", cache=False)
    with dspy.context(lm=lm, adapter=adapter):
        made = dspy.ChainOfThought(Everything)(question="What\n\nis it?")
    assert made.text == made.reasoning == "own-model: What\n\nis it?"
    assert (made.number, made.share, made.sure, made.choice) == (42, 4.2, True, "a")
    assert made["items"] == [Inner(colours=[Colour.RED], kind="x")]
    assert models.stats()["requests"] == 1
    assert models.stats()["per_model"] == {"own-model": 1}


def post(models):
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
    request = urllib.request.Request(f"{models.url}/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


@pytest.mark.parametrize(
    ("behaviour", "status", "retry_after"),
    [
        ({"error_rate": 1}, 500, None),
        ({"rate_limit_rate": 1, "retry_after_seconds": 7}, 429, "7"),
        ({"rate_limit_rate": 1}, 429, None),
        ({"unauthorized_rate": 1}, 401, None),
    ],
)
def test_faults_have_their_status(models, behaviour, status, retry_after):
    models.behave(**behaviour)
    with pytest.raises(urllib.error.HTTPError) as error:
        post(models)
    assert (error.value.code, error.value.headers.get("Retry-After")) == (status, retry_after)


def test_a_dropped_connection_has_no_answer(models):
    models.behave(drop_rate=1)
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the moment
        post(models)


def test_rates_are_drawn_from_the_seed_and_behave_starts_anew(models):
    def fates():
        models.behave(error_rate=0.5, seed=3)
        seen = []
        for _ in range(20):
            try:
                post(models)
                seen.append("ok")
            except urllib.error.HTTPError:
                seen.append("error")
        return seen

    first = fates()
    assert first == fates()
    assert set(first) == {"ok", "error"}
    models.behave()
    assert post(models)["choices"][0]["message"]["content"] == "m: hi"
    assert models.stats()["requests"] == 1
