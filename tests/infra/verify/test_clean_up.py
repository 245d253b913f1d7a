import json

import boto3
import pytest

from dspy_lambda_infra.deploy.logs_role import LogsRole, find_logs_role
from dspy_lambda_infra.verify import clean_up


@pytest.fixture
def session(account):
    return boto3.Session(region_name="us-east-1")


def set_logs_role(account, name):
    arn = account("iam").create_role(RoleName=name, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    patch = {"op": "replace", "path": "/cloudwatchRoleArn", "value": arn}
    account("apigateway").update_account(patchOperations=[patch])
    return arn


@pytest.mark.parametrize("had_one", [True, False])
def test_the_accounts_log_role_is_restored(session, account, had_one):
    arn = set_logs_role(account, "platform") if had_one else ""
    before = find_logs_role(session)
    set_logs_role(account, "verify")
    clean_up.restore_logs_role(session, before)
    assert account("apigateway").get_account().get("cloudwatchRoleArn", "") == arn


def test_an_unreadable_log_role_setting_is_not_changed(session, account):
    arn = set_logs_role(account, "platform")
    clean_up.restore_logs_role(session, LogsRole("", "unknown"))
    assert account("apigateway").get_account()["cloudwatchRoleArn"] == arn


def test_a_log_role_created_by_the_stack_is_deleted_with_its_policies(session, account):
    iam = account("iam")
    iam.create_role(RoleName="made", AssumeRolePolicyDocument="{}")
    statement = {"Effect": "Allow", "Action": "logs:PutLogEvents", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    policy = iam.create_policy(PolicyName="p", PolicyDocument=document)
    iam.attach_role_policy(RoleName="made", PolicyArn=policy["Policy"]["Arn"])
    clean_up.delete_kept(session, [("AWS::IAM::Role", "ApiLogsRole", "made")])
    assert iam.list_roles()["Roles"] == []


def test_only_the_stacks_own_uploads_are_deleted(session, account):
    s3 = account("s3")
    s3.create_bucket(Bucket="sam")
    s3.put_bucket_versioning(Bucket="sam", VersioningConfiguration={"Status": "Enabled"})
    for key in ("verify/artifact", "verify/artifact", "other/artifact", "verify-2/artifact"):
        s3.put_object(Bucket="sam", Key=key, Body=b"x")
    body = {"Resources": {"T": {"Type": "AWS::SNS::Topic"}}, "Outputs": {"SourceBucket": {"Value": "sam"}}}
    account("cloudformation").create_stack(StackName="aws-sam-cli-managed-default", TemplateBody=json.dumps(body))
    clean_up.delete_uploads(session, "verify")
    left = s3.list_object_versions(Bucket="sam")
    assert {version["Key"] for version in left["Versions"]} == {"other/artifact", "verify-2/artifact"}
    assert left.get("DeleteMarkers", []) == []


def test_the_stacks_image_repositories_are_deleted(session, account):
    for name in ("verify", "other"):
        repository = {"Type": "AWS::ECR::Repository", "Properties": {"RepositoryName": name}}
        body = json.dumps({"Resources": {"Repository": repository}})
        account("cloudformation").create_stack(StackName=f"{name}-0a1b2c3d-CompanionStack", TemplateBody=body)
    clean_up.delete_uploads(session, "verify")
    left = [stack["StackName"] for stack in account("cloudformation").describe_stacks()["Stacks"]]
    assert left == ["other-0a1b2c3d-CompanionStack"]
    assert [r["repositoryName"] for r in account("ecr").describe_repositories()["repositories"]] == ["other"]


def test_a_failed_cleanup_step_is_reported_and_the_next_one_runs(session, account, capsys):
    queue = account("sqs").create_queue(QueueName="kept")["QueueUrl"]
    gone = queue.replace("kept", "gone")
    resources = [("AWS::SQS::Queue", "GoneQueue", gone), ("AWS::SQS::Queue", "KeptQueue", queue)]
    clean_up.delete_kept(session, resources)
    assert "deleting GoneQueue" in capsys.readouterr().err
    assert account("sqs").list_queues().get("QueueUrls", []) == []
