import asyncio

import dspy
import pytest
from dspy.utils.exceptions import LMAuthError, LMNotConfiguredError, LMRateLimitError, LMServerError

from dspy_lambda.models.embeddings.bedrock import bedrock_model

TITAN = "bedrock/amazon.titan-embed-text-v2:0"
COHERE = "bedrock/cohere.embed-english-v3"


@pytest.fixture(autouse=True)
def _role(provider, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    monkeypatch.setenv("DSPY_LAMBDA_API_BASE", provider.url)


@pytest.mark.parametrize("on_loop", [False, True])
def test_titan_gets_each_text_in_a_signed_request(provider, on_loop):
    provider.answer = lambda body: {"embedding": [float(len(body["inputText"]))], "inputTextTokenCount": 3}
    embedder = dspy.Embedder(TITAN, caching=False, dimensions=256, normalize=True)
    texts = ["a" * size for size in range(1, 31)]
    found = asyncio.run(embedder.acall(texts)) if on_loop else embedder(texts)
    assert found[:, 0].tolist() == list(range(1, 31))
    assert {received.path for received in provider.received} == {"/model/amazon.titan-embed-text-v2%3A0/invoke"}
    body = next(received.body for received in provider.received if received.body["inputText"] == "a")
    assert body == {"inputText": "a", "dimensions": 256, "normalize": True}
    headers = provider.received[0].headers
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/eu-west-1/bedrock/aws4_request" in headers["authorization"]
    assert headers["x-amz-security-token"] == "token"


@pytest.mark.parametrize("grouped", [False, True])
def test_cohere_gets_96_texts_per_request(provider, grouped):
    def answer(body):
        vectors = [[float(len(text))] for text in body["texts"]]
        return 200, {"X-Amzn-Bedrock-Input-Token-Count": 5}, {"embeddings": {"float": vectors} if grouped else vectors}

    provider.answer = answer
    texts = ["a" * size for size in range(1, 101)]
    assert dspy.Embedder(COHERE, caching=False)(texts)[:, 0].tolist() == list(range(1, 101))
    assert sorted(len(received.body["texts"]) for received in provider.received) == [4, 96]
    assert {received.body["input_type"] for received in provider.received} == {"search_document"}


def test_coheres_options_are_sent(provider):
    provider.answer = lambda body: {"embeddings": [[1.0]]}
    dspy.Embedder(COHERE, caching=False, input_type="search_query", truncate="END", dimensions=256)("a")
    assert provider.received[0].body == {
        "texts": ["a"],
        "input_type": "search_query",
        "truncate": "END",
        "output_dimension": 256,
    }


def test_the_tokens_of_both_are_read():
    from dspy_lambda.dspy_patches.http_client import Answer

    titan = Answer(200, [], b'{"embedding": [1.0], "inputTextTokenCount": 7}')
    assert bedrock_model("amazon.titan-embed-text-v1", {}).vectors(titan, ["a"]).tokens == 7
    cohere = Answer(200, [("X-Amzn-Bedrock-Input-Token-Count", "8")], b'{"embeddings": [[1.0]]}')
    assert bedrock_model("cohere.embed-english-v3", {}).vectors(cohere, ["a"]).tokens == 8
    assert bedrock_model("cohere.embed-english-v3", {}).vectors(cohere._replace(headers=[]), ["a"]).tokens is None


def test_requests_go_to_the_models_region(monkeypatch):
    monkeypatch.delenv("DSPY_LAMBDA_API_BASE")
    request = bedrock_model("amazon.titan-embed-text-v2:0", {"aws_region_name": "us-east-1"}).request(["a"])
    assert request.url == (
        "https://bedrock-runtime.us-east-1.amazonaws.com/model/amazon.titan-embed-text-v2%3A0/invoke"
    )


def test_a_missing_region_is_named(monkeypatch):
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with pytest.raises(LMNotConfiguredError, match="AWS_REGION"):
        dspy.Embedder(TITAN, caching=False)("a")


@pytest.mark.parametrize("on_loop", [False, True])
def test_denied_access_names_the_role_instead_of_a_key_to_pass(provider, on_loop):
    provider.answer = lambda _: (403, {}, {"message": "not authorized to perform: bedrock:InvokeModel"})
    embedder = dspy.Embedder(TITAN, caching=False)
    with pytest.raises(LMAuthError, match="bedrock:InvokeModel") as raised:
        asyncio.run(embedder.acall(["a"])) if on_loop else embedder("a")
    assert "the function's role needs this action" in str(raised.value)
    assert "api_key" not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [(400, "ServiceQuotaExceededException", LMRateLimitError), (424, "ModelErrorException", LMServerError)],
)
def test_errors_are_those_of_bedrock_whatever_their_status(provider, status, kind, error):
    provider.answer = lambda _: (status, {"x-amzn-ErrorType": kind}, {"message": "m"})
    with pytest.raises(error):
        dspy.Embedder(TITAN, caching=False, num_retries=0)("a")


def test_a_bedrock_api_key_is_preferred_to_the_role(provider, monkeypatch):
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key")
    provider.answer = lambda _: {"embedding": [1.0]}
    dspy.Embedder(TITAN, caching=False)("a")
    assert provider.received[0].headers["authorization"] == "Bearer bedrock-api-key"
    assert "x-amz-date" not in provider.received[0].headers
