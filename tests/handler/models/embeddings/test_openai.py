import dspy
import pytest
from dspy.utils.exceptions import LMNotConfiguredError, LMProviderError

from dspy_lambda.models.embeddings.openai import OpenAIModel


def test_a_request_has_the_key_the_texts_and_the_options(provider, embedder):
    assert embedder(dimensions=2, user="u")(["a", "bb"]).tolist() == [[1.0, 1.0], [2.0, 1.0]]
    (received,) = provider.received
    assert received.path == "/embeddings"
    assert received.headers["authorization"] == "Bearer sk-embedding-key"
    assert received.body == {
        "model": "text-embedding-3-small",
        "input": ["a", "bb"],
        "encoding_format": "float",
        "dimensions": 2,
        "user": "u",
    }


def test_key_and_address_come_from_the_environment(provider, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", provider.url + "/v1/")
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    assert dspy.Embedder("text-embedding-3-small", caching=False)("abc").tolist() == [3.0, 1.0]
    assert provider.received[0].path == "/v1/embeddings"
    assert provider.received[0].headers["authorization"] == "Bearer from-the-environment"


def test_a_gateway_for_all_models_gets_embeddings_too(provider, embedder, monkeypatch):
    monkeypatch.setenv("DSPY_LAMBDA_API_BASE", provider.url + "/gateway")
    embedder(api_base="http://127.0.0.1:9")("a")
    assert provider.received[0].path == "/gateway/embeddings"


def test_without_a_key_openai_is_not_asked_and_the_error_names_the_variable(provider):
    with pytest.raises(LMNotConfiguredError, match="OPENAI_API_KEY"):
        OpenAIModel("text-embedding-3-small", {}).request(["a"])


def test_a_server_of_ones_own_needs_no_key(provider, embedder):
    embedder(api_key=None)("a")
    assert "authorization" not in provider.received[0].headers


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>",
        {"error": "with status 200"},
        {"data": []},
        {"data": [{"embedding": "AAAA"}]},
        {"data": [{"embedding": []}]},
        {"data": [None]},
        [],
    ],
)
def test_an_answer_without_embeddings_is_a_provider_error_and_not_retried(provider, embedder, answer):
    provider.answer = lambda _: answer
    with pytest.raises(LMProviderError, match="one embedding for each text"):
        embedder()("a")
    assert len(provider.received) == 1
