"""The stack's outputs: addresses, queues, and the link to the dashboard."""

from __future__ import annotations

from typing import Any

from dspy_lambda_infra.project import Project, logical_name
from dspy_lambda_infra.template.dashboard import DASHBOARD
from dspy_lambda_infra.template.functions import api_id
from dspy_lambda_infra.template.syntax import get_att, ref, sub

COMMERCIAL = "CommercialPartition"


def output_conditions() -> dict[str, Any]:
    """Return the condition on the dashboard's link, which points to the commercial partition's console."""
    return {COMMERCIAL: {"Fn::Equals": [ref("AWS::Partition"), "aws"]}}


def outputs(project: Project) -> dict[str, Any]:
    """Return the outputs by name."""
    kind = project.config.lambda_.api.kind
    found: dict[str, Any] = {}
    if project.has_api and kind != "url":
        stage = "/${Stage}" if kind == "rest" else ""
        address = f"https://${{{api_id(project)}}}.execute-api.${{AWS::Region}}.${{AWS::URLSuffix}}{stage}"
        found["ApiUrl"] = {"Description": "POST to /<Program>", "Value": sub(address)}
    if project.has_api and kind == "url":
        found["CatalogueUrl"] = {"Value": get_att("CatalogueFunctionUrl.FunctionUrl")}
    for function in project.functions.values():
        name = logical_name(function.name)
        if function.settings.http and kind == "url":
            found[f"{name}Url"] = {"Value": get_att(f"{name}FunctionUrl.FunctionUrl")}
        # The alias has the snapshot, the retries and the on-failure queue, and supports gradual deployment.
        alias = ".Alias" if function.has_alias else ""
        found[f"{name}FunctionName"] = {"Value": ref(f"{name}Function{alias}")}
        if function.settings.sqs:
            found[f"{name}QueueUrl"] = {"Value": ref(f"{name}Queue")}
            found[f"{name}DeadLetterQueueUrl"] = {"Value": ref(f"{name}DeadLetterQueue")}
    found["OnFailureQueueUrl"] = {"Value": ref("OnFailureQueue")}
    console = "https://${AWS::Region}.console.aws.amazon.com/cloudwatch/home?region=${AWS::Region}"
    found["DashboardUrl"] = {"Condition": COMMERCIAL, "Value": sub(f"{console}#dashboards:name={DASHBOARD}")}
    return found
