"""Deletes what was created and restores what was changed: tries every step, even if earlier ones failed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from dspy_lambda_infra.deploy.logs_role import LogsRole

# Where `sam deploy --resolve-s3` puts artifacts: one bucket per account and Region, which is kept.
_SAM_STACK, _SAM_BUCKET = "aws-sam-cli-managed-default", "SourceBucket"
# Lambda releases a deleted function's network interfaces within about 20 minutes; until then subnets cannot be deleted.
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html
_ATTEMPTS = 4

Resources = list[tuple[str, str, str]]


def resources_of(session: boto3.Session, stack: str) -> Resources:
    """Return type, logical id and physical id of everything in the stack; nothing if there is no stack."""
    with reported(f"listing {stack}"):
        found = session.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
        return [(r["ResourceType"], r["LogicalResourceId"], r.get("PhysicalResourceId", "")) for r in found]
    return []


def delete_stack(session: boto3.Session, stack: str) -> None:
    """Delete a stack and wait until it is gone."""
    print(f"deleting {stack}", file=sys.stderr)
    cloudformation = session.client("cloudformation")
    for attempt in range(_ATTEMPTS):
        with reported(f"deleting {stack}, attempt {attempt + 1} of {_ATTEMPTS}"):
            cloudformation.delete_stack(StackName=stack)
            cloudformation.get_waiter("stack_delete_complete").wait(StackName=stack)
            return


def delete_kept(session: boto3.Session, resources: Resources) -> None:
    """Delete what the template retains when its stack is deleted: the queues, and a log role that the stack created."""
    for kind, logical_id, physical_id in resources:
        with reported(f"deleting {logical_id}"):
            if kind == "AWS::SQS::Queue" and physical_id:
                session.client("sqs").delete_queue(QueueUrl=physical_id)
            if logical_id == "ApiLogsRole" and physical_id:
                _delete_role(session, physical_id)


def delete_uploads(session: boto3.Session, prefix: str) -> None:
    """Delete what SAM uploaded for a stack: all object versions with that prefix, and image repositories."""
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
    """Delete an SSM parameter."""
    with reported(f"deleting {name}"):
        session.client("ssm").delete_parameter(Name=name)


def restore_logs_role(session: boto3.Session, before: LogsRole) -> None:
    """Restore API Gateway's log role; leave the setting unchanged if it could not be read."""
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
    """Run a cleanup step: report what AWS refuses, and continue with the next step."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        print(f"{step}: {error}", file=sys.stderr)
