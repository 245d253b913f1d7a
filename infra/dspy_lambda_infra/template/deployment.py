"""Gradual deployments: an alias whose calls CodeDeploy moves to the new version, and back when an alarm goes off."""

from __future__ import annotations

from typing import Any

from dspy_lambda.config import Deployment
from dspy_lambda_infra.project import Function, Project
from dspy_lambda_infra.template.alarms import rollout_alarms
from dspy_lambda_infra.template.roles import service_role
from dspy_lambda_infra.template.syntax import get_att, ref, sub

ALIAS = "live"
# https://docs.aws.amazon.com/codedeploy/latest/userguide/getting-started-create-service-role.html
_POLICY = "arn:${AWS::Partition}:iam::aws:policy/service-role/AWSCodeDeployRoleForLambdaLimited"


def deployment_preference(function: Function, deployment: Deployment) -> dict[str, Any]:
    """SAM's settings for a function that has `deployment`."""
    return {
        "Type": deployment.type,
        "Alarms": [ref(name) for name in rollout_alarms(function, ALIAS)],
        "Role": get_att("DeploymentRole.Arn"),
    }


def deployment_resources(project: Project) -> dict[str, Any]:
    """The alarms of every function that has `deployment`, and CodeDeploy's role; nothing where none has."""
    functions = [function for function in project.functions.values() if function.settings.deployment]
    if not functions:
        return {}
    alarms = {name: alarm for function in functions for name, alarm in rollout_alarms(function, ALIAS).items()}
    return {"DeploymentRole": service_role(project, "codedeploy", {"ManagedPolicyArns": [sub(_POLICY)]}), **alarms}
