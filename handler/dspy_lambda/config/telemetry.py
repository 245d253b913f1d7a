"""The `telemetry` section of the config: which traces are exported, and what of inputs and answers is written."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from dspy_lambda.config.names import Variable

# "Single span maximum size: 200 KB", so one value stays well below.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-OTLPEndpoint.html
_MAX_PAYLOAD_BYTES = 100_000
Payloads = Literal["none", "sizes", "masked", "full"]


def _destination(value: str) -> str:
    if value in ("none", "cloudwatch"):
        return value
    try:
        parts = urlsplit(value)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_url = False
    if not is_url:
        raise ValueError("write none, cloudwatch, or a collector's address such as https://collector.example:4318")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            "leave user, password and query out of the address, which the template shows; name a variable with the "
            "headers in headers_env"
        )
    return value


def _mask(value: str) -> str:
    """Check a field's name, or a /regular expression/."""
    if value.startswith("/"):
        if len(value) < 3 or not value.endswith("/"):
            raise ValueError("write a pattern between slashes, such as /[0-9]{3}-[0-9]{2}-[0-9]{4}/")
        try:
            found = re.compile(value[1:-1])
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if found.match(""):
            raise ValueError("the pattern matches an empty text, and so everywhere")
        from dspy_lambda.config.patterns import repeats_a_repeat  # few configs have patterns

        if repeats_a_repeat(value[1:-1]):
            raise ValueError(
                "the pattern repeats a repeat and may take forever; write it without one within the other, or with "
                "possessive ones such as (a++)+"
            )
    elif not value.strip():
        raise ValueError("write a field's name, or a pattern between slashes")
    return value


class Telemetry(BaseModel):
    """What is written about calls, besides the log records and metrics that every call has.

    Attributes:
        traces: `none`, `cloudwatch` (its OTLP endpoint, with the function's role), or an OTLP collector's address.
        headers_env: the variable with the collector's headers, as `name=value,name=value` (percent-encoded values).
        sample: the share of all traces to keep; failed and slow ones are kept in any case.
        slow_seconds: from when an invocation counts as slow; None for 80 % of its timeout.
        incoming: whether a caller's decision to sample a trace, or not, is respected or ignored.
        payloads: what of inputs and answers, prompts and exception texts, is written to logs and traces.
        max_payload_bytes: the size at which each written value is cut.
        mask: names of fields, at any depth and in any case, and /patterns/ in texts, that `masked` replaces.
        mask_with: `module:function` of the project, called with a field's name and value; returns what is written.
        model_metrics: whether to write metrics for each model.
        buffer_debug_logs: whether to write debug lines only of calls that failed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    traces: Annotated[str, AfterValidator(_destination)] = "none"
    headers_env: Variable | None = None
    sample: Annotated[float, Field(ge=0, le=1)] = 0.1
    slow_seconds: Annotated[float, Field(gt=0)] | None = None
    incoming: Literal["respect", "ignore"] = "respect"
    payloads: Payloads = "none"
    max_payload_bytes: Annotated[int, Field(ge=100, le=_MAX_PAYLOAD_BYTES)] = 10_000
    mask: list[Annotated[str, AfterValidator(_mask)]] = []
    mask_with: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = None
    model_metrics: bool = False
    buffer_debug_logs: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.headers_env is not None and self.traces in ("none", "cloudwatch"):
            raise ValueError(f"headers_env is for a collector's address; traces is {self.traces}")
        return self
