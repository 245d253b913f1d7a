"""Checks that the functions' keys exist where they will be read. Looks them up by name and never reads them."""

from __future__ import annotations

import re
from typing import Any

import boto3
from botocore.exceptions import ClientError

from dspy_lambda.secrets import split_place
from dspy_lambda_infra.deploy.denied import is_denied


def missing_keys(session: boto3.Session, places: set[str]) -> list[str]:
    """Return the locations (`ssm:NAME`, `secretsmanager:NAME[#KEY]`) without a value, in order.

    Without permission to look it up, a location counts as filled.

    Raises:
        ClientError: for any reason other than missing permissions.
    """
    return [place for place in sorted(places) if _is_missing(session, place)]


def _is_missing(session: boto3.Session, place: str) -> bool:
    service, name, _ = split_place(place)
    try:
        if service == "ssm":
            # A parameter named by ARN belongs to another account; it can be read but not listed.
            return not name.startswith("arn:") and not _has_parameter(session, name)
        session.client("secretsmanager").describe_secret(SecretId=name)
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return True
        if not is_denied(error):
            raise
    return False


def _has_parameter(session: boto3.Session, name: str) -> bool:
    # A page may be empty although another one follows.
    # https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_DescribeParameters.html
    pages = session.client("ssm").get_paginator("describe_parameters")
    named: Any = [{"Key": "Name", "Option": "Equals", "Values": [name]}]
    return any(page["Parameters"] for page in pages.paginate(ParameterFilters=named))


def store_command(place: str) -> str:
    """Return a message with a shell command that reads the missing value from the keyboard and stores it.

    The command avoids echo, shell history and a trailing newline.
    """
    service, name, key = split_place(place)
    value = f'printf \'{{"%s": "%s"}}\' {key} "$KEY"' if key else 'printf %s "$KEY"'
    said = f"no value yet for {place}; store it there and nowhere else"
    if service == "ssm":
        put = f"aws ssm put-parameter --type SecureString --overwrite --name {name} --value file:///dev/stdin"
    elif name.startswith("arn:"):
        said = f"no secret has the ARN in {place}; create one, and put its ARN into lambda.secrets"
        put = f"aws secretsmanager create-secret {_named(name)} --secret-string file:///dev/stdin"
    else:
        put = f"aws secretsmanager create-secret --name {name} --secret-string file:///dev/stdin"
    return f"{said}:\n  read -rs KEY; {value} | {put}"


def _named(arn: str) -> str:
    """Return options for a secret's Region and name. Secrets Manager appends a hyphen and six characters to the name.

    https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_iam-permissions.html
    """
    *_, region, _, _, name = arn.split(":")
    return f"--region {region} --name {re.sub('-[A-Za-z0-9]{6}$', '', name)}"
