"""Accounts of the deployment's tests, without AWS."""

import argparse

from dspy_lambda_infra.deploy.account import Account
from dspy_lambda_infra.deploy.logs_role import LogsRole

ARN = "arn:aws:iam::123456789012:role/team/platform"


def account(role="unset", concurrency=1000, deployed=None, **parameters):
    """What AWS would say of an account, and of a stack that was deployed with these parameters."""
    return Account(
        id="123456789012",
        region="us-east-1",
        concurrency=concurrency,
        unreserved=concurrency,
        logs_role=LogsRole(ARN if role in ("ready", "deleted") else "", role),
        missing_keys=[],
        deployed=deployed,
        parameters=parameters,
    )


def options(parameter=(), **given):
    """The command's options, where not given as it leaves them."""
    names = ("stage", "stack_name", "alarm_email", "reserve_concurrency", "api_access_log", "secrets_version")
    return argparse.Namespace(parameter=list(parameter), **{**dict.fromkeys(names), **given})
