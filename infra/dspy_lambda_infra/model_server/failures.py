"""What goes wrong at the model server on request, by name: error answers, and faults that are none."""

from __future__ import annotations

from dataclasses import dataclass

# Faults that are not error answers:
# - drop, reset, hang: no answer (see Behavior's rates of these names).
# - malformed: a 200 with a text that no adapter can parse. length, content_filter: a 200 that ended for this reason.
# - html, html_error: a 200 or a 502 with a page, as from a proxy. error_body: a 200 with an error as its body.
# - truncated: the body, or the stream, ends half-way. cut: the connection is closed half-way.
# - bad_crc: a frame of a Converse stream has a wrong checksum.
FAULTS = {
    *("drop", "reset", "hang", "malformed", "length", "content_filter"),
    *("html", "html_error", "error_body", "truncated", "cut", "bad_crc"),
}
STREAM = "stream:"  # prefix of an error in the middle of a stream; an unary request gets the same error as its answer


@dataclass(frozen=True)
class Failure:
    """An error answer.

    Attributes:
        code: its name at OpenAI, and in the bodies of all wires but Bedrock's own.
        aws: its name at Bedrock.
    """

    status: int
    code: str
    aws: str
    message: str


# Statuses of Bedrock's exceptions: botocore's service model of bedrock-runtime. Those of signatures:
# https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html
_AWS = {
    "AccessDeniedException": (403, "You don't have access to the model with the specified model ID."),
    "ConflictException": (400, "Error occurred because of a conflict while performing an operation."),
    "ExpiredTokenException": (403, "The security token included in the request is expired"),
    "InternalServerException": (500, "The system encountered an unexpected error during processing. Try again."),
    "InvalidSignatureException": (
        403,
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access "
        "Key and signing method. Consult the service documentation for details.",
    ),
    "MissingAuthenticationTokenException": (403, "Missing Authentication Token"),
    "ModelErrorException": (424, "The model returned an error."),
    "ModelNotReadyException": (429, "The model is not ready for inference. Wait and try again."),
    "ModelStreamErrorException": (424, "An error occurred while streaming the response. Retry your request."),
    "ModelTimeoutException": (408, "Model has timed out in processing the request. Try your request again."),
    "ResourceNotFoundException": (404, "Could not resolve the foundation model from the provided model identifier."),
    "ServiceQuotaExceededException": (400, "Your request exceeds the service quota for your account."),
    "ServiceUnavailableException": (503, "Bedrock is unable to process your request."),
    "ThrottlingException": (429, "Too many requests, please wait before trying again."),
    "UnrecognizedClientException": (403, "The security token included in the request is invalid."),
    "ValidationException": (400, "The provided model identifier is invalid."),
}
FAILURES = {
    "error": Failure(500, "server_error", "InternalServerException", "The server had an error"),
    "rate_limit": Failure(429, "rate_limit_exceeded", "ThrottlingException", "Rate limit reached"),
    "unauthorized": Failure(401, "invalid_api_key", "UnrecognizedClientException", "Incorrect API key provided"),
    "context_length": Failure(
        400, "context_length_exceeded", "ValidationException", "Input is too long for requested model."
    ),
    "refused": Failure(400, "content_filter", "ValidationException", "The prompt was refused by the content filter"),
    **{name: Failure(status, name, name, message) for name, (status, message) in _AWS.items()},
}


def find_failure(name: str) -> Failure | None:
    """Return the error answer with that name, which may be followed by a message of its own; None for a fault."""
    name, _, message = name.removeprefix(STREAM).partition(": ")
    found = FAILURES.get(name)
    return Failure(found.status, found.code, found.aws, message) if found and message else found


def check_name(name: str) -> None:
    """Raise ValueError, which lists the names, if neither a fault nor an error answer has that name."""
    if name not in FAULTS and find_failure(name) is None:
        raise ValueError(f"unknown failure {name!r}; known: {', '.join(sorted([*FAULTS, *FAILURES]))}")
