"""How the model server handles requests: latencies, fault rates, scripted failures, credentials."""

from __future__ import annotations

import dataclasses
from typing import Any

from dspy_lambda_infra.model_server.failures import check_name


@dataclasses.dataclass
class Credentials:
    """A key pair that may sign requests to Bedrock's paths.

    The default is the pair that the local Lambda gives to functions; it is no secret.
    """

    access_key: str = "local"
    secret_key: str = "local"  # noqa: S105 - documented, for loopback only
    session_token: str | None = None
    expired: bool = False  # requests with it get an ExpiredTokenException


@dataclasses.dataclass
class Behavior:
    """How the server handles requests. Rates are fractions of all requests, drawn in order from `seed`.

    `failure` and `failures` name faults without `_rate` (see `failures.py`): "drop", "html", "ThrottlingException",
    "ValidationException: Input is too long.", "stream:ModelStreamErrorException". `models` overrides any of the
    fields that describe one request for single models:

        {"amazon.nova-lite-v1:0": {"delay_seconds": 0.5, "failures": ["ThrottlingException", None, "truncated"]}}

    Raises:
        TypeError: an unknown field.
        ValueError: an unknown failure.
    """

    samples: bool = False  # texts suit the names of their fields instead of quoting the model and the first input
    delay_seconds: float = 0.0
    trickle_seconds: float = 0.0  # pause between any two bytes of an answer's body; its headers come at once
    slow_headers_seconds: float = 0.0  # pause between any two bytes of an answer's headers; its body comes at once
    answer_bytes: int = 0  # pads a body with spaces to this size; its values do not change
    error_rate: float = 0.0  # 500
    rate_limit_rate: float = 0.0  # 429
    retry_after_seconds: float | None = None  # the Retry-After header of each 429 and 503
    unauthorized_rate: float = 0.0  # 401
    key: str | None = None  # requests with any other key get a 401 too; Bedrock's paths need signatures instead
    malformed_rate: float = 0.0  # 200 with a text that no adapter can parse
    drop_rate: float = 0.0  # the connection is closed without an answer
    hang_rate: float = 0.0  # no answer within 10 minutes
    reset_rate: float = 0.0  # the connection is reset (RST) without an answer
    seed: int = 0
    failures: list[str | None] = dataclasses.field(default_factory=list)  # of the next requests, in order
    failure: str | None = None  # of every request after those
    models: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    verify_signatures: bool = True  # otherwise Bedrock's paths need none
    credentials: list[Credentials] = dataclasses.field(default_factory=lambda: [Credentials()])
    bearer_token: str | None = None  # a Bedrock API key, accepted instead of a signature
    clock_offset_seconds: float = 0.0  # how far the server's clock is ahead; signatures are valid for 5 minutes

    def __post_init__(self) -> None:
        for name in [*self.failures, self.failure]:
            if name is not None:
                check_name(name)
        self.credentials = [Credentials(**c) if isinstance(c, dict) else c for c in self.credentials]
        for model in self.models:
            self.for_model(model)

    def for_model(self, model: str) -> Behavior:
        """Return the behavior for requests to one model; it has a list of failures only if `models` gives it one."""
        overrides = self.models.get(model)
        return self if overrides is None else dataclasses.replace(self, **{"models": {}, "failures": [], **overrides})
