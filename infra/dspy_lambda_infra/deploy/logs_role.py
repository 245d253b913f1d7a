"""Finds API Gateway's log role, of which an account has one per Region, for all of its REST APIs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import boto3
from botocore.exceptions import ClientError

from dspy_lambda_infra.deploy.denied import is_denied


@dataclass(frozen=True)
class LogsRole:
    """The account's setting.

    Attributes:
        arn: the role that API Gateway is set to use; empty if none is set, or without permission to read it.
        state: `ready`, `unset`, `deleted` (set, but IAM has no such role), or `unknown` (no permission to read it).
    """

    arn: str
    state: Literal["ready", "unset", "deleted", "unknown"]


def find_logs_role(session: boto3.Session) -> LogsRole:
    """Read the setting, and check that its role still exists: API Gateway keeps the ARN of a deleted one.

    Raises:
        ClientError: for any other reason than missing permissions.
    """
    try:
        arn = session.client("apigateway").get_account().get("cloudwatchRoleArn", "")
    except ClientError as error:
        if not is_denied(error):
            raise
        return LogsRole("", "unknown")
    if not arn:
        return LogsRole("", "unset")
    try:
        session.client("iam").get_role(RoleName=arn.rpartition("/")[2])
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchEntity":
            return LogsRole(arn, "deleted")
        if not is_denied(error):
            raise
        # Without permission to read roles, trust the setting.
    return LogsRole(arn, "ready")
