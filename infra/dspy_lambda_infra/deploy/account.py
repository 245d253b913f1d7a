"""Reads from the AWS account: quotas, keys, the log role, the deployed stack. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from dspy_lambda_infra.deploy.keys import missing_keys
from dspy_lambda_infra.deploy.logs_role import LogsRole, find_logs_role


@dataclass(frozen=True)
class Account:
    """What was read.

    Attributes:
        concurrency: Lambda's concurrency quota in this Region.
        unreserved: how much of it no function has reserved yet.
        logs_role: API Gateway's log role.
        missing_keys: locations (`ssm:NAME`, `secretsmanager:NAME`) without a value.
        deployed: the stack's processed template; None if there is no stack.
        parameters: the values that the stack was deployed with.
    """

    id: str
    region: str
    concurrency: int
    unreserved: int
    logs_role: LogsRole
    missing_keys: list[str]
    deployed: dict[str, Any] | None = field(repr=False)
    parameters: dict[str, str]


class AccountUnavailable(Exception):
    """The account cannot be read; the text gives the reason."""


def open_session(region: str | None) -> boto3.Session:
    """Open a session in that Region; by default in AWS_REGION, which boto3 does not read, otherwise as boto3 chooses.

    AWS_REGION takes precedence, as in the AWS CLI.
    """
    return boto3.Session(region_name=region or os.environ.get("AWS_REGION") or None)


def fetch_account(region: str | None, stack: str, places: Callable[[str | None], set[str]]) -> Account:
    """Read the account that the environment's credentials belong to.

    Args:
        places: returns the locations of a stage's keys; called with the deployed stack's stage, or None.

    Raises:
        AccountUnavailable: no credentials, no Region, no network or no permission.
    """
    try:
        session = open_session(region)
        if session.region_name is None:
            raise AccountUnavailable("no Region; use --region, or set AWS_REGION")
        if session.get_credentials() is None:
            raise AccountUnavailable("no AWS credentials; sign in, or set AWS_PROFILE")
        limits = account_limits(session)
        parameters = _parameters(session, stack)
        return Account(
            id=session.client("sts").get_caller_identity()["Account"],
            region=session.region_name,
            concurrency=limits["ConcurrentExecutions"],
            unreserved=limits["UnreservedConcurrentExecutions"],
            logs_role=find_logs_role(session),
            missing_keys=missing_keys(session, places(parameters.get("Stage"))),
            deployed=_deployed(session, stack),
            parameters=parameters,
        )
    except ClientError as error:
        # The service's message may quote the signed request.
        raise AccountUnavailable(f"{error.operation_name}: {error.response['Error']['Code']}") from None
    except BotoCoreError as error:
        raise AccountUnavailable(str(error)) from None


def account_limits(session: boto3.Session) -> Mapping[str, Any]:
    """Return `ConcurrentExecutions` and `UnreservedConcurrentExecutions` in the session's Region."""
    limits: Mapping[str, Any] = session.client("lambda").get_account_settings()["AccountLimit"]
    return limits


def _parameters(session: boto3.Session, stack: str) -> dict[str, str]:
    try:
        found = session.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0].get("Parameters", [])
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":
            return {}
        raise
    values = {parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in found}
    # CloudFormation shows a NoEcho parameter's value as asterisks.
    return {key: value for key, value in values.items() if set(value) != {"*"}}


def _deployed(session: boto3.Session, stack: str) -> dict[str, Any] | None:
    try:
        body = session.client("cloudformation").get_template(StackName=stack, TemplateStage="Processed")
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":
            return None
        raise
    found: Any = body["TemplateBody"]
    if isinstance(found, str):
        from samtranslator.yaml_helper import yaml_parse

        found = yaml_parse(found)
    deployed: dict[str, Any] = found
    return deployed
