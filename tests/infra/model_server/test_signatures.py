import json
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
from botocore.auth import SigV4Auth
from botocore.exceptions import ClientError

from dspy_lambda_infra.model_server.behavior import Behavior
from dspy_lambda_infra.model_server.signatures import Received, refuse
from tests.infra.model_server.conftest import MODEL, ask

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
MESSAGES = {**CHAT, "max_tokens": 10}
CONVERSE = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
# Each door, and which service signs for it.
DOORS = [
    ("/openai/v1/chat/completions", CHAT, "bedrock"),
    ("/v1/openai/v1/chat/completions", CHAT, "bedrock"),
    ("/v1/chat/completions", CHAT, "bedrock-mantle"),
    ("/anthropic/v1/messages", MESSAGES, "bedrock-mantle"),
    ("/model/amazon.nova-lite-v1%3A0/converse", CONVERSE, "bedrock"),
    ("/model/amazon.nova-lite-v1:0/converse-stream", CONVERSE, "bedrock"),
    ("/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A1%3Ainference-profile%2Fx/converse", CONVERSE, "bedrock"),
    ("/model/amazon.titan-embed-text-v2%3A0/invoke", {"inputText": "hi"}, "bedrock"),
]


@pytest.mark.parametrize(("path", "body", "service"), DOORS)
def test_each_door_accepts_the_signature_of_its_service_only(models, send, sign, path, body, service):
    assert send(path, body, **sign(path, body, service))[0] == 200
    other = "bedrock" if service == "bedrock-mantle" else "bedrock-mantle"
    status, headers, answer = send(path, body, **sign(path, body, other))
    assert (status, headers["x-amzn-ErrorType"]) == (403, "InvalidSignatureException")
    assert json.loads(answer) == {"message": f"Credential should be scoped to correct service: '{service}'."}
    assert models.stats()["answered"] == 1


@pytest.mark.parametrize(("path", "body", "service"), DOORS)
def test_each_door_refuses_a_changed_body(send, sign, path, body, service):
    status, headers, _ = send(path, {**body, "more": 1}, **sign(path, body, service))
    assert (status, headers["x-amzn-ErrorType"]) == (403, "InvalidSignatureException")


def test_a_signature_is_of_its_path_and_its_headers(send, sign):
    headers = sign(f"/model/{MODEL}/converse", CONVERSE, "bedrock")
    for path, more in [(f"/model/{MODEL}/converse-stream", {}), (f"/model/{MODEL}/converse", {"x_amz_other": "1"})]:
        assert send(path, CONVERSE, **headers, **more)[1]["x-amzn-ErrorType"] == "InvalidSignatureException"


def test_the_path_of_a_signature_is_encoded_twice(send, sign, monkeypatch):
    path = "/model/amazon.nova-lite-v1%3A0/converse"
    with monkeypatch.context() as patch:
        patch.setattr(SigV4Auth, "_normalize_url_path", lambda _, path: path)  # as S3 signs
        headers = sign(path, CONVERSE, "bedrock")
    assert send(path, CONVERSE, **headers)[1]["x-amzn-ErrorType"] == "InvalidSignatureException"


def test_a_list_of_models_needs_no_signature_but_no_wrong_one(models):
    with urllib.request.urlopen(f"{models.url}/models", timeout=60) as answer:
        assert json.load(answer)["data"] == []
    wrong = urllib.request.Request(f"{models.url}/models", headers={"Authorization": "AWS4-HMAC-SHA256 nonsense"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(wrong, timeout=60)


@pytest.mark.parametrize("path", [path for path, *_ in DOORS if path != "/v1/chat/completions"])
def test_each_door_of_bedrock_refuses_an_unsigned_request(send, path):
    body = next(body for door, body, _ in DOORS if door == path)
    status, headers, answer = send(path, body)
    assert (status, headers["x-amzn-ErrorType"]) == (403, "MissingAuthenticationTokenException")
    assert json.loads(answer) == {"message": "Missing Authentication Token"}


@pytest.mark.parametrize(
    ("pair", "behavior", "error"),
    [
        ({"access_key": "other"}, {}, "UnrecognizedClientException"),
        ({"secret_key": "other"}, {}, "InvalidSignatureException"),
        ({"token": "unknown"}, {}, "UnrecognizedClientException"),
        ({"token": "t"}, {"credentials": [{"session_token": "t", "expired": True}]}, "ExpiredTokenException"),
        ({}, {"credentials": [{"session_token": "t"}]}, "UnrecognizedClientException"),
        ({}, {"clock_offset_seconds": 400}, "InvalidSignatureException"),
        ({}, {"clock_offset_seconds": -400}, "InvalidSignatureException"),
    ],
)
def test_botocore_reads_the_refusal_of_its_request(models, bedrock, pair, behavior, error):
    models.behave(**behavior)
    with pytest.raises(ClientError) as refused:
        bedrock(**pair).converse(**ask())
    assert refused.value.response["Error"]["Code"] == error
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    stats = models.stats()
    assert (stats["requests"], stats["answered"]) == (1, 0)


def test_any_of_several_credentials_may_sign(models, bedrock):
    models.behave(credentials=[{"expired": True}, {"access_key": "new", "secret_key": "s", "session_token": "t"}])
    assert bedrock("new", "s", "t").converse(**ask())["stopReason"] == "end_turn"
    with pytest.raises(ClientError, match="ExpiredTokenException"):
        bedrock().converse(**ask())


def test_signatures_need_not_be_verified(models, send):
    models.behave(verify_signatures=False)
    assert send(f"/model/{MODEL}/converse", CONVERSE)[0] == 200


def test_a_bearer_token_is_accepted_where_it_is_configured(models, send):
    path = f"/model/{MODEL}/converse"
    status, headers, _ = send(path, CONVERSE, Authorization="Bearer b")
    assert (status, headers["x-amzn-ErrorType"]) == (403, "AccessDeniedException")
    models.behave(bearer_token="b")
    assert send(path, CONVERSE, Authorization="Bearer b")[0] == 200
    assert send("/anthropic/v1/messages", MESSAGES, x_api_key="b")[0] == 200
    assert send(path, CONVERSE, Authorization="Bearer c")[0] == 403


def test_another_key_at_openais_own_path_is_not_a_signature(send):
    assert send("/v1/chat/completions", CHAT, Authorization="Bearer anything")[0] == 200


NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SCOPE = "Credential=local/20260131/eu-west-1/bedrock/aws4_request"


def refuse_with(authorization, **headers):
    headers = {"host": "h", "x-amz-date": "20260131T120000Z", "authorization": authorization, **headers}
    received = Received("POST", "/model/m/converse", {n.replace("_", "-"): v for n, v in headers.items()}, b"{}")
    return refuse(received, "bedrock", Behavior(), NOW).message


@pytest.mark.parametrize(
    ("authorization", "headers", "message"),
    [
        ("AWS4-HMAC-SHA256 nonsense", {}, "not a valid"),
        (f"{SCOPE}, SignedHeaders=host;x-amz-date", {"x_amz_date": "today"}, "ISO-8601"),
        (f"{SCOPE}, SignedHeaders=host;x-amz-date", {"x_amz_date": "20260130T235900Z"}, "Credential scope"),
        (f"{SCOPE}, SignedHeaders=host;x-amz-date", {"x_amz_date": "20260131T115459Z"}, "Signature expired"),
        (f"{SCOPE}, SignedHeaders=host;x-amz-date", {"x_amz_date": "20260131T120501Z"}, "not yet current"),
        (f"{SCOPE}, SignedHeaders=x-amz-date", {}, "'host' must be"),
        (f"{SCOPE}, SignedHeaders=host", {}, "'x-amz-date' must be"),
        (f"{SCOPE}, SignedHeaders=x-amz-date;host", {}, "sorted"),
        (f"{SCOPE}, SignedHeaders=host;x-amz-content-sha256;x-amz-date", {"x_amz_content_sha256": "0"}, "sha256"),
        (f"{SCOPE}, SignedHeaders=host;x-amz-date", {"x_amz_date": "20260131T115501Z"}, "does not match"),
    ],
)
def test_what_is_wrong_with_a_signature_is_named(authorization, headers, message):
    signed = authorization if "nonsense" in authorization else f"AWS4-HMAC-SHA256 {authorization}, Signature={'0' * 64}"
    assert message in refuse_with(signed, **headers)


def test_a_signature_is_valid_for_five_minutes(send, sign, models):
    path = f"/model/{MODEL}/converse"
    headers = sign(path, CONVERSE, "bedrock")
    models.behave(clock_offset_seconds=290)
    assert send(path, CONVERSE, **headers)[0] == 200
    models.behave(clock_offset_seconds=310)
    status, answered, _ = send(path, CONVERSE, **headers)
    assert status == 403
    sent = datetime.strptime(answered["Date"], "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    assert sent - datetime.now(UTC) > timedelta(minutes=4)  # so that a client can correct its clock
