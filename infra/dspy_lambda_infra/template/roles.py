"""Each function's own role: it may use its log group, queues, secrets and models, and no other function's."""

from __future__ import annotations

from typing import Any

from dspy_lambda.secrets import split_place
from dspy_lambda_infra.project import Function, Project, logical_name
from dspy_lambda_infra.template.bedrock import bedrock_statements
from dspy_lambda_infra.template.syntax import Intrinsic, get_att, sub

_HERE = "${AWS::Region}:${AWS::AccountId}"
# Used by Lambda for the event source mapping, and by the handler for its backoff.
_RECEIVE = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ChangeMessageVisibility"]
# CloudWatch's OTLP endpoint for traces "is authorized as xray:PutTraceSegments", which has no resources.
# https://docs.aws.amazon.com/xray/latest/devguide/xray-opentelemetry-bearer-token.html
_WRITE_SPANS = "xray:PutTraceSegments"
# Network interfaces have no ARNs before they exist.
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
_NETWORK = [
    "ec2:CreateNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
]


def program_role(project: Project, function: Function) -> dict[str, Any]:
    """Return the role of one program's function. Policies in template.extra.yaml are appended."""
    name, sqs = logical_name(function.name), function.settings.sqs
    statements = [_allow("sqs:SendMessage", get_att("OnFailureQueue.Arn"))]
    if sqs:
        statements.append(_allow(_RECEIVE, get_att(f"{name}Queue.Arn")))
        statements.append(_allow("sqs:SendMessage", get_att(f"{name}DeadLetterQueue.Arn")))
    places = project.secrets(function).values()
    statements += [_secret(place) for place in places]
    if keys := project.config.lambda_.secrets_kms_key_arns:
        services = sorted({split_place(place)[0] for place in places})
        statements += [_use_keys(["kms:Decrypt"], keys, services)] if services else []
    statements += bedrock_statements(project, function)
    if function.settings.telemetry.traces == "cloudwatch" and not project.config.lambda_.tracing:
        statements.append(_allow(_WRITE_SPANS, "*"))
    return _role(project, name, statements)


def catalogue_role(project: Project) -> dict[str, Any]:
    """Return the role of the catalogue function, which reads and writes nothing."""
    return _role(project, "Catalogue", [])


def _role(project: Project, name: str, statements: list[dict[str, Any]]) -> dict[str, Any]:
    settings = project.config.lambda_
    # A log group's Arn ends in :* and so includes its streams.
    logs = get_att(f"{name}LogGroup.Arn")
    statements = [_allow(["logs:CreateLogStream", "logs:PutLogEvents"], logs), *statements]
    if settings.tracing:
        statements.append(_allow([_WRITE_SPANS, "xray:PutTelemetryRecords"], "*"))
    if settings.vpc:
        statements.append(_allow(_NETWORK, "*"))
    if settings.kms_key_arn:
        actions = ["kms:Decrypt", "kms:GenerateDataKey"]
        statements.append(_use_keys(actions, [settings.kms_key_arn], ["lambda", "secretsmanager", "sqs", "ssm"]))
    policy = {"PolicyName": "function", "PolicyDocument": {"Version": "2012-10-17", "Statement": statements}}
    return service_role(project, "lambda", {"Policies": [policy]})


def service_role(
    project: Project, service: str, properties: dict[str, Any], condition: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return a role for an AWS service, within the project's permissions boundary."""
    boundary = project.config.lambda_.permissions_boundary_arn
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": f"{service}.amazonaws.com"},
        "Action": "sts:AssumeRole",
        **({"Condition": condition} if condition else {}),
    }
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
            **properties,
            **({"PermissionsBoundary": boundary} if boundary else {}),
        },
    }


def _use_keys(actions: list[str], keys: list[str], services: list[str]) -> dict[str, Any]:
    """Allow using keys only through these services, so that nothing else can be decrypted with them."""
    via = [sub(f"{service}.${{AWS::Region}}.${{AWS::URLSuffix}}") for service in services]
    return {
        "Effect": "Allow",
        "Action": actions,
        "Resource": keys,
        "Condition": {"StringEquals": {"kms:ViaService": via}},
    }


def _secret(place: str) -> dict[str, Any]:
    service, name, _ = split_place(place)
    # An ARN may belong to another account, whose own policy has to grant access to this one.
    if service == "ssm":
        arn = f"arn:${{AWS::Partition}}:ssm:{_HERE}:parameter/{name.removeprefix('/')}"
        # The handler requests up to ten at once; the parameters-and-secrets extension requests each separately.
        return _allow(["ssm:GetParameter", "ssm:GetParameters"], sub(name if name.startswith("arn:") else arn))
    # Secrets Manager appends a hyphen and six random characters to the name; an ARN may or may not include them.
    arn = f"arn:${{AWS::Partition}}:secretsmanager:{_HERE}:secret:{name}-??????"
    if name.startswith("arn:"):
        return _allow("secretsmanager:GetSecretValue", [sub(name), sub(f"{name}-??????")])
    return _allow("secretsmanager:GetSecretValue", sub(arn))


def _allow(action: str | list[str], resource: str | Intrinsic | list[Intrinsic]) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource}
