"""Mixed calls over every API that models are called through: what the logs say was used is what the provider billed."""

import math
import random
from collections import Counter

import pytest

from tests.stress.conftest import SCALE
from tests.support import failures, sqs

# Each with its price in USD for a million input and output tokens in DSPy 3.4.1's price map.
MODELS = {
    "openai/gpt-4.1-nano": (0.1, 0.4),
    "bedrock/amazon.nova-lite-v1:0": (0.06, 0.24),
    "bedrock-chat:openai.gpt-oss-120b-1:0": (0.15, 0.6),
    "bedrock-mantle-chat:openai.gpt-oss-20b": (0.07, 0.3),
    "bedrock-anthropic:anthropic.claude-haiku-4-5-20251001-v1:0": (1.0, 5.0),
}
PROGRAMS = """
class {name}(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.ChainOfThought("question -> answer")

    {entry}
"""
SYNC = "def forward(self, question: str): return self.predict(question=question)"
ASYNC = "async def aforward(self, question: str): return await self.predict.acall(question=question)"


@pytest.fixture
def serve(make_project, make_serve, models, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    for name, value in models.aws_variables.items():
        monkeypatch.setenv(name, value)
    registry = {
        f"m{i}": {"model": model, "cache": False, **({"env": "OPENAI_API_KEY"} if model.startswith("openai") else {})}
        for i, model in enumerate(MODELS)
    }
    names = {f"{kind}{i}": (f"m{i}", entry) for i in range(len(MODELS)) for kind, entry in (("S", SYNC), ("A", ASYNC))}
    modules = {name.lower(): PROGRAMS.format(name=name, entry=entry) for name, (_, entry) in names.items()}
    project = make_project(
        modules,
        models={"default": "m0", "registry": registry},
        program_models={name: alias for name, (alias, _) in names.items()},
    )
    return make_serve(project)


def test_tokens_and_cost_in_the_log_are_the_providers_over_all_doors(serve, models, records):
    calls = 200 * SCALE
    names = sorted(serve.environment.programs)
    chosen = [names[i % len(names)] for i in range(calls)]
    random.Random(1).shuffle(chosen)
    for start in range(0, calls, 100):
        some = chosen[start : start + 100]
        batch = [{"program": name, "inputs": {"question": "why " * (1 + i % 40)}} for i, name in enumerate(some)]
        assert failures(serve(sqs(*batch))) == []
    logged = records().calls
    billed = models.stats()["models"]
    assert len(logged) == calls == sum(one["answered"] for one in billed.values())
    tokens = Counter()
    for call in logged:
        tokens.update({kind: call[f"{kind}_tokens"] for kind in ("input", "output")})
    assert tokens["input"] == sum(one["prompt_tokens"] for one in billed.values())
    assert tokens["output"] == sum(one["completion_tokens"] for one in billed.values())
    prices = {model.partition("/")[2] if "/" in model else model.partition(":")[2]: p for model, p in MODELS.items()}
    cost = sum(
        one["prompt_tokens"] * prices[model][0] + one["completion_tokens"] * prices[model][1]
        for model, one in billed.items()
    )
    assert math.isclose(sum(call["cost_usd"] for call in logged), cost / 1e6, rel_tol=1e-9)
