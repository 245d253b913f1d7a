"""Bedrock's errors as lm15's, which DSPy turns into its own: what to retry, and what to say."""

from __future__ import annotations

import json
from typing import Any

from dspy.lm15 import (
    AuthError,
    ContextLengthError,
    InvalidRequestError,
    ProviderError,
    RateLimitError,
    ServerError,
    UnsupportedModelError,
)
from dspy.lm15 import TimeoutError as ModelTimeout

# https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_Errors and
# https://docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes.html
_KINDS: dict[str, type[ProviderError]] = {
    "AccessDeniedException": AuthError,
    "ExpiredToken": AuthError,
    "ExpiredTokenException": AuthError,
    "IncompleteSignatureException": AuthError,
    "InvalidClientTokenId": AuthError,
    "InvalidSignatureException": AuthError,
    "MissingAuthenticationTokenException": AuthError,
    "NotAuthorized": AuthError,
    "OptInRequired": AuthError,
    "RequestExpired": AuthError,
    "SignatureDoesNotMatch": AuthError,
    "UnrecognizedClientException": AuthError,
    "InternalFailure": ServerError,
    "InternalServerException": ServerError,
    "ModelErrorException": ServerError,
    "ModelNotReadyException": ServerError,
    "ModelStreamErrorException": ServerError,
    "ServiceUnavailable": ServerError,
    "ServiceUnavailableException": ServerError,
    "ModelTimeoutException": ModelTimeout,
    "ResourceNotFoundException": UnsupportedModelError,
    "ServiceQuotaExceededException": RateLimitError,
    "ThrottlingException": RateLimitError,
    "TooManyRequestsException": RateLimitError,
    "ValidationException": InvalidRequestError,
}
_STATUSES: dict[int, type[ProviderError]] = {
    400: InvalidRequestError, 401: AuthError, 403: AuthError, 404: UnsupportedModelError, 408: ModelTimeout,
    413: InvalidRequestError, 424: ServerError, 429: RateLimitError,
}  # fmt: skip
_TOO_LONG = (
    "input is too long", "too many input tokens", "context length", "context window", "prompt is too long",
    "exceed context limit", "input tokens exceeded", "too many total text bytes",
)  # fmt: skip
# What follows quotes the signed headers, the session token among them.
_QUOTED = "The Canonical String for this request"
_ADVICE = {
    "on-demand throughput": "write the id of an inference profile, such as us.{model} or eu.{model}",
    "model identifier is invalid": "check the id and that the region has this model; `region` in the registry names "
    "another one",
    "don't have access to the model": "request access to the model in this account (Bedrock console, Model access)",
    "aws-marketplace": "someone who may subscribe in AWS Marketplace calls this model once in this account (Bedrock "
    "console, Model catalog), after which the function's role needs no permission for that",
    "use case details": "fill out the vendor's form for this account (Bedrock console, Model catalog)",
    "explicit deny": "a policy of the organization, the account or an endpoint denies it; an inference profile needs "
    "every Region behind it",
    "not authorized to perform": "the function's role needs this action on this resource; the generated template "
    "grants it for every model of the registry that the program uses",
    "signature expired": "the clock of this machine differs from AWS's by more than five minutes",
    "signature not yet current": "the clock of this machine differs from AWS's by more than five minutes",
    "signature we calculated does not match": "check the secret key, and that no proxy changes the request",
    "security token included in the request is expired": "the credentials have expired; renew them (aws sso login, or "
    "a new session token)",
    "security token included in the request is invalid": "AWS does not know these credentials; check the profile or "
    "the variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN",
}


def bedrock_error(
    status: int | None, kind: str, message: str, *, model: str = "ID", request_id: str | None = None
) -> ProviderError:
    """Return the error for one of Bedrock's.

    Args:
        kind: the name in `x-amzn-ErrorType` or in a stream's `:exception-type`; may be empty.
        message: what Bedrock says; it may quote ARNs, but neither inputs nor keys.
        model: the model's id, for the advice.
    """
    name = _name(kind)
    found = _KINDS.get(name) or _STATUSES.get(status or 0) or (ServerError if (status or 0) >= 500 else ProviderError)
    lowered = message.lower()
    if found is InvalidRequestError and any(text in lowered for text in _TOO_LONG):
        found = ContextLengthError
    if found is InvalidRequestError and ("on-demand throughput" in lowered or "model identifier" in lowered):
        found = UnsupportedModelError
    advice = next((advice for text, advice in _ADVICE.items() if text in lowered), None)
    text = message.partition(_QUOTED)[0].strip() or name or f"HTTP {status}"
    details: dict[str, Any] = {"provider_code": name or None, "status": status, "request_id": request_id}
    if found is AuthError:  # without a hint, lm15 would ask for an API key
        details["credential_hint"] = advice or "check that the function's role or the profile may use this model"
    elif advice:
        text = f"{text.rstrip('.')}. To fix it: {advice.format(model=model)}."
    return found(text, provider="bedrock", **details)


def error_of(status: int, headers: list[tuple[str, str]], body: bytes, *, model: str = "ID") -> ProviderError:
    """Return the error for an HTTP answer that is not 200."""
    found = {name.lower(): value for name, value in headers}
    content = _json(body)
    kind = found.get("x-amzn-errortype") or str(content.get("__type") or content.get("code") or "")
    message = content.get("message") or content.get("Message")
    if not isinstance(message, str):
        message = "" if content else f"HTTP {status} without an error that Bedrock would send, perhaps from a proxy"
    return bedrock_error(status, kind, message, model=model, request_id=found.get("x-amzn-requestid"))


def _name(kind: str) -> str:
    """Return the error's name from `name:http://...` or `prefix#name`; in streams it starts in lower case."""
    name = kind.partition(":")[0].rpartition("#")[2].strip()
    return name[:1].upper() + name[1:]


def _json(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
