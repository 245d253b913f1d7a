"""Delete what was made, and put back what was changed: each step is tried, whatever became of those before it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from dspy_lambda_infra.deploy.logs_role import LogsRole

# Where `sam deploy --resolve-s3` puts artifacts: one bucket for the account and region, which stays.
_SAM_STACK, _SAM_BUCKET = "aws-sam-cli-managed-default", "SourceBucket"
# Lambda gives a deleted function's network interfaces back within 20 minutes or so; until then subnets cannot go.
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html
_ATTEMPTS = 4

Resources = list[tuple[str, str, str]]


def resources_of(session: boto3.Session, stack: str) -> Resources:
    """Type, logical id and physical id of everything in the stack; nothing where there is none."""
    with reported(f"listing {stack}"):
        found = session.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
        return [(r["ResourceType"], r["LogicalResourceId"], r.get("PhysicalResourceId", "")) for r in found]
    return []


def delete_stack(session: boto3.Session, stack: str) -> None:
    """Delete a stack and wait for its end."""
    print(f"deleting {stack}", file=sys.stderr)
    cloudformation = session.client("cloudformation")
    for attempt in range(_ATTEMPTS):
        with reported(f"deleting {stack}, attempt {attempt + 1} of {_ATTEMPTS}"):
            cloudformation.delete_stack(StackName=stack)
            cloudformation.get_waiter("stack_delete_complete").wait(StackName=stack)
            return


def delete_kept(session: boto3.Session, resources: Resources) -> None:
    """Delete what the template keeps when its stack goes: the queues, and the log role that a stack made."""
    for kind, logical_id, physical_id in resources:
        with reported(f"deleting {logical_id}"):
            if kind == "AWS::SQS::Queue" and physical_id:
                session.client("sqs").delete_queue(QueueUrl=physical_id)
            if logical_id == "ApiLogsRole" and physical_id:
                _delete_role(session, physical_id)


def delete_uploads(session: boto3.Session, prefix: str) -> None:
    """Delete what SAM uploaded for a stack: all versions in its bucket under that prefix, and image repositories."""
    with reported(f"deleting the artifacts of {prefix}"):
        bucket = _sam_bucket(session)
        if bucket:
            session.resource("s3").Bucket(bucket).object_versions.filter(Prefix=f"{prefix}/").delete()
    with reported(f"deleting the images of {prefix}"):
        pages = session.client("cloudformation").get_paginator("describe_stacks").paginate()
        names = [stack["StackName"] for page in pages for stack in page["Stacks"]]
        for companion in names:
            # https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/sam-cli-command-reference-sam-deploy.html
            if companion.startswith(f"{prefix}-") and companion.endswith("-CompanionStack"):
                _delete_companion(session, companion)


def delete_parameter(session: boto3.Session, name: str) -> None:
    """Delete a parameter of SSM."""
    with reported(f"deleting {name}"):
        session.client("ssm").delete_parameter(Name=name)


def restore_logs_role(session: boto3.Session, before: LogsRole) -> None:
    """Set API Gateway's log role to what it was; a setting that could not be read is left alone."""
    if before.state == "unknown":
        return
    with reported("restoring API Gateway's log role"):
        client = session.client("apigateway")
        if client.get_account().get("cloudwatchRoleArn", "") != before.arn:
            patch = {"op": "replace", "path": "/cloudwatchRoleArn", "value": before.arn}
            client.update_account(patchOperations=[patch])  # type: ignore[list-item]


def _sam_bucket(session: boto3.Session) -> str | None:
    try:
        stacks = session.client("cloudformation").describe_stacks(StackName=_SAM_STACK)["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":
            return None
        raise
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stacks[0].get("Outputs", [])}
    return outputs.get(_SAM_BUCKET)


def _delete_companion(session: boto3.Session, stack: str) -> None:
    for kind, _, physical_id in resources_of(session, stack):
        if kind == "AWS::ECR::Repository" and physical_id:
            session.client("ecr").delete_repository(repositoryName=physical_id, force=True)
    delete_stack(session, stack)


def _delete_role(session: boto3.Session, role: str) -> None:
    iam = session.client("iam")
    for policy in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
        iam.detach_role_policy(RoleName=role, PolicyArn=policy["PolicyArn"])
    iam.delete_role(RoleName=role)


@contextmanager
def reported(step: str) -> Iterator[None]:
    """A step of the cleaning: what AWS refuses is said, and the next one tried."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        print(f"{step}: {error}", file=sys.stderr)
