"""Programs -> template.yaml: one AWS::Serverless::Function per program, in plain explicit resources."""

from __future__ import annotations

import json
from typing import Any

import yaml

from handler.config import Sqs
from handler.errors import ConfigError
from handler.requeue import DEAD_LETTER_QUEUE
from infra.project import HANDLER, Function, Project, logical_name

# "Set the visibility timeout to at least six times the function timeout"; the DLQ keeps what failed for 14 days.
# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
VISIBILITY_FACTOR = 6
DLQ_RETENTION_SECONDS = 14 * 24 * 3600
RETRY_AFTER_SECONDS = 1

HEADER = """\
# Written by `dspy-lambda template` from dspy.config.yaml; change that file, not this one.
"""


class Ref(str):
    """A CloudFormation !Ref."""


class GetAtt(str):
    """A CloudFormation !GetAtt."""


class _Dumper(yaml.SafeDumper):
    """Two spaces, no aliases, lists indented under their key, short-form intrinsics."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _intrinsic(dumper: yaml.SafeDumper, data: str) -> yaml.Node:
    return dumper.represent_scalar(f"!{type(data).__name__}", str(data))


_Dumper.add_representer(Ref, _intrinsic)
_Dumper.add_representer(GetAtt, _intrinsic)


def render(project: Project) -> str:
    """The template's text; the same project always gives the same bytes."""
    text = yaml.dump(build(project), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return HEADER + text


def build(project: Project) -> dict[str, Any]:
    """The template as a mapping."""
    functions = list(project.functions.values())
    resources = dict(_api(project))
    for function in functions:
        resources |= _resources(project, function)
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Transform": "AWS::Serverless-2016-10-31",
        "Description": project.config.description or f"DSPy programs of {project.config.app_id}",
        "Parameters": _parameters(project),
        "Conditions": {"Reserve": {"Fn::Equals": [Ref("ReserveConcurrency"), "true"]}},
        "Globals": {"Function": _globals(project)},
        "Resources": resources,
        "Outputs": _outputs(project),
    }


def _parameters(project: Project) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "ReserveConcurrency": {
            "Type": "String",
            "AllowedValues": ["true", "false"],
            "Default": "true",
            "Description": "false in new accounts, whose quota of 10 leaves nothing to reserve",
        }
    }
    for variable in _key_variables(project):
        name = _parameter_name(variable)
        if name in parameters:
            raise ConfigError(f"models.registry.*.env: {variable} and another variable both become parameter {name}.")
        parameters[name] = {
            "Type": "String",
            "NoEcho": True,
            "Description": f"The value of {variable}, which a model's key is read from",
        }
    return parameters


def _parameter_name(variable: str) -> str:
    """OPENAI_API_KEY -> OpenaiApiKey."""
    return "".join(part.capitalize() for part in variable.split("_"))


def _key_variables(project: Project) -> list[str]:
    used = {project.config.model_alias(name) for name in project.functions}
    registry = project.config.models.registry
    return sorted({variable for alias in used if (variable := registry[alias].env)})


def _globals(project: Project) -> dict[str, Any]:
    settings = project.config.lambda_
    return {
        "Runtime": settings.runtime,
        "Architectures": [settings.architecture],
        "Handler": HANDLER,
        "CodeUri": ".",
        "LoggingConfig": {"LogFormat": "JSON"},
        "Environment": {
            "Variables": {
                "POWERTOOLS_SERVICE_NAME": project.config.app_id,
                "POWERTOOLS_METRICS_NAMESPACE": "DSPy",
            }
        },
    }


def _api(project: Project) -> dict[str, Any]:
    api = project.config.lambda_.api
    if api.auth not in ("iam", "none") and (api.kind, api.auth) != ("rest", "api_key"):
        raise ConfigError(f"lambda.api: kind {api.kind} with auth {api.auth} is not generated yet; use auth: iam.")
    if api.kind == "url":
        return {}
    if api.kind == "http":
        open_ = api.auth == "none"
        iam = {} if open_ else {"Auth": {"EnableIamAuthorizer": True, "DefaultAuthorizer": "AWS_IAM"}}
        return {"Api": {"Type": "AWS::Serverless::HttpApi", "Properties": {"StageName": "$default", **iam}}}
    auths: dict[str, dict[str, Any]] = {
        "iam": {"Auth": {"DefaultAuthorizer": "AWS_IAM"}},
        "api_key": {"Auth": {"ApiKeyRequired": True, "UsagePlan": {"CreateUsagePlan": "PER_API"}}},
    }
    # A throttled function reaches a REST client as the gateway's own 500 otherwise.
    busy = {
        "StatusCode": 429,
        "ResponseParameters": {"Headers": {"Retry-After": f"'{RETRY_AFTER_SECONDS}'"}},
        "ResponseTemplates": {
            "application/json": '{"title": "Too many requests", "status": 429, "request_id": "$context.requestId"}'
        },
    }
    unknown = {
        "StatusCode": 404,
        "ResponseTemplates": {
            "application/json": '{"title": "Not found", "status": 404, "request_id": "$context.requestId"}'
        },
    }
    responses = {"THROTTLED": busy, "INTEGRATION_FAILURE": busy, "MISSING_AUTHENTICATION_TOKEN": unknown}
    properties = {"StageName": "prod", "EndpointConfiguration": {"Type": "REGIONAL"}, **auths.get(api.auth, {})}
    return {"Api": {"Type": "AWS::Serverless::Api", "Properties": properties | {"GatewayResponses": responses}}}


def _resources(project: Project, function: Function) -> dict[str, Any]:
    name = logical_name(function.name)
    settings = function.settings
    variables = {**function.environment, "DSPY_LAMBDA_SOURCES": "http"}
    policies = _queue_policies(name, settings.sqs) if settings.sqs else []
    if settings.sqs and settings.sqs.invalid_to_dead_letter_queue:
        variables = {**variables, DEAD_LETTER_QUEUE: Ref(f"{name}DeadLetterQueue")}
    alias = project.config.model_alias(function.name)
    if variable := project.config.models.registry[alias].env:
        variables = {**variables, variable: Ref(_parameter_name(variable))}
    properties: dict[str, Any] = {
        "Description": f"DSPy program {function.name}",
        "MemorySize": settings.memory_mb,
        "Timeout": settings.timeout_seconds,
        "Environment": {"Variables": variables},
    }
    if policies:
        properties["Policies"] = policies
    if settings.reserved_concurrency is not None:
        no_value = Ref("AWS::NoValue")
        properties["ReservedConcurrentExecutions"] = {
            "Fn::If": ["Reserve", settings.reserved_concurrency, no_value],
        }
    if project.config.lambda_.api.kind == "url":
        auth = "NONE" if project.config.lambda_.api.auth == "none" else "AWS_IAM"
        properties["FunctionUrlConfig"] = {"AuthType": auth}
    if events := _events(project, function):
        properties["Events"] = events
    resources: dict[str, Any] = {f"{name}Function": {"Type": "AWS::Serverless::Function", "Properties": properties}}
    if settings.sqs:
        resources |= _queues(function)
    return resources


def _queue_policies(name: str, sqs: Sqs) -> list[dict[str, Any]]:
    """What the handler does with its own two queues, beyond what the mapping's own policy allows."""
    grants = []
    if sqs.backoff_seconds:
        grants.append(("sqs:ChangeMessageVisibility", f"{name}Queue.Arn"))
    if sqs.invalid_to_dead_letter_queue:
        grants.append(("sqs:SendMessage", f"{name}DeadLetterQueue.Arn"))
    return (
        [{"Statement": [{"Effect": "Allow", "Action": action, "Resource": GetAtt(arn)} for action, arn in grants]}]
        if grants
        else []
    )


def _events(project: Project, function: Function) -> dict[str, Any]:
    name, settings, kind = logical_name(function.name), function.settings, project.config.lambda_.api.kind
    events: dict[str, Any] = {}
    if kind != "url":
        type_, reference = ("Api", "RestApiId") if kind == "rest" else ("HttpApi", "ApiId")
        # ANY, so that the function itself can answer a wrong method with 405.
        route = {"Path": f"/{function.name}", "Method": "ANY", reference: Ref("Api")}
        events["Route"] = {"Type": type_, "Properties": route}
    if settings.sqs:
        mapping: dict[str, Any] = {
            "Queue": GetAtt(f"{name}Queue.Arn"),
            "BatchSize": settings.sqs.batch_size,
            "FunctionResponseTypes": ["ReportBatchItemFailures"],
            "ScalingConfig": {"MaximumConcurrency": settings.sqs.maximum_concurrency},
        }
        if settings.sqs.window_seconds:
            mapping["MaximumBatchingWindowInSeconds"] = settings.sqs.window_seconds
        events["Queue"] = {"Type": "SQS", "Properties": mapping}
    if settings.schedule:
        event = json.dumps({"program": function.name, "inputs": settings.schedule.inputs})
        schedule = {"ScheduleExpression": settings.schedule.expression, "Input": event}
        events["Schedule"] = {"Type": "ScheduleV2", "Properties": schedule}
    return events


def _queues(function: Function) -> dict[str, Any]:
    name, sqs = logical_name(function.name), function.settings.sqs
    assert sqs
    fifo = {"FifoQueue": True, "ContentBasedDeduplication": True} if sqs.fifo else {}
    redrive = {"deadLetterTargetArn": GetAtt(f"{name}DeadLetterQueue.Arn"), "maxReceiveCount": sqs.max_receive_count}
    queue = {
        **fifo,
        "VisibilityTimeout": VISIBILITY_FACTOR * function.settings.timeout_seconds,
        "RedrivePolicy": redrive,
        "SqsManagedSseEnabled": True,
    }
    dead = {
        **({"FifoQueue": True} if sqs.fifo else {}),
        "MessageRetentionPeriod": DLQ_RETENTION_SECONDS,
        "SqsManagedSseEnabled": True,
    }
    return {
        f"{name}Queue": {"Type": "AWS::SQS::Queue", "Properties": queue},
        f"{name}DeadLetterQueue": {"Type": "AWS::SQS::Queue", "Properties": dead},
    }


def _outputs(project: Project) -> dict[str, Any]:
    kind = project.config.lambda_.api.kind
    outputs: dict[str, Any] = {}
    if kind != "url":
        address = "https://${Api}.execute-api.${AWS::Region}.${AWS::URLSuffix}"
        stage = "/prod" if kind == "rest" else ""
        outputs["ApiUrl"] = {"Description": "POST to /<Program>", "Value": {"Fn::Sub": address + stage}}
    for function in project.functions.values():
        name = logical_name(function.name)
        if kind == "url":
            outputs[f"{name}Url"] = {"Value": GetAtt(f"{name}FunctionUrl.FunctionUrl")}
        if function.settings.sqs:
            outputs[f"{name}QueueUrl"] = {"Value": Ref(f"{name}Queue")}
            outputs[f"{name}DeadLetterQueueUrl"] = {"Value": Ref(f"{name}DeadLetterQueue")}
    return outputs
