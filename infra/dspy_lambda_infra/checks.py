"""What the linters do not see: configs that deploy, and then lose records, leak keys or fail at the first load."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from dspy_lambda.config import CONFIG_FILE
from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.project import Function, Project
from dspy_lambda_infra.template.functions import reserved_total
from dspy_lambda_infra.template.queues import (
    VISIBILITY_FACTOR,
    least_visibility_timeout_seconds,
    visibility_timeout_seconds,
)

# "100 must remain unreserved". https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html
UNRESERVED = 100
_ENVIRONMENT_BYTES = 4096


def check(project: Project, concurrency: int | None = None) -> None:
    """Refuse what can be deployed and should not be.

    Args:
        concurrency: what the account has for the project, where it was asked; else what the config says. 0 where
            nothing is to be reserved.

    Raises:
        ConfigError: all that is wrong, each with its fix, one a line.
    """
    project.require_loaded()
    concurrency = project.config.lambda_.account_concurrency if concurrency is None else concurrency
    found = [*_project(project), *(_concurrency(project, concurrency) if concurrency else [])]
    for function in project.functions.values():
        found += [f"programs.{function.name}: {problem}" for problem in _function(project, function)]
    if found:
        raise ConfigError("\n".join(f"{project.root / CONFIG_FILE}: {problem}" for problem in found))


def _project(project: Project) -> list[str]:
    found = []
    if not re.fullmatch(r"(?!aws|ssm)[A-Za-z][A-Za-z0-9_.-]{0,63}", project.config.app_id, re.I):
        found.append(
            "app_id: names secrets and the stack; use 1 to 64 of A-Z, a-z, 0-9, hyphen, dot and underscore, "
            "beginning with a letter, and not with aws or ssm"
        )
    for alias, model in project.config.models.registry.items():
        if model.api_key is not None and not _is_loopback(model.api_base):
            found.append(
                f"models.registry.{alias}.api_key: a key in a file would be part of the artifact; write "
                f"env: {alias.upper()}_API_KEY and put the key into SSM or Secrets Manager (lambda.secrets)"
            )
    return found


def _concurrency(project: Project, account_concurrency: int) -> list[str]:
    total = reserved_total(project)
    if total + UNRESERVED <= account_concurrency:
        return []
    return [
        f"reserved_concurrency: the functions reserve {total} together, and an account with {account_concurrency} "
        f"must keep {UNRESERVED} unreserved: lower them to {max(0, account_concurrency - UNRESERVED)} in all, set some "
        "to null, or have the quota raised and say so in lambda.account_concurrency"
    ]


def _function(project: Project, function: Function) -> list[str]:
    settings, sqs = function.settings, function.settings.sqs
    found = []
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,199}", function.name):
        found.append("AWS takes up to 200 ASCII letters, digits and underscores in a name; rename the class")
    if sqs and settings.reserved_concurrency is not None and sqs.maximum_concurrency > settings.reserved_concurrency:
        found.append(
            f"sqs.maximum_concurrency: {sqs.maximum_concurrency} is above reserved_concurrency "
            f"{settings.reserved_concurrency}: throttled records would use up their receives and end in the DLQ; "
            f"raise reserved_concurrency to {sqs.maximum_concurrency} or more"
        )
    visibility, least = visibility_timeout_seconds(settings), least_visibility_timeout_seconds(settings)
    if sqs and visibility < least:
        found.append(
            f"sqs.visibility_timeout_seconds: {visibility} is below {VISIBILITY_FACTOR} x timeout_seconds + "
            f"window_seconds: a record would come back while it is worked on; set {least} or leave it out"
        )
    if sqs and sqs.max_receive_count < 5:
        found.append(
            f"sqs.max_receive_count: {sqs.max_receive_count}: a throttled receive counts, too; AWS advises 5 or more"
        )
    if settings.snap_start:
        found += _snap_start(project, function)
    if project.config.lambda_.layers and project.config.lambda_.package_type == "Image":
        found.append("lambda.layers: a container image takes none; put their files into the image")
    if project.config.lambda_.tracing == "otel" and not project.config.lambda_.layers:
        found.append("lambda.tracing: otel needs the layer of the AWS Distro for OpenTelemetry in lambda.layers")
    names = sum(len(f"{key}{value}") for key, value in project.secrets(function).items())
    if names > _ENVIRONMENT_BYTES // 2:
        found.append("secrets: their names fill more than half of the 4 KB that a function's variables may have")
    return found


def _snap_start(project: Project, function: Function) -> list[str]:
    """https://docs.aws.amazon.com/lambda/latest/dg/snapstart.html"""
    found = []
    if function.settings.ephemeral_storage_mb > 512:
        found.append("snap_start: goes with at most 512 MB of /tmp; set ephemeral_storage_mb: 512 or snap_start: false")
    if project.config.lambda_.runtime == "python3.11":
        found.append("snap_start: needs Python 3.12 or newer; set lambda.runtime: python3.13")
    if project.config.lambda_.package_type == "Image":
        found.append("snap_start: not for container images; set lambda.package_type: Zip or snap_start: false")
    return found


def _is_loopback(api_base: str | None) -> bool:
    host = urlsplit(api_base or "").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
