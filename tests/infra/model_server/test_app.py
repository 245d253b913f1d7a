"""What several wires and models have in common."""

import http.client
import json

import dspy
import pytest

from tests.infra.model_server.conftest import MODEL, ask
from tests.support import wait_until

CHAT = {"model": "m", "messages": [{"role": "user", "content": "one two three"}]}
DOORS = ["bedrock-chat", "bedrock-mantle-chat", "bedrock-anthropic"]


@pytest.fixture
def signing(models, monkeypatch):
    """The environment of a function: credentials, a region, and the server's address for DSPy's doors."""
    for name, value in models.aws_variables.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL_BEDROCK_MANTLE"):
        monkeypatch.setenv(name, models.address)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.usefixtures("signing")
def test_dspys_own_engine_signs_for_each_door(models, door):
    lm = dspy.LM(f"{door}:own-model", cache=False)
    with dspy.context(lm=lm):
        assert dspy.Predict("question -> answer")(question="What?").answer == "own-model: What?"
    assert models.stats()["answered"] == 1


def test_a_models_behavior_overrides_the_servers(models, send, bedrock):
    models.behave(samples=True, models={"m": {"samples": False}})
    text = json.loads(send("/v1/chat/completions", CHAT)[2])["choices"][0]["message"]["content"]
    assert text == "m: one two three"
    (block,) = bedrock().converse(**ask())["output"]["message"]["content"]
    assert block == {"text": "A sample answer from the embedded model."}


def test_one_models_latency_does_not_hold_up_another(models, send):
    models.behave(models={"slow": {"delay_seconds": 600}})
    connection = http.client.HTTPConnection(models.address.removeprefix("http://"), timeout=60)
    connection.request("POST", "/v1/chat/completions", json.dumps({**CHAT, "model": "slow"}))
    wait_until(lambda: models.stats()["in_flight"] == 1)
    assert send("/v1/chat/completions", CHAT)[0] == 200
    stats = models.stats()
    assert (stats["in_flight"], stats["models"]["slow"]["answered"], stats["models"]["m"]["answered"]) == (1, 0, 1)
    connection.close()


def test_tokens_are_summed_per_model_over_all_wires(models, send, bedrock):
    for _ in range(2):
        send("/v1/chat/completions", CHAT)
    send("/v1/messages", CHAT)
    list(bedrock().converse_stream(**ask("one two"))["stream"])
    stats = models.stats()
    assert {model: sums["requests"] for model, sums in stats["models"].items()} == {"m": 3, MODEL: 1}
    for name in ("answered", "prompt_tokens", "completion_tokens"):
        assert stats[name] == sum(sums[name] for sums in stats["models"].values())
    assert stats["prompt_tokens"] == 3 * 3 + 2


def test_a_request_in_no_known_form_gets_a_400_with_the_reason(send):
    status, _, body = send("/v1/chat/completions", {"model": "m"})
    assert (status, json.loads(body)["error"]["message"]) == (400, "KeyError: 'messages'")
