"""The API: one for all programs, requiring authorization unless the config says otherwise."""

from __future__ import annotations

import json
from typing import Any

from dspy_lambda_infra.project import Project
from dspy_lambda_infra.template.functions import api_id, cors, log_group
from dspy_lambda_infra.template.gateway import REFUSALS
from dspy_lambda_infra.template.roles import service_role
from dspy_lambda_infra.template.syntax import get_att, if_, ref, sub

# https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-logging.html
_LOG_ROLE = "arn:${AWS::Partition}:iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs"
# CloudWatch lets an HTTP API write through an account-level resource policy of at most 5,120 characters: log groups
# with this prefix do not use any of it.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/AWS-logs-infrastructure-CWL.html
_HTTP_LOG = "/aws/vendedlogs/${AWS::StackName}/api"
# A REST API writes its access log with a role that an account has once per Region: do not change it without consent.
ACCESS_LOG = "ApiAccessLog"
ACCESS_LOGS = ("none", "account-role", "new-role")
_LOGGED = {
    "requestId": "$context.requestId",
    "ip": "$context.identity.sourceIp",
    "requestTime": "$context.requestTime",
    "method": "$context.httpMethod",
    "path": "$context.path",
    "status": "$context.status",
    "integrationStatus": "$context.integration.status",  # Lambda's status: 429 if the function was throttled
    "latency": "$context.responseLatency",
    "error": "$context.error.message",
}


def api_parameters(project: Project) -> dict[str, Any]:
    """Return the parameters that only a REST API needs."""
    if not _is_rest(project):
        return {}
    return {
        ACCESS_LOG: {
            "Type": "String",
            "AllowedValues": list(ACCESS_LOGS),
            "Default": ACCESS_LOGS[0],
            "Description": (
                "account-role if API Gateway has a log role in this account and Region; new-role creates one "
                "for all of their REST APIs"
            ),
        }
    }


def api_conditions(project: Project) -> dict[str, Any]:
    """Return the conditions on those parameters."""
    if not _is_rest(project):
        return {}
    return {
        "HasAccessLog": {"Fn::Not": [{"Fn::Equals": [ref(ACCESS_LOG), "none"]}]},
        "ApiLogsRole": {"Fn::Equals": [ref(ACCESS_LOG), "new-role"]},
    }


def api_resources(project: Project) -> dict[str, Any]:
    """Return the API, its access log, and what it needs to write it; nothing for function URLs."""
    kind = project.config.lambda_.api.kind
    if not project.has_api or kind == "url":
        return {}
    access_log = {"DestinationArn": get_att("ApiLogGroup.Arn"), "Format": json.dumps(_LOGGED)}
    if kind == "http":
        return {
            api_id(project): {"Type": "AWS::Serverless::HttpApi", "Properties": _http_api(project, access_log)},
            "ApiLogGroup": log_group(project, {"LogGroupName": sub(_HTTP_LOG)}),
        }
    return {
        api_id(project): {
            "Type": "AWS::Serverless::Api",
            "DependsOn": ["ApiLogsAccount"],  # otherwise the stage may not be allowed to log yet
            "Properties": _rest_api(project, access_log),
        },
        "ApiLogGroup": log_group(project),
        **_logs_role(project),
    }


def _is_rest(project: Project) -> bool:
    return project.has_api and project.config.lambda_.api.kind == "rest"


def _rest_api(project: Project, access_log: dict[str, Any]) -> dict[str, Any]:
    settings = project.config.lambda_
    throttle = settings.api.throttle
    everything = {
        "ResourcePath": "/*",
        "HttpMethod": "*",
        "ThrottlingRateLimit": throttle.rate,
        "ThrottlingBurstLimit": throttle.burst,
    }
    auth = _rest_auth(project)
    return {
        "Name": sub("${AWS::StackName}"),
        "StageName": ref("Stage"),
        "EndpointConfiguration": {"Type": "REGIONAL"},
        "MethodSettings": [everything],
        "AccessLogSetting": if_("HasAccessLog", access_log),
        **({"TracingEnabled": True} if settings.tracing == "xray" else {}),
        **({"Auth": auth} if auth else {}),
        "GatewayResponses": _gateway_responses(project),
    }


def _rest_auth(project: Project) -> dict[str, Any]:
    api = project.config.lambda_.api
    if api.auth == "iam":
        # NONE: the API, not the caller, invokes the functions; callers need only execute-api:Invoke.
        return {"DefaultAuthorizer": "AWS_IAM", "InvokeRole": "NONE"}
    if api.auth == "jwt":
        return {"Authorizers": {"Jwt": {"UserPoolArn": api.user_pool_arn}}, "DefaultAuthorizer": "Jwt"}
    if api.auth == "api_key":
        plan: dict[str, Any] = {
            "CreateUsagePlan": "PER_API",
            "Throttle": {"RateLimit": api.throttle.rate, "BurstLimit": api.throttle.burst},
        }
        if api.requests_per_day:
            plan["Quota"] = {"Limit": api.requests_per_day, "Period": "DAY"}
        return {"ApiKeyRequired": True, "UsagePlan": plan}
    return {}


def _gateway_responses(project: Project) -> dict[str, Any]:
    origins = project.config.server.cors_origins
    # A gateway response supports only one origin.
    cors = {"Access-Control-Allow-Origin": f"'{origins[0]}'"} if len(origins) == 1 else {}
    responses = {}
    for kind, refusal in REFUSALS.items():
        seconds = refusal.retry_after_seconds
        headers = {**({"Retry-After": f"'{seconds}'"} if seconds else {}), **cors}
        responses[kind] = {
            "StatusCode": refusal.status,
            **({"ResponseParameters": {"Headers": headers}} if headers else {}),
            "ResponseTemplates": {"application/json": json.dumps(refusal.body("$context.requestId"))},
        }
    return responses


def _logs_role(project: Project) -> dict[str, Any]:
    """Return API Gateway's log role: there is one per account and Region, so it outlives this stack."""
    # AWS does not document whether API Gateway sends the source account: if it does, refuse other accounts.
    condition = {"StringEqualsIfExists": {"aws:SourceAccount": ref("AWS::AccountId")}}
    kept = {"Condition": "ApiLogsRole", "DeletionPolicy": "RetainExceptOnCreate", "UpdateReplacePolicy": "Retain"}
    role = service_role(project, "apigateway", {"ManagedPolicyArns": [sub(_LOG_ROLE)]}, condition)
    return {
        "ApiLogsRole": {**role, **kept},
        "ApiLogsAccount": {
            "Type": "AWS::ApiGateway::Account",
            **kept,
            "Properties": {"CloudWatchRoleArn": get_att("ApiLogsRole.Arn")},
        },
    }


def _http_api(project: Project, access_log: dict[str, Any]) -> dict[str, Any]:
    api, origins = project.config.lambda_.api, project.config.server.cors_origins
    auth: dict[str, Any] = {}
    if api.auth == "iam":
        auth = {"EnableIamAuthorizer": True, "DefaultAuthorizer": "AWS_IAM"}
    elif api.auth == "jwt":
        jwt = {
            "JwtConfiguration": {"issuer": api.issuer, "audience": api.audience},
            "IdentitySource": "$request.header.Authorization",
        }
        auth = {"Authorizers": {"Jwt": jwt}, "DefaultAuthorizer": "Jwt"}
    return {
        "Name": sub("${AWS::StackName}"),
        "StageName": "$default",
        "DefaultRouteSettings": {
            "ThrottlingRateLimit": api.throttle.rate,
            "ThrottlingBurstLimit": api.throttle.burst,
        },
        "AccessLogSettings": access_log,
        **({"Auth": auth} if auth else {}),
        **({"CorsConfiguration": cors(project)} if origins else {}),
    }
