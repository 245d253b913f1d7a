"""What only the AWS account knows: quotas, secrets, the log role, the stack that is there. Asked, never changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from dspy_lambda.secrets import split_place

DEFAULT_STAGE = "prod"  # the template's own
_DENIED = ("AccessDenied", "AccessDeniedException")


@dataclass(frozen=True)
class Account:
    """The answers.

    Attributes:
        concurrency: Lambda's quota in this region.
        unreserved: how much of it no function has reserved yet.
        has_api_logs_role: whether API Gateway may write logs already.
        missing_secrets: places (`ssm:NAME`, `secretsmanager:NAME`) that hold nothing.
        deployed: the stack's processed template; None if there is no stack.
        parameters: the values that the stack was deployed with.
    """

    id: str
    region: str
    concurrency: int
    unreserved: int
    has_api_logs_role: bool
    missing_secrets: list[str]
    deployed: dict[str, Any] | None = field(repr=False)
    parameters: dict[str, str]


class NotAsked(Exception):
    """The account cannot be asked; the text says why."""


def ask(region: str | None, stack: str, places: Callable[[str], set[str]]) -> Account:
    """Ask the account that the environment's credentials are of.

    Args:
        places: tells where a stage's secrets are, for the stage that is deployed.

    Raises:
        NotAsked: no credentials, no region, no network or no permission.
    """
    try:
        session = boto3.Session(region_name=region)
        if session.region_name is None:
            raise NotAsked("no region; say --region, or set AWS_REGION")
        if session.get_credentials() is None:
            raise NotAsked("no AWS credentials; sign in, or set AWS_PROFILE")
        limits = account_limits(session)
        parameters = _parameters(session, stack)
        secrets = places(parameters.get("Stage", DEFAULT_STAGE))
        return Account(
            id=session.client("sts").get_caller_identity()["Account"],
            region=session.region_name,
            concurrency=limits["ConcurrentExecutions"],
            unreserved=limits["UnreservedConcurrentExecutions"],
            has_api_logs_role=_has_api_logs_role(session),
            missing_secrets=sorted(place for place in secrets if _is_missing(session, place)),
            deployed=_deployed(session, stack),
            parameters=parameters,
        )
    except ClientError as error:
        # The service's message may quote the signed request.
        raise NotAsked(f"{error.operation_name}: {error.response['Error']['Code']}") from None
    except BotoCoreError as error:
        raise NotAsked(str(error)) from None


def account_limits(session: boto3.Session) -> Mapping[str, Any]:
    """Lambda's `ConcurrentExecutions` and `UnreservedConcurrentExecutions` in the session's region."""
    limits: Mapping[str, Any] = session.client("lambda").get_account_settings()["AccountLimit"]
    return limits


def _is_missing(session: boto3.Session, place: str) -> bool:
    """Whether nothing is there. Who deploys need not be allowed to read a key, nor to ask: then it is believed."""
    service, name, _ = split_place(place)
    try:
        if service == "ssm" and name.startswith("arn:"):
            return False  # of another account: its parameters can be read, and not listed
        if service == "ssm":
            named: Any = [{"Key": "Name", "Option": "Equals", "Values": [name]}]
            return not session.client("ssm").describe_parameters(ParameterFilters=named)["Parameters"]
        session.client("secretsmanager").describe_secret(SecretId=name)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("ResourceNotFoundException", *_DENIED):
            raise
        return error.response["Error"]["Code"] == "ResourceNotFoundException"
    return False


def _has_api_logs_role(session: boto3.Session) -> bool:
    try:
        return bool(session.client("apigateway").get_account().get("cloudwatchRoleArn"))
    except ClientError as error:
        if error.response["Error"]["Code"] not in _DENIED:
            raise
        return False


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
