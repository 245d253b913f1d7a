import gc
import json

import pytest
from dspy.clients.base_lm import GLOBAL_HISTORY

from dspy_lambda.history import CallHistory
from tests.support import failures, sqs

SHARED = """
import asyncio, threading

module = dspy.Predict("question -> answer")  # of all calls
kept = {}

def asked(history):
    texts = [entry["prompt"] or entry["messages"][-1]["content"].split("]]")[1] for entry in history]
    return sorted(text.split()[0] for text in texts)

class Reads(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")
        self.own = dspy.LM("openai/own", api_key="k", cache=False)

    def forward(self, question: str) -> dict:
        answer = self.predict(question=question).answer
        last = dspy.settings.lm.history[-1]
        module(question=question + "-again")
        with dspy.context(lm=self.own):
            module(question=question + "-own")
        return {
            "last": [answer in last["outputs"][0], last["usage"]["prompt_tokens"] > 0, last["cost"] > 0],
            "lm": asked(dspy.settings.lm.history),
            "self": asked(self.history),
            "module": asked(module.history),
            "own": asked(self.own.history),
        }

class AReads(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")

    async def aforward(self, question: str) -> dict:
        lm = kept.setdefault("lm", dspy.settings.lm)
        await asyncio.gather(*(self.predict.acall(question=f"{question}-{n}") for n in range(2)))
        copied = dspy.settings.lm.copy()
        await copied.acall(f"{question}-copy")
        await lm.acall(f"{question}-kept")
        thread = threading.Thread(target=dspy.settings.lm, args=(f"{question}-thread",))
        thread.start()
        thread.join()
        return {
            "lm": asked(dspy.settings.lm.history),
            "copy": asked(copied.history),
            "self": asked(self.history),
            "kept": len(kept["lm"].history),
        }

class Bounded(dspy.Module):
    def forward(self, most: int, off: bool) -> int:
        with dspy.context(max_history_size=most, disable_history=off):
            for _ in range(3):
                dspy.settings.lm("q")
        return len(dspy.settings.lm.history)
"""


@pytest.fixture
def reads(make_project, make_serve, models, monkeypatch):
    monkeypatch.setenv("DSPY_LAMBDA_API_BASE", models.url)
    return make_serve(make_project({"reads": SHARED}))


def test_a_call_reads_its_own_history_and_no_shared_one(reads):
    for question in ("one", "two"):
        found = json.loads(reads.post("/Reads", {"question": question}).body)
        assert found == {
            "last": [True, True, True],
            "lm": [question, f"{question}-again"],
            "self": [question, f"{question}-again", f"{question}-own"],
            "module": [],
            "own": [],
        }


def test_an_lms_history_belongs_to_its_call_and_copies_have_their_own(reads):
    first, second = (json.loads(reads.post("/AReads", {"question": question}).body) for question in ("one", "two"))
    assert first == {
        "lm": ["one-0", "one-1", "one-kept", "one-thread"],
        "copy": ["one-copy"],
        "self": ["one-0", "one-1", "one-copy", "one-kept"],
        "kept": 4,
    }
    # The LM that the first call kept has only the first call's history.
    assert (second["lm"], second["kept"]) == (["two-0", "two-1", "two-thread"], 4)


@pytest.mark.parametrize(("most", "off", "kept"), [(2, False, 2), (0, False, 0), (9, True, 0)])
def test_dspys_settings_limit_a_calls_history(reads, most, off, kept):
    assert json.loads(reads.post("/Bounded", {"most": most, "off": off}).body) == {"result": kept}


def test_a_history_is_gone_with_its_call(reads):
    gc.collect()
    before, known = len(GLOBAL_HISTORY), {id(found) for found in histories()}
    assert failures(reads(sqs(*({"program": "Reads", "inputs": {"question": "q"}} for _ in range(10))))) == []
    gc.collect()
    left = [found for found in histories() if id(found) not in known and found]
    assert (left, len(GLOBAL_HISTORY)) == ([], before)


def histories():
    return [found for found in gc.get_objects() if type(found) is CallHistory]
