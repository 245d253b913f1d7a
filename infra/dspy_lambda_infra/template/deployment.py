"""Gradual deployments: an alias whose calls CodeDeploy moves to the new version, and back when an alarm goes off."""

from __future__ import annotations

from typing import Any

from dspy_lambda_infra.project import Function, Project
from dspy_lambda_infra.template.alarms import rollout_alarms
from dspy_lambda_infra.template.roles import service_role
from dspy_lambda_infra.template.syntax import get_att, ref, sub

ALIAS = "live"
# https://docs.aws.amazon.com/codedeploy/latest/userguide/getting-started-create-service-role.html
_POLICY = "arn:${AWS::Partition}:iam::aws:policy/service-role/AWSCodeDeployRoleForLambdaLimited"


def deployment_preference(function: Function) -> dict[str, Any]:
    """SAM's settings for a function whose calls move gradually; nothing for any other.

    `AllAtOnce` goes without CodeDeploy, as CloudFormation moves an alias by itself. So no alarm can stop it: while
    those of the running version fire, CodeDeploy would stop the deployment that brings the fix. Leaving the alarms out
    would not do, since a deployment group keeps those that it has.
    https://docs.aws.amazon.com/codedeploy/latest/APIReference/API_UpdateDeploymentGroup.html
    """
    if not _is_gradual(function):
        return {}
    assert function.settings.deployment is not None
    preference = {
        "Type": function.settings.deployment.type,
        "Alarms": [ref(name) for name in rollout_alarms(function, ALIAS)],
        "Role": get_att("DeploymentRole.Arn"),
    }
    return {"DeploymentPreference": preference}


def deployment_resources(project: Project) -> dict[str, Any]:
    """The alarms of every function whose calls move gradually, and CodeDeploy's role; nothing where there is none."""
    functions = [function for function in project.functions.values() if _is_gradual(function)]
    if not functions:
        return {}
    alarms = {name: alarm for function in functions for name, alarm in rollout_alarms(function, ALIAS).items()}
    return {"DeploymentRole": service_role(project, "codedeploy", {"ManagedPolicyArns": [sub(_POLICY)]}), **alarms}


def _is_gradual(function: Function) -> bool:
    deployment = function.settings.deployment
    return deployment is not None and deployment.type != "AllAtOnce"
