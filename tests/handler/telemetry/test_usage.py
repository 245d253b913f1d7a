from types import SimpleNamespace

import pytest

from dspy_lambda.telemetry.usage import Usage

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
    ],
)
def test_a_cache_hit_is_told_from_an_answer_without_usage(entry, hits, tokens, cost):
    usage = Usage()
    usage.add(entry)
    assert (usage.lm_calls, usage.cache_hits, usage.input_tokens, usage.cost_usd) == (1, hits, tokens, cost)
