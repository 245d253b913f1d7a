"""Checks that linters cannot make: configs that deploy but then lose records, leak keys or fail under load."""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from dspy_lambda.errors import ConfigError
from dspy_lambda.key_shapes import looks_like_key
from dspy_lambda.settings import Settings
from dspy_lambda_infra.config import CONFIG_FILE
from dspy_lambda_infra.models import function_models
from dspy_lambda_infra.project import Function, Project, key_values, project_variables
from dspy_lambda_infra.telemetry import telemetry_problems
from dspy_lambda_infra.template.extra import EXTRA_FILE, read_extra
from dspy_lambda_infra.template.functions import reserved_total
from dspy_lambda_infra.template.queues import (
    VISIBILITY_FACTOR,
    least_visibility_timeout_seconds,
    visibility_timeout_seconds,
)
from dspy_lambda_infra.template.variables import environment_bytes
from dspy_lambda_infra.texts import texts

# "100 must remain unreserved". https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html
UNRESERVED = 100
# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
_DESCRIPTION_BYTES = 1024
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
_ENVIRONMENT_BYTES = 4096


def check(project: Project, concurrency: int | None = None) -> None:
    """Refuse a project that could be deployed but should not be.

    Args:
        concurrency: the account's concurrency quota; None takes it from the config. 0 if nothing is reserved.

    Raises:
        ConfigError: every problem with its fix, one per line.
    """
    project.require_loaded()
    concurrency = project.config.lambda_.account_concurrency if concurrency is None else concurrency
    found = [*_project(project), *(_concurrency(project, concurrency) if concurrency else [])]
    for function in project.functions.values():
        found += [f"programs.{function.name}: {problem}" for problem in _function(project, function)]
    lines = [f"{project.root / CONFIG_FILE}: {problem}" for problem in found]
    lines += [f"{project.root / EXTRA_FILE}: {problem}" for problem in _extra(project)]
    if lines:
        raise ConfigError("\n".join(lines))


def _project(project: Project) -> list[str]:
    found = []
    if (size := len(project.config.description.encode())) > _DESCRIPTION_BYTES:
        found.append(f"description: has {size:,} bytes; CloudFormation allows {_DESCRIPTION_BYTES:,}")
    if not re.fullmatch(r"(?!aws|ssm)[A-Za-z][A-Za-z0-9_.-]{0,63}", project.config.app_id, re.I):
        found.append(
            "app_id: becomes part of secret names and the stack name; use 1 to 64 of A-Z, a-z, 0-9, hyphen, dot and "
            "underscore, starting with a letter, but not with aws or ssm"
        )
    for alias, model in project.config.models.registry.items():
        if model.api_key is not None and not _is_loopback(model.api_base):
            found.append(
                f"models.registry.{alias}.api_key: a key in this file would end up in the artifact; write "
                f"env: {alias.upper()}_API_KEY and put the key into SSM or Secrets Manager (lambda.secrets)"
            )
    return [*found, *_keys(project)]


def _keys(project: Project) -> list[str]:
    """Find keys in the config outside the fields that have their own check: the file is part of every artifact."""
    return [
        f"{place}: contains a key, or what looks like one, which would end up in the artifact and the template; "
        "remove it, or have the program read it from a variable listed in lambda.defaults.secrets"
        for place in _places_of_keys(project, project.config.model_dump(by_alias=True))
    ]


def _extra(project: Project) -> list[str]:
    """Find keys in the user's additions to the template."""
    return [
        f"{place}: contains a key, or what looks like one, which everyone with access to the stack could read; put it "
        "into SSM or Secrets Manager and write {{resolve:...}}, or have a program read it from a variable that "
        "lambda.defaults.secrets names"
        for place in _places_of_keys(project, read_extra(project))
    ]


def _places_of_keys(project: Project, value: Any) -> list[str]:
    with project_variables(project.root):
        keys = key_values(project).values()

    def holds_key(text: str) -> bool:
        return looks_like_key(text) or any(key in text for key in keys)

    places = dict.fromkeys(place for place, text in texts(value) if holds_key(text))
    return [".".join("..." if holds_key(part) else part for part in place) for place in places]


def _concurrency(project: Project, account_concurrency: int) -> list[str]:
    total = reserved_total(project)
    if total + UNRESERVED <= account_concurrency:
        return []
    return [
        f"reserved_concurrency: the functions reserve {total} in total, and an account with {account_concurrency} "
        f"must keep {UNRESERVED} unreserved: lower them to {max(0, account_concurrency - UNRESERVED)} in all, set some "
        "to null, or request a higher quota and set lambda.account_concurrency to it"
    ]


def _function(project: Project, function: Function) -> list[str]:
    settings, sqs = function.settings, function.settings.sqs
    found = []
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,199}", function.name):
        found.append("AWS allows names of up to 200 ASCII letters, digits and underscores; rename the class")
    if sqs and settings.reserved_concurrency is not None and sqs.maximum_concurrency > settings.reserved_concurrency:
        found.append(
            f"sqs.maximum_concurrency: {sqs.maximum_concurrency} is above reserved_concurrency "
            f"{settings.reserved_concurrency}: throttled records would exhaust their receives and land in the DLQ; "
            f"raise reserved_concurrency to {sqs.maximum_concurrency} or more"
        )
    visibility, least = visibility_timeout_seconds(settings), least_visibility_timeout_seconds(settings)
    if sqs and visibility < least:
        found.append(
            f"sqs.visibility_timeout_seconds: {visibility} is below {VISIBILITY_FACTOR} x timeout_seconds + "
            f"window_seconds: a record would be delivered again while in progress; set {least} or remove the key"
        )
    if settings.telemetry.buffer_debug_logs and (level := project.log_level(function)) not in ("TRACE", "DEBUG"):
        found.append(
            f"telemetry.buffer_debug_logs: Lambda drops all debug lines at lambda.log_level: {level}; remove one of "
            "the two"
        )
    if settings.snap_start:
        found += _snap_start(project, function)
    if project.config.lambda_.layers and project.config.lambda_.package_type == "Image":
        found.append("lambda.layers: container images do not support layers; put their files into the image")
    if project.config.lambda_.tracing == "otel" and not project.config.lambda_.layers:
        found.append("lambda.tracing: otel requires the AWS Distro for OpenTelemetry layer in lambda.layers")
    found += telemetry_problems(project, function)
    found += [
        f"environment.{name}: looks like a key, which everyone with access to the function could read; put it into SSM "
        f"or Secrets Manager and write secrets: [{name}]"
        for name, value in settings.environment.items()
        if value and (name in project.secrets(function) or _is_key(value))
    ]
    found += [
        f"{model.place}: {model.name} is not a model id on Bedrock; the function's role would be allowed too much, or "
        "nothing; write an id or an ARN of letters, digits, hyphens, dots, colons and slashes"
        for model in function_models(project, function)
        if model.route is not None and not re.fullmatch(r"[A-Za-z0-9._:/-]+", model.route.model_id)
    ]
    try:
        Settings.from_environment(function.environment)
    except ConfigError as error:
        found.append(f"environment.{error}".rstrip("."))
    if (size := environment_bytes(project, function)) > _ENVIRONMENT_BYTES:
        found.append(
            f"environment: the function's variables take up to {size:,} bytes, including those that the "
            f"template sets (such as the locations of its secrets); Lambda allows {_ENVIRONMENT_BYTES:,}"
        )
    return found


def _snap_start(project: Project, function: Function) -> list[str]:
    """https://docs.aws.amazon.com/lambda/latest/dg/snapstart.html"""
    found = []
    if function.settings.ephemeral_storage_mb > 512:
        found.append("snap_start: supports at most 512 MB of /tmp; set ephemeral_storage_mb: 512 or snap_start: false")
    if project.config.lambda_.runtime == "python3.11":
        found.append("snap_start: requires Python 3.12 or later; set lambda.runtime: python3.13")
    if project.config.lambda_.package_type == "Image":
        found.append("snap_start: does not support container images; set lambda.package_type: Zip or snap_start: false")
    return found


def _is_key(value: str) -> bool:
    return value.startswith("-----BEGIN ") or looks_like_key(value)


def _is_loopback(api_base: str | None) -> bool:
    host = urlsplit(api_base or "").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
