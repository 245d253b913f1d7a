"""An account's setting of API Gateway's log role."""

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError

from dspy_lambda_infra.deploy.logs_role import LogsRole, find_logs_role


@pytest.fixture
def arn(session):
    """Create a role and set API Gateway to use it."""
    iam = session.client("iam")
    arn = iam.create_role(RoleName="platform", Path="/team/", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    operation = {"op": "replace", "path": "/cloudwatchRoleArn", "value": arn}
    session.client("apigateway").update_account(patchOperations=[operation])
    return arn


@pytest.fixture
def refuse(monkeypatch):
    """Make an operation fail with that error code."""
    real = BaseClient._make_api_call

    def refuse(refused, code):
        def call(client, operation, arguments):
            if operation == refused:
                raise ClientError({"Error": {"Code": code, "Message": "no"}}, operation)
            return real(client, operation, arguments)

        monkeypatch.setattr(BaseClient, "_make_api_call", call)

    return refuse


def test_an_existing_log_role_is_ready(session, arn):
    assert find_logs_role(session) == LogsRole(arn, "ready")


def test_a_deleted_log_role_is_distinguished_from_an_unset_one(session, arn):
    session.client("iam").delete_role(RoleName="platform")
    assert find_logs_role(session) == LogsRole(arn, "deleted")


def test_an_account_without_a_log_role_is_unset(session):
    assert find_logs_role(session) == LogsRole("", "unset")


@pytest.mark.parametrize("code", ["AccessDenied", "AccessDeniedException"])
def test_an_unreadable_log_role_setting_is_unknown(session, arn, refuse, code):
    refuse("GetAccount", code)
    assert find_logs_role(session) == LogsRole("", "unknown")


def test_a_log_role_is_trusted_without_permission_to_read_iam_roles(session, arn, refuse):
    refuse("GetRole", "AccessDenied")
    assert find_logs_role(session) == LogsRole(arn, "ready")


@pytest.mark.parametrize("operation", ["GetAccount", "GetRole"])
def test_other_aws_errors_are_raised(session, arn, refuse, operation):
    refuse(operation, "Throttling")
    with pytest.raises(ClientError, match="Throttling"):
        find_logs_role(session)
