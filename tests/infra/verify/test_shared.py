import boto3

from dspy_lambda_infra.verify.scenarios import SCENARIOS
from dspy_lambda_infra.verify.shared import PLACEHOLDERS, create_shared, delete_shared, sign_in


def test_the_shared_stack_outputs_match_the_dry_run_placeholders(account):
    session = boto3.Session(region_name="us-east-1")
    shared = create_shared(session, "verify-shared")
    assert shared.keys() == PLACEHOLDERS.keys()
    assert shared["UserPoolArn"].rpartition("/")[2] == shared["Issuer"].rpartition("/")[2]
    assert sign_in(session, shared).count(".") == 2
    delete_shared(session, "verify-shared")
    assert account("cloudformation").describe_stacks()["Stacks"] == []
    assert account("cognito-idp").list_user_pools(MaxResults=10)["UserPools"] == []


def test_only_scenarios_marked_as_shared_use_the_shared_stack():
    for scenario in SCENARIOS:
        assert scenario.is_shared or scenario.config({})
