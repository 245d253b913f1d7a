"""Generates a project's SAM template: one AWS::Serverless::Function per program, in plain explicit resources."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.project import Project
from dspy_lambda_infra.template.alarms import alarm_resources, alarm_topic
from dspy_lambda_infra.template.api import api_conditions, api_parameters, api_resources
from dspy_lambda_infra.template.dashboard import dashboard
from dspy_lambda_infra.template.deployment import deployment_resources
from dspy_lambda_infra.template.extra import merge_extra
from dspy_lambda_infra.template.functions import catalogue_resources, function_resources, reserves
from dspy_lambda_infra.template.metadata import metadata
from dspy_lambda_infra.template.outputs import output_conditions, outputs
from dspy_lambda_infra.template.queries import queries
from dspy_lambda_infra.template.queues import on_failure_queue, queue_policy
from dspy_lambda_infra.template.sam_files import DEFAULT_STAGE
from dspy_lambda_infra.template.syntax import dump, ref
from dspy_lambda_infra.template.variables import stack_variables
from dspy_lambda_infra.template.versions import describe_versions

_WRITTEN = "# Written by `dspy-lambda template`"
HEADER = f"""\
{_WRITTEN} from dspy.config.yaml; change that file, not this one. Put anything
# it cannot express into template.extra.yaml next to it, which is merged into this file.
"""


def render(project: Project, folder: Path) -> str:
    """Return the template's text for a file in that folder; the same project always gives the same bytes."""
    return HEADER + dump(build(project, folder))


def write(text: str, path: Path) -> None:
    """Write a rendered template.

    Raises:
        ConfigError: dspy-lambda did not write the existing file, or the file cannot be written.
    """
    try:
        if path.exists() and not path.read_text(encoding="utf-8", errors="replace").startswith(_WRITTEN):
            raise ConfigError(
                f"{path}: was not written by dspy-lambda and is left unchanged; choose another file, and put its "
                "additions into template.extra.yaml"
            )
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}.") from None


def build(project: Project, folder: Path) -> dict[str, Any]:
    """Return the template as a mapping, including the user's own additions.

    Args:
        folder: the template's folder: its CodeUri is relative to that.
    """
    return describe_versions(merge_extra(generate(project, folder), project))


def generate(project: Project, folder: Path) -> dict[str, Any]:
    """Return the template as a mapping, without the user's own additions."""
    code = os.path.relpath(project.root, folder.resolve())
    functions = project.functions.values()
    parts = [api_resources(project)]
    parts += [function_resources(project, function, code) for function in functions]
    parts += [catalogue_resources(project, code)] if project.has_api else []
    parts += [on_failure_queue(project), queue_policy(project)]
    parts += [deployment_resources(project)]
    if project.config.lambda_.alarms:
        parts += [alarm_topic(project), *(alarm_resources(project, function) for function in functions)]
    parts += [dashboard(project), queries(project)]
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Transform": "AWS::Serverless-2016-10-31",
        "Description": project.config.description or f"DSPy programs of {project.config.app_id}",
        "Metadata": metadata(project),
        "Parameters": _parameters(project),
        "Conditions": _conditions(project),
        "Globals": _globals(project),
        "Resources": _join(parts),
        "Outputs": outputs(project),
    }


def _join(parts: list[dict[str, Any]]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for part in parts:
        if shared := sorted(set(part) & set(joined)):
            raise ConfigError(
                f"two resources would share the logical id {shared[0]}; rename the program that it belongs to."
            )
        joined |= part
    return joined


def _parameters(project: Project) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "Stage": {
            "Type": "String",
            "Default": DEFAULT_STAGE,
            # https://docs.aws.amazon.com/apigateway/latest/api/API_CreateStage.html
            "AllowedPattern": "[A-Za-z0-9_-]{1,32}",
            "Description": "The API's stage, and {stage} in the names of secrets",
        },
        "SecretsVersion": {
            "Type": "String",
            "Default": "1",
            "Description": "Change it after rotating a secret: all environments restart and read it again",
        },
    }
    if reserves(project):
        parameters["ReserveConcurrency"] = {
            "Type": "String",
            "AllowedValues": ["true", "false"],
            "Default": "true",
            "Description": "Set to false in new accounts, whose quota of 10 leaves nothing to reserve",
        }
    if project.config.lambda_.alarms:
        parameters["AlarmEmail"] = {
            "Type": "String",
            "Default": "",
            "Description": "The email address for alarms; if empty, they go only to the topic",
        }
    return parameters | api_parameters(project)


def _conditions(project: Project) -> dict[str, Any]:
    conditions = output_conditions()
    if reserves(project):
        conditions["Reserve"] = {"Fn::Equals": [ref("ReserveConcurrency"), "true"]}
    if project.config.lambda_.alarms:
        conditions["HasAlarmEmail"] = {"Fn::Not": [{"Fn::Equals": [ref("AlarmEmail"), ""]}]}
    return conditions | api_conditions(project)


def _globals(project: Project) -> dict[str, Any]:
    settings = project.config.lambda_
    function: dict[str, Any] = {
        "Architectures": [settings.architecture],
        "Environment": {"Variables": stack_variables()},
    }
    if settings.package_type == "Zip":
        function = {"Runtime": settings.runtime, **function}
    if settings.tracing == "xray":
        function["Tracing"] = "Active"
    if settings.kms_key_arn:
        function["KmsKeyArn"] = settings.kms_key_arn
    if settings.vpc:
        subnets, groups = settings.vpc.subnet_ids, settings.vpc.security_group_ids
        function["VpcConfig"] = {"SubnetIds": subnets, "SecurityGroupIds": groups}
    found: dict[str, Any] = {"Function": function}
    if project.has_api and settings.api.kind == "rest":
        # Otherwise SAM deploys a second stage, named Stage.
        found["Api"] = {"OpenApiVersion": "3.0.1"}
    return found
