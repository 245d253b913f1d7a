"""A program's function with its event sources and destinations; and the catalogue function."""

from __future__ import annotations

import json
from typing import Any

from dspy_lambda.api.shared import SHARED_PATHS
from dspy_lambda_infra.config import FunctionSettings, Sqs
from dspy_lambda_infra.project import CATALOGUE, CATALOGUE_HANDLER, HANDLER, Function, Project, logical_name
from dspy_lambda_infra.template.deployment import ALIAS, deployment_preference
from dspy_lambda_infra.template.queues import program_queues
from dspy_lambda_infra.template.roles import catalogue_role, program_role
from dspy_lambda_infra.template.syntax import get_att, if_, ref
from dspy_lambda_infra.template.variables import variables

# It answers from memory: 256 MB provides the CPU that importing FastAPI needs.
_CATALOGUE_MEMORY_MB, _CATALOGUE_TIMEOUT_SECONDS = 256, 10
_CATALOGUE_CONCURRENCY = 5
# `*` does not cover Authorization. https://fetch.spec.whatwg.org/#cors-non-wildcard-request-header-name
CORS_HEADERS = ["*", "Authorization"]


def function_resources(project: Project, function: Function, code: str) -> dict[str, Any]:
    """Return all resources that belong to one program."""
    name, settings = logical_name(function.name), function.settings
    properties: dict[str, Any] = {
        **_package(project, code, HANDLER),
        "Description": f"DSPy program {function.name}",
        "Role": get_att(f"{name}Role.Arn"),
        "MemorySize": settings.memory_mb,
        "Timeout": settings.timeout_seconds,
        **({"Architectures": [settings.architecture]} if settings.architecture else {}),
        **(
            {"EphemeralStorage": {"Size": settings.ephemeral_storage_mb}} if settings.ephemeral_storage_mb > 512 else {}
        ),
        **_alias(function),
        "LoggingConfig": _logging(f"{name}LogGroup", project.log_level(function)),
        "Environment": {"Variables": variables(project, function)},
        **({"Layers": project.config.lambda_.layers} if project.config.lambda_.layers else {}),
    }
    if settings.reserved_concurrency is not None:
        properties["ReservedConcurrentExecutions"] = if_("Reserve", settings.reserved_concurrency)
    if function.has_alias:
        on_failure = {"OnFailure": {"Type": "SQS", "Destination": get_att("OnFailureQueue.Arn")}}
        properties["EventInvokeConfig"] = {**_retries(settings), "DestinationConfig": on_failure}
    if settings.http and project.config.lambda_.api.kind == "url":
        properties["FunctionUrlConfig"] = function_url(project)
    if events := _events(project, function):
        properties["Events"] = events
    return {
        f"{name}Function": _function(project, f"{name}Function", properties),
        f"{name}LatestInvokeConfig": _latest_invoke_config(function),
        f"{name}Role": program_role(project, function),
        f"{name}LogGroup": log_group(project),
        **program_queues(project, function),
    }


def catalogue_resources(project: Project, code: str) -> dict[str, Any]:
    """Return the function that serves the shared GET routes, and answers preflight requests to a REST API."""
    properties: dict[str, Any] = {
        **_package(project, code, CATALOGUE_HANDLER),
        "Description": f"Catalogue of {project.config.app_id}: programs, health, OpenAPI",
        "Role": get_att("CatalogueRole.Arn"),
        "MemorySize": _CATALOGUE_MEMORY_MB,
        "Timeout": _CATALOGUE_TIMEOUT_SECONDS,
        "LoggingConfig": _logging("CatalogueLogGroup", project.config.lambda_.log_level),
        "ReservedConcurrentExecutions": if_("Reserve", _CATALOGUE_CONCURRENCY),
    }
    api = project.config.lambda_.api
    if api.kind == "url":
        properties["FunctionUrlConfig"] = function_url(project)
    else:
        routes = {_event_name(path): _route(project, path, "GET") for path in SHARED_PATHS}
        # An HTTP API would answer them itself, but only after an authorizer has refused them.
        if project.config.server.cors_origins and (api.kind == "rest" or api.auth != "none"):
            called = [name for name, function in project.functions.items() if function.settings.http]
            routes |= {f"{_event_name(path)}Preflight": _preflight(project, path) for path in SHARED_PATHS}
            routes |= {f"To{logical_name(name)}Preflight": _preflight(project, f"/{name}") for name in called}
        properties["Events"] = routes
    return {
        "CatalogueFunction": _function(project, "CatalogueFunction", properties),
        "CatalogueRole": catalogue_role(project),
        "CatalogueLogGroup": log_group(project),
    }


def reserves(project: Project) -> bool:
    """Whether any function reserves concurrency (0 counts too: nothing runs)."""
    return project.has_api or any(f.settings.reserved_concurrency is not None for f in project.functions.values())


def reserved_total(project: Project) -> int:
    """Return how much of the account's concurrency the stack reserves."""
    return sum(reserved_parts(project).values())


def reserved_parts(project: Project) -> dict[str, int]:
    """Return how much concurrency each function reserves, by program; `CATALOGUE` if there is an API."""
    parts = {name: f.settings.reserved_concurrency or 0 for name, f in project.functions.items()}
    return parts | ({CATALOGUE: _CATALOGUE_CONCURRENCY} if project.has_api else {})


def _retries(settings: FunctionSettings) -> dict[str, Any]:
    return {
        "MaximumRetryAttempts": settings.retry_attempts,
        "MaximumEventAgeInSeconds": settings.maximum_event_age_seconds,
    }


def _latest_invoke_config(function: Function) -> dict[str, Any]:
    """Return the retries and the on-failure queue for `$LATEST`; SAM's own settings apply to the alias.

    Used without an alias too, where SAM's settings would suffice: a function and qualifier can have only one such
    resource, and CloudFormation creates the new one before it deletes the old one. So it must stay the same resource
    when an alias is added or removed.
    """
    properties = {
        "FunctionName": ref(f"{logical_name(function.name)}Function"),
        "Qualifier": "$LATEST",
        **_retries(function.settings),
        "DestinationConfig": {"OnFailure": {"Destination": get_att("OnFailureQueue.Arn")}},
    }
    return {"Type": "AWS::Lambda::EventInvokeConfig", "Properties": properties}


def function_url(project: Project) -> dict[str, Any]:
    """Return a function URL's settings."""
    return {
        "AuthType": "NONE" if project.config.lambda_.api.auth == "none" else "AWS_IAM",
        **({"Cors": cors(project)} if project.config.server.cors_origins else {}),
    }


def api_id(project: Project) -> str:
    """Return the API's logical id: one per kind, because CloudFormation cannot change a resource's type."""
    return "Api" if project.config.lambda_.api.kind == "rest" else "HttpApi"


def cors(project: Project) -> dict[str, Any]:
    """Return the CORS settings of a function URL or an HTTP API for the configured origins."""
    return {"AllowOrigins": project.config.server.cors_origins, "AllowMethods": ["*"], "AllowHeaders": CORS_HEADERS}


def log_group(project: Project, name: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return a log group with the project's retention; CloudFormation generates its name unless `name` is given."""
    settings = project.config.lambda_
    key = {"KmsKeyId": settings.kms_key_arn} if settings.kms_key_arn else {}
    properties = {**(name or {}), "RetentionInDays": settings.log_retention_days, **key}
    return {"Type": "AWS::Logs::LogGroup", "Properties": properties}


def _logging(group: str, level: str | None) -> dict[str, Any]:
    """Return where a function's lines go, and which: system lines stay at INFO, with the report of each invocation."""
    return {"LogFormat": "JSON", "LogGroup": ref(group), **({"ApplicationLogLevel": level} if level else {})}


def _function(project: Project, logical_id: str, properties: dict[str, Any]) -> dict[str, Any]:
    settings = project.config.lambda_
    if settings.package_type == "Zip":
        # The Makefile next to the template has the rule `build-%`.
        metadata: dict[str, Any] = {"BuildMethod": "makefile", "ContextPath": "."}
    else:
        metadata = {"DockerContext": f"dist/{logical_id}", "Dockerfile": "Dockerfile", "DockerTag": logical_id.lower()}
    return {"Type": "AWS::Serverless::Function", "Metadata": metadata, "Properties": properties}


def _package(project: Project, code: str, handler: str) -> dict[str, Any]:
    if project.config.lambda_.package_type == "Zip":
        return {"CodeUri": code, "Handler": handler}
    return {"PackageType": "Image", "ImageConfig": {"Command": [handler]}}


def _alias(function: Function) -> dict[str, Any]:
    if not function.has_alias:
        return {}
    return {
        "AutoPublishAlias": ALIAS,
        "VersionDeletionPolicy": "Delete",  # an old version uses storage, and its snapshot costs money
        **({"SnapStart": {"ApplyOn": "PublishedVersions"}} if function.settings.snap_start else {}),
        **deployment_preference(function),
    }


def _events(project: Project, function: Function) -> dict[str, Any]:
    name, settings = logical_name(function.name), function.settings
    events: dict[str, Any] = {}
    if settings.http and project.config.lambda_.api.kind != "url":
        # ANY, so that the function itself can answer a wrong method with 405.
        events["Route"] = _route(project, f"/{function.name}", "ANY")
    if settings.sqs:
        events["Queue"] = {"Type": "SQS", "Properties": _mapping(name, settings.sqs)}
    if settings.schedule:
        event = json.dumps({"program": function.name, "inputs": settings.schedule.inputs})
        schedule: dict[str, Any] = {"ScheduleExpression": settings.schedule.expression, "Input": event}
        if not project.config.lambda_.kms_key_arn:
            # The role that SAM creates for the schedule may not use a key.
            schedule["DeadLetterConfig"] = {"Arn": get_att("OnFailureQueue.Arn")}
        if boundary := project.config.lambda_.permissions_boundary_arn:
            schedule["PermissionsBoundary"] = boundary
        # SAM would name the schedule after its logical id, which all stacks in the account and Region would share.
        events["Schedule"] = {"Type": "ScheduleV2", "Properties": {**schedule, "OmitName": True}}
    return events


def _mapping(name: str, sqs: Sqs) -> dict[str, Any]:
    mapping: dict[str, Any] = {
        "Queue": get_att(f"{name}Queue.Arn"),
        "BatchSize": sqs.batch_size,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "ScalingConfig": {"MaximumConcurrency": sqs.maximum_concurrency},
    }
    return mapping | ({"MaximumBatchingWindowInSeconds": sqs.window_seconds} if sqs.window_seconds else {})


def _route(project: Project, path: str, method: str) -> dict[str, Any]:
    type_, reference = ("Api", "RestApiId") if project.config.lambda_.api.kind == "rest" else ("HttpApi", "ApiId")
    return {"Type": type_, "Properties": {"Path": path, "Method": method, reference: ref(api_id(project))}}


def _preflight(project: Project, path: str) -> dict[str, Any]:
    """Return a route without auth: browsers send preflights without credentials. REST's own answer has one origin."""
    route = _route(project, path, "OPTIONS")
    match project.config.lambda_.api.auth:
        case "api_key":
            route["Properties"]["Auth"] = {"ApiKeyRequired": False}
        case "iam" | "jwt":
            route["Properties"]["Auth"] = {"Authorizer": "NONE"}
    return route


def _event_name(path: str) -> str:
    """/health/live -> HealthLive."""
    return "".join(part.capitalize() for part in path.replace(".", "/").split("/"))
