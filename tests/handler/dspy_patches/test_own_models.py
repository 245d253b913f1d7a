"""LMs that programs hold or make themselves: connections, limits, deadlines, usage and keys, over the wire."""

import asyncio
import copy
import os

import dspy
import pytest

from dspy_lambda.dspy_patches import own_models
from dspy_lambda.dspy_patches.own_models import close_pools, renew_keys
from dspy_lambda.limits import shared_limit
from dspy_lambda.warm import before_snapshot
from tests.support import Context, failures, sqs

# Held as a module-level singleton with `set_lm` and as an attribute, passed to a constructor, and made for each call.
PROGRAMS = """
import os

def made(options):
    settings = {**OPTIONS, **options}
    return dspy.LM("openai/gpt-4.1-nano", **{name: value for name, value in settings.items() if value is not None})

OPTIONS = {"api_base": os.environ["MODEL_URL"], "api_key": "k", "cache": False, "timeout": 120}
SINGLE = dspy.LM("openai/gpt-4.1-nano", max_parallel_requests=2000, **OPTIONS)

class _Inner(dspy.Module):
    def __init__(self, lm):
        super().__init__()
        self.lm = lm
        self.predict = dspy.Predict("question -> answer")
    def forward(self, question):
        with dspy.context(lm=self.lm):
            return self.predict(question=question)
    async def aforward(self, question):
        with dspy.context(lm=self.lm):
            return await self.predict.acall(question=question)

class Held(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")
        self.predict.set_lm(SINGLE)
        self.inner = _Inner(SINGLE)
    def forward(self, question: str) -> list[str]:
        return [self.predict(question=question).answer, self.inner(question=question).answer]

class AHeld(Held):
    async def aforward(self, question: str) -> list[str]:
        return [(await part.acall(question=question)).answer for part in (self.predict, self.inner)]

class Made(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")
    def forward(self, question: str, options: dict = {}) -> list[str]:
        lm = made(options)
        answer = self.predict(question=question, lm=lm).answer
        lm.close()
        return [answer]

class AMade(dspy.Module):
    def __init__(self):
        super().__init__()
        self.predict = dspy.Predict("question -> answer")
    async def aforward(self, question: str, options: dict = {}) -> list[str]:
        lm = made(options)
        answer = (await self.predict.acall(question=question, lm=lm)).answer
        await lm.aclose()
        return [answer]
"""
BOTH = pytest.mark.parametrize("program", ["Made", "AMade"])
ALL = pytest.mark.parametrize("program", ["Held", "AHeld", "Made", "AMade"])


@pytest.fixture(autouse=True)
def _no_pools_of_other_tests():
    """LMs of other tests in this process share theirs, too, on loops that have ended."""
    for pools in own_models._pools:
        pools.clear()


@pytest.fixture
def serve(make_project, make_serve, models, monkeypatch):
    monkeypatch.setenv("MODEL_URL", models.url)
    serve = make_serve(make_project({"own": PROGRAMS}), DSPY_LAMBDA_API_BASE="")
    serve.environment.use_loop().run_until_complete(close_pools())  # of other tests
    yield serve
    serve.environment.use_loop().run_until_complete(close_pools())


def ask(program, **inputs):
    return {"program": program, "inputs": {"question": "q", **inputs}}


@BOTH
def test_lms_made_in_each_call_share_one_connection(serve, models, program):
    for _ in range(50):
        serve(ask(program))
    assert (models.stats()["requests"], models.stats()["connections"]) == (50, 1)


@BOTH
def test_other_settings_have_another_pool(serve, models, program):
    for _ in range(2):
        for options in ({}, {"timeout": 60}, {"api_key": "other"}, {"temperature": 0.5}):
            serve(ask(program, options=options))
    assert models.stats()["connections"] == 3  # the temperature is of the request


@BOTH
def test_distinct_settings_in_each_call_do_not_collect_pools(serve, monkeypatch, program):
    monkeypatch.setattr(own_models, "_MAX_POOLS", 4)
    for seconds in range(10):
        serve(ask(program, options={"timeout": 60 + seconds}))
    assert [len(pools) for pools in own_models._pools if pools] == [4]


@BOTH
def test_an_lm_that_one_call_closes_serves_the_others(serve, models, program):
    models.behave(delay_seconds=0.02)
    assert failures(serve(sqs(*[ask(program)] * 20))) == []
    assert models.stats()["answered"] == 20


@ALL
def test_tokens_and_cost_count_and_no_history_grows(serve, models, records, program):
    serve(ask(program))
    (call,), stats = records().calls, models.stats()
    assert (call["input_tokens"], call["output_tokens"]) == (stats["prompt_tokens"], stats["completion_tokens"])
    assert call["lm_calls"] == stats["answered"] == (2 if "Held" in program else 1)
    assert call["cost_usd"] > 0
    lms = [predictor.lm for predictor in serve.environment.programs[program].instance.predictors() if predictor.lm]
    assert all(lm.history == [] for lm in lms)


@ALL
def test_a_retry_after_of_an_hour_is_answered_by_the_deadline(serve, models, program):
    models.behave(rate_limit_rate=1, retry_after_seconds=3600)
    answer = serve.post(f"/{program}", {"question": "q"}, context=Context(remaining_ms=8_000))
    assert (answer.status, dict(answer.headers)["retry-after"]) == (429, "3600")
    assert models.stats()["requests"] == 1


@BOTH
def test_a_retry_that_fits_into_the_deadline_is_made(serve, models, records, program):
    models.behave(rate_limit_rate=0.5, retry_after_seconds=1, seed=1)  # the first draw is below 0.5, the second above
    assert serve.post(f"/{program}", {"question": "q"}).status == 200
    assert (models.stats()["requests"], records().calls[0]["lm_calls"]) == (2, 1)


@ALL
def test_a_silent_provider_is_answered_by_the_deadline(serve, models, records, program):
    models.behave(hang_rate=1)
    assert serve.post(f"/{program}", {"question": "q"}, context=Context(remaining_ms=3_000)).status == 504
    assert records().calls[0]["outcome"] == "deadline"


@BOTH
@pytest.mark.parametrize("most", [1, 3])
def test_max_parallel_requests_is_this_process_own_limit(serve, models, program, most):
    models.behave(delay_seconds=0.05)
    batch = sqs(*[ask(program, options={"max_parallel_requests": most})] * 9)
    assert failures(serve(batch)) == []
    assert (models.stats()["peak_in_flight"], models.stats()["answered"]) == (most, 9)


def test_a_limit_of_one_call_replaces_the_constructors(models):
    async def run():
        lm = dspy.LM("openai/m", api_base=models.url, api_key="k", cache=False, max_parallel_requests=1)
        await asyncio.gather(*(lm.copy(temperature=n / 10).acall("q", max_parallel_requests=2) for n in range(6)))
        two = models.stats()["peak_in_flight"]
        models.behave(delay_seconds=0.05)
        await asyncio.gather(*(lm.copy(temperature=n / 10).acall("q") for n in range(4)))
        await close_pools()
        return two, models.stats()["peak_in_flight"]

    models.behave(delay_seconds=0.05)
    assert asyncio.run(run()) == (2, 1)


@pytest.mark.parametrize("most", [0, -1, "5", True, 1.5])
def test_a_limit_that_is_not_a_positive_integer_is_refused(models, most):
    lm = dspy.LM("openai/m", api_base=models.url, api_key="k", max_parallel_requests=most)
    with pytest.raises(ValueError, match="max_parallel_requests must be a positive integer"):
        lm("q")


def test_equal_lms_share_a_limit_only_while_one_is_in_use():
    client = ("openai/m", "chat", ("api_key", "'k'"))
    limit = shared_limit(client, 5)
    assert shared_limit(client, 5) is limit
    assert shared_limit(client, 6) is not limit
    assert shared_limit(("openai/other", *client[1:]), 5) is not limit


def test_copies_share_their_pool(serve):
    lm = dspy.LM("openai/m", api_key="k", max_parallel_requests=3)
    for copied in (lm.copy(temperature=0.1), copy.copy(lm), copy.deepcopy(lm), dspy.LM("openai/other", api_key="k")):
        assert copied._engine_store is lm._engine_store
        assert copied._engine_lock is lm._engine_lock
    alias = next(iter(serve.environment.models.values()))
    assert alias._engine_store is not lm._engine_store


class Repeats(dspy.LM):
    """A project's own LM class."""

    def forward(self, prompt=None, messages=None, **kwargs):
        return super().forward(prompt, messages, **kwargs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_lm_class_that_calls_dspys_forward_takes_one_slot(serve, models):
    lm = Repeats("openai/m", api_base=models.url, api_key="k", cache=False, max_parallel_requests=1)
    assert lm("q") == ["m: q"]
    assert lm("q", max_parallel_requests=1) == ["m: q"]


@pytest.mark.parametrize("program", ["Held", "AHeld"])
def test_connections_are_closed_after_a_long_freeze(serve, models, program):
    serve(ask(program))
    serve.environment._last_used -= serve.environment.settings.idle_seconds + 1
    serve(ask(program))
    assert models.stats()["connections"] == 2


def test_a_snapshot_holds_no_connections(serve):
    serve(ask("Made"))
    serve(ask("AMade"))
    before_snapshot(serve.environment)
    assert not any(own_models._pools)


@BOTH
def test_a_renewed_key_is_also_of_lms_made_with_the_old_one(serve, models, program):
    models.behave(key="sk-b-0123456789")
    assert serve.post(f"/{program}", {"question": "q", "options": {"api_key": "sk-a-0123456789"}}).status == 502
    renew_keys({"sk-a-0123456789": "sk-b-0123456789"})
    assert serve.post(f"/{program}", {"question": "q", "options": {"api_key": "sk-a-0123456789"}}).status == 200
    models.behave(key="sk-c-0123456789")
    renew_keys({"sk-b-0123456789": "sk-c-0123456789"})
    assert serve.post(f"/{program}", {"question": "q", "options": {"api_key": "sk-a-0123456789"}}).status == 200
    models.behave(key="sk-a-0123456789")
    renew_keys({"sk-c-0123456789": "sk-a-0123456789"})
    assert serve.post(f"/{program}", {"question": "q", "options": {"api_key": "sk-a-0123456789"}}).status == 200


@BOTH
def test_a_key_that_dspy_reads_from_the_environment_is_read_again(serve, models, monkeypatch, program):
    options = {"api_key": None}
    monkeypatch.setitem(os.environ, "OPENAI_API_KEY", "sk-d-0123456789")
    serve.environment.process.note(["OPENAI_API_KEY"])
    models.behave(key="sk-d-0123456789")
    assert serve.post(f"/{program}", {"question": "q", "options": options}).status == 200
    models.behave(key="sk-e-0123456789")
    monkeypatch.setitem(os.environ, "OPENAI_API_KEY", "sk-e-0123456789")
    serve.environment.process.note(["OPENAI_API_KEY"])
    renew_keys({"sk-d-0123456789": "sk-e-0123456789"})
    assert serve.post(f"/{program}", {"question": "q", "options": options}).status == 200


@pytest.mark.parametrize("program", ["Held", "AHeld"])
def test_litellm_is_never_imported_for_them(serve, program, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "litellm", None)
    assert serve.post(f"/{program}", {"question": "q"}).status == 200
