"""Tries collectors with an empty export, as the functions would send it, from this machine."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError

from dspy_lambda.telemetry.export.collector import read_headers, traces_path
from dspy_lambda_infra.deploy.account import open_session
from dspy_lambda_infra.deploy.trace_destination import SWITCH
from dspy_lambda_infra.doctor.traces import TraceUse
from dspy_lambda_infra.project import Project, read_dotenv

_SECONDS = 5.0
# "An empty resourceSpans": valid OTLP, and nothing that a collector would keep.
_EMPTY = b'{"resourceSpans":[]}'
_JSON_ONLY = "it takes no OTLP as JSON, which dspy-lambda sends: put an OpenTelemetry Collector in front of it"


@dataclass(frozen=True)
class Trial:
    """What a collector answered.

    Attributes:
        status: its HTTP status; None without an answer.
        detail: what that means, and what to do.
    """

    programs: list[str]
    url: str
    status: int | None
    accepted: bool
    detail: str

    def document(self) -> dict[str, Any]:
        return asdict(self)


def try_collectors(project: Project, uses: Iterable[TraceUse], region: str | None = None) -> list[Trial]:
    """Send an empty export to each destination once.

    Args:
        region: CloudWatch's Region; None takes it from the environment or the AWS profile.
    """
    programs: dict[tuple[str, str | None], list[str]] = {}
    for use in uses:
        if use.traces != "none":
            programs.setdefault((use.traces, use.headers_env), []).append(use.program)
    known = {**read_dotenv(project.root), **os.environ}
    return [_try(names, traces, variable, known, region) for (traces, variable), names in programs.items()]


def trials_text(trials: list[Trial]) -> str:
    """Return two lines for each trial."""
    return "\n".join(
        f"{', '.join(trial.programs)}: {trial.url}: {trial.status or 'no answer'}\n  {trial.detail}" for trial in trials
    )


def traces_url(address: str) -> str:
    """Return where a collector with this address takes traces."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc, traces_path(parts.path), "", ""))


def _try(names: list[str], traces: str, variable: str | None, known: Mapping[str, str], region: str | None) -> Trial:
    headers = {"Content-Type": "application/json"}
    if traces == "cloudwatch":
        try:
            url, signed = _signed(region, headers)
        except (BotoCoreError, ValueError) as error:
            return Trial(names, "https://xray.REGION.amazonaws.com/v1/traces", None, False, f"not tried: {error}")
        return _judged(names, url, signed, None, is_cloudwatch=True)
    if variable and not known.get(variable):
        detail = f"not tried: {variable} is not set here; its value in the secret store is not read"
        return Trial(names, traces_url(traces), None, False, detail)
    text = known.get(variable or "", "")
    found = read_headers(text)
    if len(found) < sum(bool(entry.strip()) for entry in text.split(",")):
        detail = f"not tried: {variable} has an entry that is no header; write name=value,name=value, percent-encoded"
        return Trial(names, traces_url(traces), None, False, detail)
    return _judged(names, traces_url(traces), headers | dict(found), variable)


def _signed(region: str | None, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Return CloudWatch's address, and the headers signed with this machine's credentials.

    Raises:
        ValueError: There is no Region, or there are no credentials.
    """
    session = open_session(region)
    credentials = session.get_credentials()
    if session.region_name is None:
        raise ValueError("no Region; set AWS_REGION")
    if credentials is None:
        raise ValueError("no AWS credentials; sign in, or set AWS_PROFILE")
    url = traces_url(session.client("xray").meta.endpoint_url)
    request = AWSRequest("POST", url, headers=headers, data=_EMPTY)
    SigV4Auth(credentials.get_frozen_credentials(), "xray", session.region_name).add_auth(request)
    return url, dict(request.headers.items())


def _judged(
    names: list[str], url: str, headers: dict[str, str], variable: str | None, *, is_cloudwatch: bool = False
) -> Trial:
    try:
        status, location = _post(url, headers)
    except TimeoutError:
        detail = f"no answer within {_SECONDS:g} s: check the address, the port and the firewalls between"
        return Trial(names, url, None, False, detail)
    except ConnectionRefusedError:
        return Trial(names, url, None, False, "refused: nothing listens there; collectors take OTLP over HTTP on 4318")
    except (OSError, HTTPException) as error:
        detail = f"{type(error).__name__}: no OTLP over HTTP there; 4317 is gRPC, and https:// needs a certificate"
        return Trial(names, url, None, False, detail)
    return Trial(names, url, status, 200 <= status < 300, _meaning(status, location, variable, is_cloudwatch))


def _post(url: str, headers: dict[str, str]) -> tuple[int, str]:
    """Return the status and where it redirects to, which is not followed: the headers are for this address only."""
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=_SECONDS)
    try:
        connection.request("POST", parts.path, _EMPTY, headers)
        answer = connection.getresponse()
        to = urlsplit(answer.headers.get("Location", ""))
        return answer.status, f"{to.scheme}://{to.hostname}{to.path}" if to.hostname else to.path
    finally:
        connection.close()


def _meaning(status: int, location: str, variable: str | None, is_cloudwatch: bool) -> str:
    if 200 <= status < 300:
        return "accepted"
    if 300 <= status < 400:
        return f"redirects to {location or 'nowhere'}: redirects are not followed; put the final address into traces"
    if status in (401, 403):
        if is_cloudwatch:
            return "denied: these credentials lack xray:PutTraceSegments, which the function's role has"
        return f"denied: check the headers in {variable}" if variable else "denied: name its headers in headers_env"
    if is_cloudwatch and status == 400:
        return f"refused: without Transaction Search there is no OTLP endpoint: {SWITCH}"
    if status in (400, 415, 422):
        return f"refused: {_JSON_ONLY}"
    if status in (404, 405):
        return "no OTLP there: the address is what comes before /v1/traces"
    return "the collector failed or is overloaded: look at its own log"
