import asyncio
import subprocess
import sys
import time
from types import SimpleNamespace

import dspy
import pytest
from dspy.utils.exceptions import LMAuthError, LMRateLimitError, LMServerError, LMTransportError

from dspy_lambda.call import CALL
from dspy_lambda.deadline import DEADLINE
from dspy_lambda.errors import DeadlineExceeded
from dspy_lambda.models.embeddings import calls
from dspy_lambda.provider_bounds.attempts import pause_before_retry
from dspy_lambda.usage import Usage

from .conftest import openai_answer


class CountingCall:
    lm_error = None

    def __init__(self):
        self.usage = Usage()


@pytest.fixture
def call():
    """The call that runs in this context, with its usage."""
    made = CountingCall()
    token = CALL.set(made)
    yield made
    CALL.reset(token)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(calls, "pause_before_retry", lambda error, attempt: 0)


@pytest.fixture(params=["sync", "async"])
def run(request, embedder):
    """Call an embedder in both ways."""

    def ask(texts, **options):
        made = embedder(**options)
        return made(texts) if request.param == "sync" else asyncio.run(made.acall(texts))

    return ask


def test_batches_are_requested_in_order(provider, run):
    texts = ["a" * size for size in range(1, 6)]
    assert run(texts, batch_size=2)[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert [len(received.body["input"]) for received in provider.received] == [2, 2, 1]


def test_requests_share_a_connection(provider, embedder):
    for _ in range(3):
        embedder()("a")
    assert len(provider.connections) == 1

    async def on_loop():
        for _ in range(3):
            await embedder().acall("a")

    asyncio.run(on_loop())
    assert len(provider.connections) == 2


def test_cached_embeddings_are_not_requested_again(provider, run, monkeypatch):
    monkeypatch.setattr(dspy, "cache", dspy.clients.cache.Cache(False, True, "", memory_max_entries=10))
    assert run("cached", caching=True).tolist() == run("cached", caching=True).tolist() == [6.0, 1.0]
    assert len(provider.received) == 1
    run("cached")
    assert len(provider.received) == 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_transient_failures_are_retried(provider, run, status):
    provider.then((status, {}, {"error": "later"}), (status, {}, {"error": "later"}))
    assert run("abc").tolist() == [3.0, 1.0]
    assert len(provider.received) == 3


@pytest.mark.parametrize(
    ("status", "kind", "requests"), [(429, LMRateLimitError, 2), (502, LMServerError, 2), (401, LMAuthError, 1)]
)
def test_failures_that_remain_are_dspys_typed_errors(provider, run, status, kind, requests):
    provider.answer = lambda _: (status, {"Retry-After": 7}, {"error": "no"})
    with pytest.raises(kind) as raised:
        run("a", num_retries=1)
    assert (raised.value.status, raised.value.retry_after) == (status, 7.0)
    assert len(provider.received) == requests


def test_a_provider_that_cannot_be_reached_is_a_transport_error(provider, run):
    with pytest.raises(LMTransportError):
        run("a", api_base="http://127.0.0.1:9", num_retries=0)


def test_no_retry_outlasts_the_deadline(provider, embedder, monkeypatch):
    monkeypatch.setattr(calls, "pause_before_retry", pause_before_retry)
    provider.answer = lambda _: (429, {"Retry-After": 3600}, {})
    DEADLINE.set(time.monotonic() + 20)
    with pytest.raises(LMRateLimitError):
        embedder()("a")
    assert len(provider.received) == 1
    DEADLINE.set(time.monotonic() - 1)
    with pytest.raises(DeadlineExceeded):
        embedder()("a")
    assert len(provider.received) == 1


def test_tokens_and_cost_are_counted_but_are_no_lm_calls(provider, run, call):
    run(["a", "b", "c"], batch_size=2)
    assert call.usage.fields() == {
        "input_tokens": 30,
        "output_tokens": 0,
        "cost_usd": 6e-07,  # of text-embedding-3-small: 0.02 USD per million
        "lm_calls": 0,
        "cache_hits": 0,
    }


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": "5"}, {"prompt_tokens": -5}, {"prompt_tokens": 10**400}])
def test_the_cost_of_unreported_tokens_is_unknown(provider, run, call, usage):
    provider.answer = lambda body: {"data": openai_answer(body)["data"], "usage": usage}
    run("a")
    assert call.usage.fields() | {"lm_calls": 0} == {
        "input_tokens": 0,
        "output_tokens": 0,
        "cost_usd": None,
        "lm_calls": 0,
        "cache_hits": 0,
    }


def test_embeddings_on_bedrock_cost_what_they_do_in_their_region(provider, call, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "k")
    monkeypatch.setenv("DSPY_LAMBDA_API_BASE", provider.url)
    provider.answer = lambda _: {"embedding": [1.0], "inputTextTokenCount": 3}
    options = {"aws_region_name": "us-gov-west-1", "caching": False}
    dspy.Embedder("bedrock/amazon.titan-embed-text-v2:0", **options)("a")
    assert call.usage.fields()["cost_usd"] == 6e-07  # 0.2 USD per million; elsewhere a tenth


def test_litellm_is_never_imported(provider):
    script = f"""
import asyncio, sys, dspy
from dspy_lambda.dspy_patches.patch import apply_patches
from dspy_lambda.models.embeddings import HOSTED_EMBEDDINGS
sys.modules["litellm"] = None
assert apply_patches([HOSTED_EMBEDDINGS]) == {{}}
embed = dspy.Embedder("openai/text-embedding-3-small", api_base={provider.url!r}, api_key="k")
assert embed("abc").tolist() == asyncio.run(embed.acall("abc")).tolist() == [3.0, 1.0]
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_other_models_are_still_litellms(provider, monkeypatch):
    asked = []

    class LiteLLM:
        cache = None

        def embedding(self, *, model, input, **_):
            asked.append(model)
            return SimpleNamespace(data=[{"embedding": [9.0]} for _ in input])

    monkeypatch.setattr("dspy.clients.embedding._get_litellm", LiteLLM)
    assert dspy.Embedder("voyage/voyage-3", caching=False)("a").tolist() == [9.0]
    assert (asked, provider.received) == (["voyage/voyage-3"], [])


PROGRAM = """
class Search(dspy.Module):
    def __init__(self):
        super().__init__()
        self.embed = dspy.Embedder("openai/text-embedding-3-small", caching=False, num_retries=0)

    async def aforward(self, question: str) -> dict[str, int]:
        return {"size": len(await self.embed.acall(question))}
"""


def test_a_programs_embeddings_are_in_its_log_record(make_project, make_serve, models, records, monkeypatch):
    monkeypatch.setenv("DSPY_LAMBDA_API_BASE", models.url)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    serve = make_serve(make_project({"search": PROGRAM}))
    assert serve({"program": "Search", "inputs": {"question": "three words here"}})["outputs"] == {"size": 1536}
    (record,) = records().calls
    assert (record["input_tokens"], record["cost_usd"], record["lm_calls"]) == (3, 6e-08, 0)


def test_connections_that_were_idle_for_long_are_not_used_again(make_project, make_serve, provider, monkeypatch):
    monkeypatch.setenv("DSPY_LAMBDA_API_BASE", provider.url)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    serve = make_serve(make_project({"search": PROGRAM}))
    for idle in (0, 0, serve.environment.settings.idle_seconds + 1):
        serve.environment._last_used -= idle
        serve({"program": "Search", "inputs": {"question": "x"}})
    assert (len(provider.received), len(provider.connections)) == (3, 2)


def test_a_providers_rate_limit_of_embeddings_is_the_callers(make_project, make_serve, provider, records, monkeypatch):
    provider.answer = lambda _: (429, {"Retry-After": 9}, {})
    monkeypatch.setenv("DSPY_LAMBDA_API_BASE", provider.url)
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    answer = make_serve(make_project({"search": PROGRAM})).post("/Search", {"question": "x"})
    assert (answer.status, dict(answer.headers)["retry-after"]) == (429, "9")
    assert records().calls[0]["outcome"] == "rate_limited"
