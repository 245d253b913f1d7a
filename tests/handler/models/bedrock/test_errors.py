"""Bedrock's errors through real calls: their DSPy type, whether they are retried, and what the caller is told."""

import asyncio
import json

import dspy
import pytest
from dspy.utils.exceptions import (
    ContextWindowExceededError,
    LMAuthError,
    LMError,
    LMInvalidRequestError,
    LMProviderError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
    LMTransportError,
    LMUnsupportedModelError,
    is_retryable_lm_error,
)

from dspy_lambda.errors import ModelUnavailable, RateLimited, from_exception
from dspy_lambda.models.bedrock.errors import bedrock_error
from dspy_lambda.telemetry.exceptions import Exceptions
from tests.handler.models.bedrock.bedrock_server import Reply, error, exception, streamed, text_events
from tests.handler.models.bedrock.converse.oracle import CONVERSE, STREAM

MODEL = "bedrock/us.amazon.nova-lite-v1:0"
# (HTTP status, name, message, DSPy's error, retried, HTTP status of the answer, retry of an SQS record, advice)
CASES = [
    (403, "AccessDeniedException", "You don't have access to the model with the specified model ID.",
     LMAuthError, False, 502, False, "Model access"),
    (403, "AccessDeniedException", "User: arn:aws:sts::1:assumed-role/r/f is not authorized to perform: "
     "bedrock:InvokeModel on resource: arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0",
     LMAuthError, False, 502, False, "the function's role needs this action"),
    (403, "AccessDeniedException", "Model access is denied due to IAM user or service role is not authorized to "
     "perform the required AWS Marketplace actions (aws-marketplace:ViewSubscriptions, aws-marketplace:Subscribe) to "
     "enable access to this model.", LMAuthError, False, 502, False, "calls this model once"),
    (403, "AccessDeniedException", "User: arn:aws:sts::1:assumed-role/r/f is not authorized to perform: "
     "bedrock:InvokeModel on resource: arn:aws:bedrock:us-west-2::foundation-model/a.b with an explicit deny in a "
     "service control policy", LMAuthError, False, 502, False, "every Region behind it"),
    (404, "ResourceNotFoundException", "Model use case details have not been submitted for this account. Fill out the "
     "Anthropic use case details form before using the model.", LMUnsupportedModelError, False, 502, False,
     "the vendor's form"),
    (403, "ExpiredTokenException", "The security token included in the request is expired",
     LMAuthError, False, 502, True, "the credentials have expired"),
    (403, "InvalidSignatureException", "The request signature we calculated does not match the signature you "
     "provided.", LMAuthError, False, 502, False, "check the secret key"),
    (403, "InvalidSignatureException", "Signature expired: 20260101T000000Z is now earlier than 20260101T001000Z",
     LMAuthError, False, 502, False, "clock"),
    (403, "InvalidSignatureException", "Signature not yet current: 20260101T001000Z is still later than now",
     LMAuthError, False, 502, False, "clock"),
    (403, "UnrecognizedClientException", "The security token included in the request is invalid.",
     LMAuthError, False, 502, False, "AWS does not know these credentials"),
    (403, "MissingAuthenticationTokenException", "Missing Authentication Token", LMAuthError, False, 502, False, ""),
    (400, "IncompleteSignatureException", "Authorization header is incomplete", LMAuthError, False, 502, False, ""),
    (400, "NotAuthorized", "You do not have permission", LMAuthError, False, 502, False, ""),
    (400, "RequestExpired", "The request is too old", LMAuthError, False, 502, False, ""),
    (403, "OptInRequired", "A subscription is needed", LMAuthError, False, 502, False, ""),
    (429, "ThrottlingException", "Too many requests, please wait before trying again.",
     LMRateLimitError, True, 429, True, ""),
    (400, "ThrottlingException", "Rate exceeded", LMRateLimitError, True, 429, True, ""),
    (429, "TooManyRequestsException", "Slow down", LMRateLimitError, True, 429, True, ""),
    (400, "ServiceQuotaExceededException", "Too many tokens per day", LMRateLimitError, True, 429, True, ""),
    (429, "ModelNotReadyException", "The model is not ready", LMServerError, True, 502, True, ""),
    (408, "ModelTimeoutException", "The request took too long", LMTimeoutError, True, 502, True, ""),
    (424, "ModelErrorException", "The model failed", LMServerError, True, 502, True, ""),
    (500, "InternalServerException", "An internal error", LMServerError, True, 502, True, ""),
    (500, "InternalFailure", "An internal error", LMServerError, True, 502, True, ""),
    (503, "ServiceUnavailableException", "Bedrock is unable to process your request.",
     LMServerError, True, 502, True, ""),
    (400, "ValidationException", "The model returned the following errors: Input is too long for requested model.",
     ContextWindowExceededError, False, 502, False, ""),
    (400, "ValidationException", "prompt is too long: 210000 tokens > 200000 maximum",
     ContextWindowExceededError, False, 502, False, ""),
    (400, "ValidationException", "The model returned the following errors: input length and `max_tokens` exceed "
     "context limit: 190000 + 16384 > 200000, decrease input length or `max_tokens` and try again",
     ContextWindowExceededError, False, 502, False, ""),
    (400, "ValidationException", "The model returned the following errors: Input Tokens Exceeded: Number of input "
     "tokens exceeds maximum length. Please update the input to try again.",
     ContextWindowExceededError, False, 502, False, ""),
    (400, "ValidationException", "Invocation of model ID amazon.nova-lite-v1:0 with on-demand throughput isn\u2019t "
     "supported. Retry your request with the ID or ARN of an inference profile.",
     LMUnsupportedModelError, False, 502, False, "us.amazon.nova-lite-v1:0"),
    (400, "ValidationException", "The provided model identifier is invalid.",
     LMUnsupportedModelError, False, 502, False, "check the id"),
    (400, "ValidationException", "This model doesn't support tool use.",
     LMInvalidRequestError, False, 502, False, ""),
    (400, "ValidationError", "Bad", LMInvalidRequestError, False, 502, False, ""),
    (404, "ResourceNotFoundException", "Model use case details have not been submitted for this account.",
     LMUnsupportedModelError, False, 502, False, ""),
    (404, "UnknownOperationException", "", LMUnsupportedModelError, False, 502, False, ""),
    (413, "", "", LMInvalidRequestError, False, 502, False, ""),
    (502, "", "", LMServerError, True, 502, True, ""),
]  # fmt: skip
IDENTIFIERS = [f"{number}-{case[1]}" for number, case in enumerate(CASES)]


def failure(action):
    with pytest.raises(LMError) as caught:
        action()
    return caught.value


def test_every_error_that_botocore_knows_is_tested():
    known = {shape.name for operation in (CONVERSE, STREAM) for shape in operation.error_shapes}
    assert known <= {case[1] for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=IDENTIFIERS)
@pytest.mark.parametrize("on_loop", [False, True], ids=["sync", "async"])
def test_an_error_has_its_type_and_advice(bedrock, case, on_loop):
    status, name, message, kind, is_retried, answered, is_temporary, advice = case
    bedrock.answer = lambda _: error(status, name, message)
    lm = dspy.LM(MODEL, api_base=bedrock.url, cache=False, num_retries=0)
    raised = failure((lambda: asyncio.run(lm.acall("a secret"))) if on_loop else (lambda: lm("a secret")))
    assert type(raised) is kind
    assert is_retryable_lm_error(raised) is is_retried
    assert (raised.status, raised.request_id) == (status, "r-1")
    assert raised.provider_code == (name or None)
    assert message.rstrip(".") in str(raised)
    assert advice in str(raised)
    assert "a secret" not in str(raised)
    assert "RouterConfig" not in str(raised)
    meaning = from_exception(raised)
    assert type(meaning) is (RateLimited if answered == 429 else ModelUnavailable)
    assert meaning.status == answered
    # dspy_lambda.errors treats refused keys as temporary: they are often mended while a message waits.
    assert meaning.temporary is (is_temporary or kind in (LMAuthError, LMUnsupportedModelError))
    assert "arn:" not in meaning.detail


@pytest.mark.parametrize(("status", "name"), [(429, "ThrottlingException"), (503, "ServiceUnavailableException")])
def test_a_transient_error_is_retried_after_the_time_that_bedrock_asks_for(bedrock, status, name):
    bedrock.replies = [error(status, name, "wait", **{"Retry-After": "0"})] * 2
    assert dspy.LM(MODEL, api_base=bedrock.url, cache=False)("q")
    assert len(bedrock.sent) == 3


def test_the_time_that_bedrock_asks_for_reaches_the_caller(bedrock):
    bedrock.answer = lambda _: error(429, "ThrottlingException", "wait", **{"Retry-After": "17"})
    raised = failure(lambda: dspy.LM(MODEL, api_base=bedrock.url, cache=False, num_retries=0)("q"))
    assert raised.retry_after == 17
    assert from_exception(raised).retry_after == 17


@pytest.mark.parametrize("name", ["AccessDeniedException", "ValidationException"])
def test_a_refusal_is_not_repeated(bedrock, name):
    bedrock.answer = lambda _: error(403 if name.startswith("A") else 400, name, "no")
    failure(lambda: dspy.LM(MODEL, api_base=bedrock.url, cache=False, num_retries=3)("q"))
    assert len(bedrock.sent) == 1


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(b"<html>Bad gateway</html>", 502), LMServerError),
        (Reply(b"<html>Sign in</html>"), LMServerError),
        (Reply(b""), LMServerError),
        (Reply(b"[]"), LMServerError),
        (Reply(b'{"output": {}}'), LMServerError),
        (Reply(b'{"Output": {"__type": "com.amazon.coral.service#UnknownOperationException"}}'), LMServerError),
        (Reply(b'{"__type": "ThrottlingException", "message": "slow down"}'), LMRateLimitError),
        (Reply(b'{"message": "The security token included in the request is expired"}'), LMProviderError),
        (Reply(b'{"message": "Forbidden"}', 403), LMAuthError),
        (Reply(b'{"Message": "User is not authorized to perform: bedrock:InvokeModel"}', 403), LMAuthError),
        (Reply(b"\xff\xfe", 500), LMServerError),
    ],
    ids=str,
)
@pytest.mark.parametrize("on_loop", [False, True], ids=["sync", "async"])
def test_an_answer_that_is_none_is_a_typed_error(bedrock, reply, kind, on_loop):
    bedrock.answer = lambda _: reply
    lm = dspy.LM(MODEL, api_base=bedrock.url, cache=False, num_retries=0)
    raised = failure((lambda: asyncio.run(lm.acall("q"))) if on_loop else (lambda: lm("q")))
    assert type(raised) is kind


class _Discarded:
    async def send(self, chunk):
        pass


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (error(429, "ThrottlingException", "wait"), LMRateLimitError),
        (error(403, "AccessDeniedException", "User is not authorized to perform: it"), LMAuthError),
        (streamed([*text_events("a")[:2], exception("throttlingException", "wait")]), LMRateLimitError),
        (streamed([*text_events("a")[:2], exception("modelStreamErrorException", "no")]), LMServerError),
        (streamed([exception("validationException", "Input is too long")]), ContextWindowExceededError),
        (streamed(text_events("a")[:2]), LMTransportError),
        (streamed([b"".join(text_events("a"))[:-3]]), LMTransportError),
        (Reply(b"<html>Sign in, please</html>"), LMTransportError),
        (Reply(b'{"message": "The security token is expired"}'), LMTransportError),
        (Reply(b""), LMTransportError),
    ],
    ids=str,
)
def test_a_stream_that_fails_is_a_typed_error(bedrock, reply, kind):
    bedrock.answer = lambda _: reply
    lm = dspy.LM(MODEL, api_base=bedrock.url, cache=False, num_retries=0)
    with dspy.context(send_stream=_Discarded()):
        raised = failure(lambda: asyncio.run(lm.acall("q")))
    assert type(raised) is kind


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"x-amzn-ErrorType": "ThrottlingException"}, {"message": "m"}),
        ({"x-amzn-ErrorType": "ThrottlingException:http://internal.amazon.com/"}, {"Message": "m"}),
        ({}, {"__type": "com.amazon.bedrock#ThrottlingException", "message": "m"}),
        ({}, {"code": "ThrottlingException", "message": "m"}),
        ({"x-amzn-ErrorType": "aws.bedrock#ThrottlingException:"}, {}),
    ],
)
def test_an_errors_name_is_found_wherever_aws_puts_it(bedrock, headers, body):
    bedrock.answer = lambda _: Reply(json.dumps(body).encode(), 400, headers)
    raised = failure(lambda: dspy.LM(MODEL, api_base=bedrock.url, cache=False, num_retries=0)("q"))
    assert type(raised) is LMRateLimitError
    assert raised.provider_code == "ThrottlingException"


def test_an_unknown_error_without_a_status_is_not_retried():
    assert not isinstance(bedrock_error(None, "NovelException", "?"), ConnectionError)
    assert bedrock_error(None, "NovelException", "?").provider_code == "NovelException"


@pytest.mark.parametrize("model", [MODEL, "bedrock-chat:m", "bedrock/amazon.titan-embed-text-v2:0"])
def test_the_session_token_that_aws_quotes_is_in_no_text(bedrock, monkeypatch, model):
    quoted = (
        "The request signature we calculated does not match the signature you provided.\n\nThe Canonical String for "
        "this request should have been\n'POST\n/model/m/converse\n\nhost:h\nx-amz-security-token:a session token\n'"
    )
    bedrock.answer = lambda _: error(403, "InvalidSignatureException", quoted)
    monkeypatch.setenv("DSPY_LAMBDA_API_BASE", bedrock.url)
    call = dspy.Embedder(model, caching=False) if "embed" in model else dspy.LM(model, api_base=bedrock.url)
    with pytest.raises(LMError) as raised:
        call(["x"] if "embed" in model else "q")
    if model == MODEL:  # the others are lm15's own errors
        assert "a session token" not in str(raised.value)
    assert "a session token" not in Exceptions("log").text(raised.value)


@pytest.mark.parametrize("status", [200, 503])
def test_json_that_is_nested_too_deeply_is_no_answer(bedrock, status):
    bedrock.answer = lambda _: Reply(b"[" * 100_000 + b"]" * 100_000, status)
    with pytest.raises(LMServerError):
        dspy.LM(MODEL, api_base=bedrock.url, cache=False, num_retries=0)("q")
