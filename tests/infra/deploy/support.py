"""Fake accounts for the deployment tests, without AWS."""

from dspy_lambda_infra.deploy.account import Account
from dspy_lambda_infra.deploy.logs_role import LogsRole
from dspy_lambda_infra.deploy.parameters import Options

ARN = "arn:aws:iam::123456789012:role/team/platform"


def account(role="unset", concurrency=1000, deployed=None, **parameters):
    """Return what AWS would report about an account, and about a stack deployed with these parameters."""
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


def options(**given):
    """The command's options; None where not given."""
    return Options(**given)
