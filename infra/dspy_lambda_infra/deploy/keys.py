"""Whether the functions' keys are where they will look for them. Asked for by name, never read."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.exceptions import ClientError

from dspy_lambda.secrets import split_place
from dspy_lambda_infra.deploy.denied import is_denied


def missing_keys(session: boto3.Session, places: set[str]) -> list[str]:
    """Those of the places (`ssm:NAME`, `secretsmanager:NAME[#KEY]`) that hold nothing, in order.

    Who deploys need not be allowed to ask: then a place counts as filled.

    Raises:
        ClientError: for any other reason than missing permissions.
    """
    return [place for place in sorted(places) if _is_missing(session, place)]


def _is_missing(session: boto3.Session, place: str) -> bool:
    service, name, _ = split_place(place)
    try:
        if service == "ssm":
            # An ARN's parameter belongs to another account, and can be read there but not listed.
            return not name.startswith("arn:") and not _has_parameter(session, name)
        session.client("secretsmanager").describe_secret(SecretId=name)
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return True
        if not is_denied(error):
            raise
    return False


def _has_parameter(session: boto3.Session, name: str) -> bool:
    # A page may be empty and have a successor all the same.
    # https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_DescribeParameters.html
    pages = session.client("ssm").get_paginator("describe_parameters")
    named: Any = [{"Key": "Name", "Option": "Equals", "Values": [name]}]
    return any(page["Parameters"] for page in pages.paginate(ParameterFilters=named))


def how_to_put(place: str) -> str:
    """A shell command that puts a key there from the keyboard, without an echo, a history or a line end."""
    service, name, key = split_place(place)
    value = f'printf \'{{"%s": "%s"}}\' {key} "$KEY"' if key else 'printf %s "$KEY"'
    put = (
        f"aws ssm put-parameter --type SecureString --overwrite --name {name} --value file:///dev/stdin"
        if service == "ssm"
        else f"aws secretsmanager create-secret --name {name} --secret-string file:///dev/stdin"
    )
    return f"read -rs KEY; {value} | {put}"
