import pytest
from moto import mock_aws

from dspy_lambda_infra.deploy.account import AccountUnavailable, fetch_account


@pytest.fixture
def region_of(credentials, monkeypatch):
    """Return the Region that is used with these variables and this option."""
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    quota = {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 1000}
    monkeypatch.setattr("dspy_lambda_infra.deploy.account.account_limits", lambda session: quota)

    def region(option=None, **variables):
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with mock_aws():
            return fetch_account(option, "stack", lambda stage: set()).region

    return region


def test_the_region_option_takes_precedence_over_the_environment(region_of):
    variables = {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-east-1"}
    assert region_of("eu-north-1", **variables) == "eu-north-1"
    assert region_of(**variables) == "eu-west-1"
    assert region_of(AWS_REGION="eu-west-1") == "eu-west-1"
    assert region_of(AWS_DEFAULT_REGION="us-east-1") == "us-east-1"


def test_a_missing_region_error_says_how_to_set_one(region_of):
    with pytest.raises(AccountUnavailable, match="no Region; use --region, or set AWS_REGION"):
        region_of()
