"""Deploy, check, delete: `python -m dspy_lambda_infra.verify [--region R] [--dry-run]`."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from dspy_lambda_infra.cli import main as dspy_lambda
from dspy_lambda_infra.verify.checks import CHECKS, Stack, run_checks
from dspy_lambda_infra.verify.project import write_project


def main(arguments: list[str] | None = None) -> int:
    """0 if every claim holds; everything that was made is deleted in any case."""
    parser = argparse.ArgumentParser(prog="verify-aws", description=__doc__)
    parser.add_argument("--region", help="(default: of the AWS profile)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be deployed and checked")
    options = parser.parse_args(arguments)
    name = f"dspy-lambda-verify-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as folder:
        project = write_project(Path(folder) / "project", name)
        where = ["--project", str(project), "--template", str(project / "template.yaml"), "--stack-name", name]
        region = ["--region", options.region] if options.region else []
        if options.dry_run:
            status = dspy_lambda(["deploy", *where, *region, "--dry-run"])
            print("\nwould be checked:", *((check.__doc__ or "").strip() for check in CHECKS), sep="\n  ")
            return 0 if status in (0, 1) else status
        session = boto3.Session(region_name=options.region)
        parameter = f"/{name}/prod/MOCK_KEY"
        session.client("ssm").put_parameter(Name=parameter, Type="SecureString", Value=secrets.token_urlsafe(24))
        try:
            if dspy_lambda(["deploy", *where, *region, "--yes"]):
                return 1
            return report(Stack(session, name, _outputs(session, name)))
        finally:
            clean_up(session, name, parameter)


def report(stack: Stack) -> int:
    """Print the table; 1 if a claim does not hold."""
    failed = 0
    for claim, holds, seen in run_checks(stack):
        print(f"{'holds ' if holds else 'FAILS '} {claim}\n        {seen}", flush=True)
        failed += not holds
    print(f"{len(CHECKS) - failed} of {len(CHECKS)} hold")
    return 1 if failed else 0


def clean_up(session: boto3.Session, name: str, parameter: str) -> None:
    """Delete the stack, what the template keeps when its stack goes (queues, the log role), and the parameter.

    Each step is tried, whatever became of those before it. What SAM uploaded stays in its bucket.
    """
    print(f"deleting {name}", file=sys.stderr)
    cloudformation, sqs = session.client("cloudformation"), session.client("sqs")
    found: list[tuple[str, str, str]] = []
    with _reported("listing the stack"):
        resources = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
        found = [(r["ResourceType"], r["LogicalResourceId"], r.get("PhysicalResourceId", "")) for r in resources]
    with _reported("deleting the stack"):
        cloudformation.delete_stack(StackName=name)
        cloudformation.get_waiter("stack_delete_complete").wait(StackName=name)
    for kind, logical_id, physical_id in found:
        with _reported(f"deleting {logical_id}"):
            if kind == "AWS::SQS::Queue" and physical_id:
                sqs.delete_queue(QueueUrl=physical_id)
            if logical_id == "ApiLogsRole" and physical_id:
                _delete_logs_role(session, physical_id)
    with _reported("deleting the parameter"):
        session.client("ssm").delete_parameter(Name=parameter)


@contextmanager
def _reported(step: str) -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        print(f"{step}: {error}", file=sys.stderr)


def _delete_logs_role(session: boto3.Session, role: str) -> None:
    """The stack made it because the account had none: as before."""
    nothing = {"op": "replace", "path": "/cloudwatchRoleArn", "value": ""}
    session.client("apigateway").update_account(patchOperations=[nothing])  # type: ignore[list-item]
    iam = session.client("iam")
    for policy in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
        iam.detach_role_policy(RoleName=role, PolicyArn=policy["PolicyArn"])
    iam.delete_role(RoleName=role)


def _outputs(session: boto3.Session, name: str) -> dict[str, str]:
    stack = session.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}


if __name__ == "__main__":
    sys.exit(main())
