import json
import sys
from types import SimpleNamespace

import pytest
from dspy.clients.base_lm import GLOBAL_HISTORY

from dspy_lambda.usage import Usage

REPORTED = SimpleNamespace(usage=SimpleNamespace(input_tokens=7, output_tokens=2))
SILENT = SimpleNamespace(usage=SimpleNamespace(input_tokens=None, output_tokens=None))


@pytest.mark.parametrize(
    ("entry", "hits", "tokens", "cost"),
    [
        ({"usage": {"prompt_tokens": 7, "completion_tokens": 2}, "cost": 0.5, "response": REPORTED}, 0, 7, 0.5),
        ({"usage": {"prompt_tokens": 7}, "cost": None, "response": REPORTED}, 0, 7, None),
        ({"usage": {}, "cost": 0.5, "response": REPORTED}, 1, 0, 0.0),
        ({"usage": {}, "cost": 0.5, "response": {"usage": {"prompt_tokens": 7}}}, 1, 0, 0.0),
        # A provider that reports no usage was not free.
        ({"usage": {}, "cost": None, "response": SILENT}, 0, 0, None),
        ({"usage": {}, "cost": 0.5, "response": {}}, 0, 0, None),
        # As LiteLLM returns it for the Responses API.
        ({"usage": {"input_tokens": 7, "output_tokens": 2}, "cost": 0.5, "response": REPORTED}, 0, 7, 0.5),
        # As a program's own LM may write it.
        ({"usage": None, "prompt": "q"}, 0, 0, None),
        ({}, 0, 0, None),
        ({"usage": {"prompt_tokens": "many"}, "cost": "a lot", "response": "r"}, 0, 0, None),
        ({"usage": ["many"], "cost": float("nan"), "response": 1}, 0, 0, None),
        ({"usage": {"prompt_tokens": 10**400}, "cost": 10**400}, 0, 0, None),
        ({"usage": {"prompt_tokens": -7}, "cost": -0.5}, 0, 0, None),
    ],
)
def test_a_cache_hit_is_distinguished_from_an_answer_without_usage(entry, hits, tokens, cost):
    usage = Usage()
    usage.add(entry)
    assert (usage.lm_calls, usage.cache_hits, usage.input_tokens, usage.cost_usd) == (1, hits, tokens, cost)


OWN = """
class Own(dspy.BaseLM):
    def __call__(self, prompt=None, messages=None, **kwargs):
        self.update_history({"prompt": prompt, "outputs": ["blue"]})
        return ["blue"]

class Asks(dspy.Module):
    def __init__(self):
        super().__init__()
        self.lm = Own("own/lm")

    def forward(self, question: str) -> list:
        return [self.lm(question), len(self.lm.history)]
"""


def test_an_lm_that_writes_its_own_history_without_usage_is_counted(make_project, make_serve, records):
    serve = make_serve(make_project({"asks": OWN}))
    assert json.loads(serve.post("/Asks", {"question": "q"}).body) == {"result": [["blue"], 0]}
    (call,) = records().calls
    assert (call["outcome"], call["lm_calls"], call["input_tokens"], call["cost_usd"]) == ("success", 1, 0, None)


JUDGES = """
import dspy.experimental

class Judges(dspy.Module):
    def __init__(self):
        super().__init__()
        self.judge = dspy.experimental.TypeSafe(api_key="k", cache=False)

    def forward(self, text: str) -> list:
        return [self.judge({"text": text}, {"fits": "Does it fit?"})["fits"]["noul"], len(self.judge.history)]
"""


class TypeSafeClient:
    """Replaces typesafe_sdk's."""

    def __init__(self, **_):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def system_one(self, state, questions):
        usage = SimpleNamespace(input_tokens=95, output_tokens=12)
        answers = {name: SimpleNamespace(noul=0.5) for name in questions}
        return SimpleNamespace(model="jev", usage=usage, answers=answers)


def test_answers_of_typesafe_are_counted_but_not_stored(make_project, make_serve, records, monkeypatch):
    monkeypatch.setitem(sys.modules, "typesafe_sdk", SimpleNamespace(TypeSafeClient=TypeSafeClient))
    serve, before = make_serve(make_project({"judges": JUDGES})), len(GLOBAL_HISTORY)
    assert json.loads(serve.post("/Judges", {"text": "t"}).body) == {"result": [0.5, 0]}
    (call,) = records().calls
    assert (call["lm_calls"], call["input_tokens"], call["output_tokens"]) == (1, 95, 12)
    assert len(GLOBAL_HISTORY) == before


def test_embeddings_count_tokens_and_cost_but_no_lm_call():
    late = []
    usage = Usage(late.append)
    usage.add_embeddings(5, 0.25)
    assert usage.fields() == {"input_tokens": 5, "output_tokens": 0, "cost_usd": 0.25, "lm_calls": 0, "cache_hits": 0}
    usage.close()
    usage.add_embeddings(7, None)
    (answer,) = late
    assert answer.fields() == {"input_tokens": 7, "output_tokens": 0, "cost_usd": None, "lm_calls": 0, "cache_hits": 0}
