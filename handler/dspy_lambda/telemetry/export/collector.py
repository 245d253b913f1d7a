"""Where spans are sent: an OTLP collector, or CloudWatch's own OTLP endpoint, signed with the function's role.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch-OTLPEndpoint.html
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote, urlsplit

from dspy_lambda.telemetry.exceptions import remember
from dspy_lambda.telemetry.export.connection import Answer, BadAnswer, ConnectFailed, Connection
from dspy_lambda.telemetry.export.exporter import Reply

Headers = list[tuple[str, str]]
_PATH = "/v1/traces"
_COMMON: Headers = [("content-type", "application/json"), ("user-agent", "dspy-lambda")]
# Level 1 takes 10 us for a kB (measured), which then takes as long to send at 100 MB/s as without.
_GZIP_BYTES = 16_384
_BUSY = (429, 502, 503, 504)  # https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class Collector:
    """Posts OTLP requests to one address. Redirects are not followed: the headers may hold a key.

    Args:
        url: the address; `/v1/traces` is appended unless its path ends so.
        headers: returns the headers of a request to this address with this body.
        to_do: what to do if the headers are not accepted (401, 403).
        idle_seconds: how long an unused connection may be used again.
    """

    def __init__(self, url: str, headers: Callable[[bytes], Headers], to_do: str, idle_seconds: float = 50.0) -> None:
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        host = parts.hostname or ""
        if not host.isascii():
            host = host.encode("idna").decode()
        self.connection = Connection(host, parts.port or (443 if tls else 80), tls=tls, idle_seconds=idle_seconds)
        self._path = traces_path(parts.path)
        self._headers, self._to_do = headers, to_do
        self._compresses = host not in ("localhost", "127.0.0.1", "::1")

    def send(self, body: bytes, ends: float) -> Reply:
        """Send one request, and give up at `ends`, by the monotonic clock."""
        extra: Headers = []
        if self._compresses and len(body) >= _GZIP_BYTES:
            body, extra = zlib.compress(body, 1, wbits=31), [("content-encoding", "gzip")]
        try:
            headers = _COMMON + extra
            return self._reply(self.connection.request("POST", self._path, headers + self._headers(body), body, ends))
        except ConnectFailed as error:
            return Reply("unreachable", reason=f"{self._place}: no connection ({error}); {_CHECK}")
        except TimeoutError:
            return Reply("failed", reason=f"{self._place}: no answer in time; {_CHECK}")
        except (OSError, BadAnswer) as error:
            about = str(error) if isinstance(error, BadAnswer) else type(error).__name__
            return Reply("failed", reason=f"{self._place}: {about}; {_CHECK}")
        except _NoHeaders as error:
            return Reply("unreachable", reason=str(error))

    @property
    def _place(self) -> str:
        return self.connection.authority

    def _reply(self, answer: Answer) -> Reply:
        status = answer.status
        if 200 <= status < 300:
            return Reply("sent", rejected=_rejected(answer.body))
        about = f"{self._place} answered {status}"
        if status in _BUSY:
            return Reply("busy", 0, _retry_after(answer.headers.get("retry-after", "")), f"{about}: it is overloaded")
        return Reply("refused", reason=f"{about}; {self._advice(status)}")

    def _advice(self, status: int) -> str:
        if 300 <= status < 400:
            return "redirects are not followed: write the final address into telemetry.traces"
        if status in (401, 403):
            return self._to_do
        if status == 404:
            return f"it has no {self._path}: check the address in telemetry.traces"
        if status in (400, 415):
            return "if it takes no OTLP in JSON, put an OpenTelemetry Collector in front of it"
        if status == 413:
            return "raise its limit of a request's size"
        return "see its log"


_CHECK = "check the address in telemetry.traces, and that the function can reach it (VPC, security groups)"


def traces_path(path: str) -> str:
    """Return the path for traces of a collector whose address has this path.

    https://opentelemetry.io/docs/specs/otlp/#otlphttp-request
    """
    path = quote(path.rstrip("/"), safe="/%:@!$&'()*+,;=~")
    return path if path.endswith(_PATH) else path + _PATH


class _NoHeaders(Exception):
    """A request's headers cannot be made; the text says what to do."""


def _rejected(body: bytes) -> int:
    """Return the number of spans that the server rejected; 0 if the answer does not say it."""
    if b"rejected" not in body:
        return 0
    try:
        return max(0, int(json.loads(body)["partialSuccess"]["rejectedSpans"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return 0


def _retry_after(value: str) -> float:
    """Return a Retry-After header in seconds; 0 if it is not valid.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def collector(url: str, headers_env: str | None, idle_seconds: float = 50.0) -> Collector:
    """Return a collector at an address.

    Args:
        headers_env: the variable with its headers, read for each request, because secrets may be renewed.
    """

    def headers(_: bytes) -> Headers:
        return read_headers(os.environ.get(headers_env, "")) if headers_env else []

    to_do = f"check the headers in the variable {headers_env}" if headers_env else "set telemetry.headers_env"
    return Collector(url, headers, to_do, idle_seconds)


def read_headers(text: str) -> Headers:
    """Read `name=value,name=value` with percent-encoded values; leave out what is not a valid header.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/#specifying-headers-via-environment-variables
    """
    found = []
    for entry in text.split(","):
        name, has_value, value = entry.partition("=")
        name, value = name.strip().lower(), unquote(value.strip())
        if has_value and _HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value):
            remember(value.rpartition(" ")[2])  # servers quote what they reject; after `Bearer`, if it is there
            found.append((name, value))
    return found


def cloudwatch(region: str, idle_seconds: float = 50.0) -> Collector:
    """Return CloudWatch's OTLP endpoint for traces in a region."""
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    url = f"https://xray.{region}.{domain}{_PATH}"
    to_do = "allow xray:PutTraceSegments for the function's role, and enable Transaction Search in CloudWatch"
    return Collector(url, lambda body: sign(url, body, region), to_do, idle_seconds)


def sign(url: str, body: bytes, region: str) -> Headers:
    """Return the headers that sign a POST request for X-Ray with the role's credentials."""
    # Only once traces are sent: 20 ms at import, without a model on Bedrock.
    from dspy.lm15 import LM15Error

    from dspy_lambda.dspy_patches.lm15 import BEDROCK_CHAT, utc_now
    from dspy_lambda.models.bedrock.credentials import RoleCredentials
    from dspy_lambda.models.bedrock.signing import authorized

    try:
        credentials = RoleCredentials(BEDROCK_CHAT, bearer=False)()
    except LM15Error as error:
        raise _NoHeaders(f"no AWS credentials to sign traces with ({type(error).__name__})") from None
    headers = [("content-type", "application/json")]
    signed = authorized(url, headers, body, credentials, region=region, service="xray", now=utc_now)
    return [(name, value) for name, value in signed if name not in ("host", "content-type")]
