import dspy
import pytest

from dspy_lambda.config.schema import Price
from dspy_lambda.errors import CallError
from dspy_lambda.models.prices import apply_price, token_price
from tests.support import AECHO, ECHO, without_retries

PRICE = {"input_per_million": 1000, "output_per_million": 2000}


def registry(model="openai/our-own", price=PRICE, **settings):
    entry = {"model": model, "env": "OPENAI_API_KEY", "cache": False, "price": price, **settings}
    return {"default": "m", "registry": {"m": entry}}


def expected(call):
    return pytest.approx(call["input_tokens"] * 0.001 + call["output_tokens"] * 0.002)


@pytest.mark.parametrize("source", [ECHO, AECHO], ids=["sync", "async"])
@pytest.mark.parametrize("model", ["openai/our-own", "openai/gpt-4.1-nano"], ids=["unknown", "known"])
def test_calls_cost_what_their_alias_says(make_project, make_serve, records, source, model):
    make_serve(make_project({"echo": source}, models=registry(model)))({"inputs": {"question": "q"}})
    (call,) = records().calls
    assert call["input_tokens"] > 0
    assert call["cost_usd"] == expected(call)


def test_a_copy_with_another_model_has_that_models_price(make_project, make_serve, records):
    source = ECHO.replace(
        "question=question)\n", 'question=question, lm=dspy.settings.lm.copy(model="openai/gpt-4.1"))\n'
    )
    make_serve(make_project({"echo": source}, models=registry()))({"inputs": {"question": "q"}})
    (call,) = records().calls
    assert call["cost_usd"] == pytest.approx((call["input_tokens"] * 2 + call["output_tokens"] * 8) / 1e6)


def test_the_answers_of_a_failed_lm_call_cost_what_their_alias_says(make_project, make_serve, records, models):
    ask = "question=question, config={'n': 8, 'temperature': 1.0}"
    project = make_project(
        {"echo": ECHO.replace("question=question)", f"{ask})")}, models=registry("anthropic/our-own")
    )
    serve = without_retries(make_serve(project))
    models.behave(unauthorized_rate=0.3, seed=5)  # the third candidate and others
    with pytest.raises(CallError):
        serve({"inputs": {"question": "q"}})
    (call,) = records().calls
    assert call["input_tokens"] > 0
    assert call["cost_usd"] == expected(call)


def test_cached_tokens_cost_as_much_as_others_unless_the_price_map_has_rates_for_them():
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 40}}
    price = Price(**PRICE)
    assert token_price(price, dspy.LM("openai/our-own"), None).cost_usd(usage) == pytest.approx(0.1 + 0.02)
    known = token_price(price, dspy.LM("bedrock/amazon.nova-lite-v1:0"), None)
    assert known.cache_read == pytest.approx(0.015e-6)
    assert known.cost_usd(usage) == pytest.approx(0.06 + 40 * 0.015e-6 + 0.02)


def test_an_answer_without_token_counts_has_no_cost():
    lm = dspy.LM("openai/our-own")
    lm.price = token_price(Price(**PRICE), lm, None)
    assert apply_price(lm, {"usage": {"total_tokens": 5}, "cost": 1.0})["cost"] is None


def test_a_cache_hit_and_an_lm_without_a_price_keep_their_entries():
    lm = dspy.LM("openai/our-own")
    assert apply_price(lm, {"usage": {"prompt_tokens": 5}, "cost": 1.0})["cost"] == 1.0
    lm.price = token_price(Price(**PRICE), lm, None)
    assert apply_price(lm, {"usage": {}, "cost": 1.0}) == {"usage": {}, "cost": 1.0}
