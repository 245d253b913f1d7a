"""Gradual deployments: CodeDeploy shifts an alias's traffic to the new version, and back if an alarm goes off."""

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
    """Return SAM's settings for a function with gradual deployment; nothing for other functions.

    `AllAtOnce` does not use CodeDeploy, as CloudFormation can update an alias itself. So no alarm can stop it: with
    CodeDeploy, alarms about the running version would stop the deployment of its fix. Omitting the alarms would not
    help, since a deployment group keeps those that it has.
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
    """Return the alarms of all functions with gradual deployment and CodeDeploy's role; nothing if there are none."""
    functions = [function for function in project.functions.values() if _is_gradual(function)]
    if not functions:
        return {}
    alarms = {name: alarm for function in functions for name, alarm in rollout_alarms(function, ALIAS).items()}
    return {"DeploymentRole": service_role(project, "codedeploy", {"ManagedPolicyArns": [sub(_POLICY)]}), **alarms}


def _is_gradual(function: Function) -> bool:
    deployment = function.settings.deployment
    return deployment is not None and deployment.type != "AllAtOnce"
