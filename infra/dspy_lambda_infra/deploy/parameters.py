"""Chooses the template's parameters: as given, otherwise as deployed, otherwise as the account requires."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.checks import UNRESERVED
from dspy_lambda_infra.deploy.account import Account
from dspy_lambda_infra.project import Project
from dspy_lambda_infra.template.api import ACCESS_LOG
from dspy_lambda_infra.template.functions import reserves
from dspy_lambda_infra.template.sam_files import DEFAULT_STAGE

# The template's own parameters, and the option that sets each.
_OPTIONS = {
    "Stage": "--stage",
    "SecretsVersion": "--secrets-version",
    "ReserveConcurrency": "--reserve-concurrency",
    "AlarmEmail": "--alarm-email",
    ACCESS_LOG: "--api-access-log",
}
# In place of a value; CloudFormation has asterisks there, too.
HIDDEN = "****"


@dataclass(frozen=True)
class Options:
    """The command line's options for the stack; None where omitted.

    Attributes:
        parameters: values for parameters from template.extra.yaml.
    """

    stage: str | None = None
    stack_name: str | None = None
    alarm_email: str | None = None
    reserve_concurrency: str | None = None
    api_access_log: str | None = None
    secrets_version: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)


def choose_parameters(options: Options, project: Project, account: Account | None) -> dict[str, str]:
    """Return the values to deploy with.

    Raises:
        ConfigError: the stack belongs to another stage, or the access log would replace a working log role.
    """
    before = account.parameters if account else {}
    settings = project.config.lambda_
    parameters = {"Stage": _stage(options, before)}
    if reserves(project):
        parameters["ReserveConcurrency"] = str(reserves_concurrency(options, account)).lower()
    if settings.alarms and (address := options.alarm_email or before.get("AlarmEmail")):
        parameters["AlarmEmail"] = address
    if project.has_api and settings.api.kind == "rest":
        parameters[ACCESS_LOG] = _access_log(options, account)
    if version := options.secrets_version or before.get("SecretsVersion"):
        parameters["SecretsVersion"] = version
    for key, value in options.parameters.items():
        if key in _OPTIONS:
            raise ConfigError(f"--parameter {key}: has its own option; use {_OPTIONS[key]}.")
        parameters[key] = value
    return parameters


def hidden_parameters(template: dict[str, Any]) -> set[str]:
    """The parameters whose values are not to be shown: the template declares them `NoEcho`."""
    declared = template.get("Parameters", {})
    return {key for key, about in declared.items() if isinstance(about, dict) and _is_true(about.get("NoEcho"))}


def _is_true(value: Any) -> bool:
    return str(value).lower() == "true"  # CloudFormation takes the text, too


def check_parameters(parameters: Mapping[str, str], template: dict[str, Any]) -> None:
    """Refuse parameters that CloudFormation would reject.

    Raises:
        ConfigError: the template does not have a parameter, or does not allow its value.
    """
    declared, hidden = template.get("Parameters", {}), hidden_parameters(template)
    for key, value in parameters.items():
        name = _OPTIONS.get(key, f"--parameter {key}")
        if key not in declared:
            raise ConfigError(f"{name}: the template has no parameter {key}; it has: {', '.join(sorted(declared))}.")
        pattern, allowed = declared[key].get("AllowedPattern"), declared[key].get("AllowedValues")
        if pattern and not re.fullmatch(pattern, value):
            raise ConfigError(f"{name}: {HIDDEN if key in hidden else repr(value)} does not match {pattern}.")
        if allowed and value not in map(str, allowed):
            raise ConfigError(f"{name}: must be one of: {', '.join(map(str, allowed))}.")


def reserves_concurrency(options: Options, account: Account | None) -> bool:
    """Whether to reserve concurrency: as given, otherwise as deployed, otherwise if the account's quota allows it."""
    before = account.parameters.get("ReserveConcurrency") if account else None
    asked = options.reserve_concurrency or before
    return asked == "true" if asked else account is None or account.concurrency > UNRESERVED


def reserved_by(account: Account) -> int:
    """Return how much concurrency the deployed stack has reserved."""
    if account.parameters.get("ReserveConcurrency") != "true":
        return 0
    total = 0
    for resource in (account.deployed or {}).get("Resources", {}).values():
        found = resource.get("Properties", {}).get("ReservedConcurrentExecutions", 0)
        if isinstance(found, dict):
            found = next((item for item in found.get("Fn::If", []) if isinstance(item, int)), 0)
        total += int(found)
    return total


def choose_stage(options: Options, deployed: str | None) -> str:
    """Return the stage to deploy: as given, otherwise the named stack's, otherwise the default.

    Args:
        deployed: the deployed stack's stage; None if unknown.
    """
    return options.stage or (deployed if options.stack_name else None) or DEFAULT_STAGE


def _stage(options: Options, before: Mapping[str, str]) -> str:
    deployed = before.get("Stage")
    stage = choose_stage(options, deployed)
    if deployed and deployed != stage:
        # The stage is part of the API's URL and the secret names: the stack would use another stage's keys.
        raise ConfigError(
            f"the stack belongs to stage {deployed}, which cannot change: deploy {stage} as a separate stack "
            f"(--stage {stage} without --stack-name, or with another name)."
        )
    return stage


def _access_log(options: Options, account: Account | None) -> str:
    before = account.parameters.get(ACCESS_LOG) if account else None
    role = account.logs_role if account else None
    if options.api_access_log == "new-role" and before != "new-role" and role and role.state == "ready":
        raise ConfigError(
            f"--api-access-log new-role: API Gateway already has the log role {role.arn} in this account and Region, "
            "for all REST APIs; use --api-access-log account-role."
        )
    fitting = "account-role" if role and role.state == "ready" else "none"
    return options.api_access_log or before or fitting
