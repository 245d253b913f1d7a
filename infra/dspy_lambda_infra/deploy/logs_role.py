"""API Gateway's role to write logs, which an account has once per region, for all of its REST APIs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import boto3
from botocore.exceptions import ClientError

from dspy_lambda_infra.deploy.denied import is_denied


@dataclass(frozen=True)
class LogsRole:
    """What the account says of it.

    Attributes:
        arn: the role that API Gateway is set to use; empty where none is set, or where that may not be read.
        state: `ready`, `unset`, `deleted` (it is set, and IAM has no such role), or `unknown` (no permission to see).
    """

    arn: str
    state: Literal["ready", "unset", "deleted", "unknown"]


def find_logs_role(session: boto3.Session) -> LogsRole:
    """Read the setting, and whether its role still exists: API Gateway keeps the ARN of a deleted one.

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
        # Who deploys need not be allowed to read roles: then the setting is believed.
    return LogsRole(arn, "ready")
