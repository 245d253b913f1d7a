"""Checks the `telemetry` section of each program: what must not be deployed, and what may be intended."""

from __future__ import annotations

import contextlib
import ipaddress
import sys
from urllib.parse import urlsplit

from dspy_lambda.config.telemetry import Telemetry
from dspy_lambda.errors import ConfigError
from dspy_lambda.telemetry.payloads.start import load_hook
from dspy_lambda_infra.project import Function, Project, project_variables

# The first is reserved for private networks, and EC2's own names end in it; the second is multicast DNS.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-naming.html
_PRIVATE_DOMAINS = (".internal", ".local", ".localhost")


def telemetry_problems(project: Project, function: Function) -> list[str]:
    """Return what cannot work, with its fix."""
    telemetry, found = function.settings.telemetry, []
    if telemetry.traces != "none" and project.config.lambda_.tracing == "otel":
        found.append(
            "telemetry.traces: lambda.tracing: otel starts another tracer in the function, and each call would be "
            "traced twice: remove lambda.tracing and its layer from lambda.layers, or set telemetry.traces: none"
        )
    return [*found, *_hook(project, telemetry)]


def _hook(project: Project, telemetry: Telemetry) -> list[str]:
    """Import the masking function as the handler does at init; loading the project made its folders importable."""
    with project_variables(project.root), contextlib.chdir(project.root), contextlib.redirect_stdout(sys.stderr):
        try:
            load_hook(telemetry.mask_with)
        except ConfigError as error:
            return [str(error).rstrip(".")]
    return []


def telemetry_warnings(project: Project, function: Function) -> list[str]:
    """Return what may be intended but otherwise loses traces or shows what users wrote, with its fix."""
    telemetry = function.settings.telemetry
    found = [*_way_out(project, telemetry), *_clear_text(telemetry), *_payloads(project, function), *_headers(function)]
    return [*found, *_room(function)]


def is_private(address: str) -> bool:
    """Whether a URL's host is on this machine or in a private network, as far as its name tells."""
    host = urlsplit(address).hostname or ""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return "." not in host or host.endswith(_PRIVATE_DOMAINS)
    return found.is_loopback or found.is_private


def _way_out(project: Project, telemetry: Telemetry) -> list[str]:
    """Return what a function in a VPC needs to reach the collector.

    https://docs.aws.amazon.com/vpc/latest/privatelink/aws-services-privatelink-support.html
    """
    if not project.config.lambda_.vpc or telemetry.traces == "none":
        return []
    if telemetry.traces == "cloudwatch":
        way = "the interface endpoint com.amazonaws.REGION.xray with private DNS, or a route to the internet"
    else:
        way = f"a route to {urlsplit(telemetry.traces).hostname}, and security groups that let it through"
    return [f"lambda.vpc: traces are sent from the VPC, which needs {way}; without it they are dropped and counted"]


def _clear_text(telemetry: Telemetry) -> list[str]:
    if not telemetry.traces.startswith("http://") or is_private(telemetry.traces):
        return []
    sent = ["the headers with their keys"] if telemetry.headers_env else []
    sent += ["inputs, prompts and answers"] if telemetry.payloads in ("masked", "full") else []
    return [
        f"telemetry.traces: {telemetry.traces} is not encrypted: {' and '.join(sent or ['the traces'])} cross the "
        "internet as clear text; use https://"
    ]


def _payloads(project: Project, function: Function) -> list[str]:
    telemetry, found = function.settings.telemetry, []
    if telemetry.payloads == "full":
        traces = "" if telemetry.traces == "none" else " and its traces"
        found.append(
            "telemetry.payloads: full: the inputs, prompts, answers and exception texts of every call, up to "
            f"{telemetry.max_payload_bytes:,} bytes each, will be in the program's log group for "
            f"{project.config.lambda_.log_retention_days} days{traces}; masked replaces what mask names"
        )
    hooks = [key for key in ("mask", "mask_with") if getattr(telemetry, key)]
    if hooks and telemetry.payloads != "masked":
        found.append(
            f"telemetry.{hooks[0]}: has no effect with payloads: {telemetry.payloads}; set payloads: masked, or remove "
            f"{' and '.join(hooks)}"
        )
    return found


def _room(function: Function) -> list[str]:
    """Return a warning if SQS's next invocation may find every environment busy with the last one's traces.

    "There is no independent post-invoke phase": https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
    """
    sqs, reserved = function.settings.sqs, function.settings.reserved_concurrency
    if not sqs or function.settings.telemetry.traces == "none" or reserved != sqs.maximum_concurrency:
        return []
    return [
        f"reserved_concurrency: {reserved} equals sqs.maximum_concurrency: environments that still send traces are "
        "busy, so some of SQS's invocations may be throttled, which uses up receives; reserve one or two more"
    ]


def _headers(function: Function) -> list[str]:
    """Return a warning if the headers are a plain variable, which suits only those that are no keys."""
    name = function.settings.telemetry.headers_env
    if not name or not function.settings.environment.get(name):
        return []
    return [
        f"environment.{name}: everyone with access to the function can read the collector's headers; if one of them is "
        f"a key, remove it there, and put the headers into SSM or Secrets Manager as {name}"
    ]
