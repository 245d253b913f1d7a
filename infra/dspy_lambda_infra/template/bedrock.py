"""What a function's role may do on Amazon Bedrock: call its own models, and apply their guardrails."""

from __future__ import annotations

from typing import Any

from dspy_lambda.models.bedrock.profiles import split_arn, split_profile
from dspy_lambda_infra.models import Model, function_models
from dspy_lambda_infra.project import Function, Project
from dspy_lambda_infra.template.syntax import Intrinsic, sub

# Converse and the OpenAI-compatible door have no actions of their own.
# https://docs.aws.amazon.com/bedrock/latest/userguide/inference.html
_INVOKE = ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"]
_ANY_MODEL = "arn:${AWS::Partition}:bedrock:*::foundation-model/*"
_ROUTERS = ("prompt-router", "default-prompt-router")

Resource = str | Intrinsic
Statement = dict[str, Any]


def bedrock_statements(project: Project, function: Function) -> list[Statement]:
    """Return the policy statements for a function's models on Bedrock; empty if it has none."""
    found: list[Statement] = []
    for model in function_models(project, function):
        for statement in _statements(model):
            if statement not in found:
                found.append(statement)
    return found


def _statements(model: Model) -> list[Statement]:
    if model.route is None:
        return []
    region = model.region or "${AWS::Region}"
    if model.route.door in ("mantle-chat", "anthropic"):
        # Mantle authorizes by project, not by model; requests that name no project use the account's default one.
        # https://docs.aws.amazon.com/service-authorization/latest/reference/list_bedrock-mantle.html
        project = f"arn:${{AWS::Partition}}:bedrock-mantle:{region}:${{AWS::AccountId}}:project/*"
        return [_allow("bedrock-mantle:CreateInference", [sub(project)])]
    guardrail = model.guardrail
    applied = [] if guardrail is None else [_allow("bedrock:ApplyGuardrail", [_guardrail(guardrail, region)])]
    return [*_invoke(model.route.model_id, region), *applied]


def _invoke(model_id: str, region: str) -> list[Statement]:
    arn = split_arn(model_id)
    if arn is None:
        geography, base = split_profile(model_id)
        if geography is not None:
            return _profile(sub(_in_account(region, "inference-profile", model_id)), [base], geography)
        if "." not in model_id:  # foundation models are named PROVIDER.MODEL
            return _profile(sub(_in_account(region, "application-inference-profile", model_id)), [])
        return [_allow(_INVOKE, [sub(f"arn:${{AWS::Partition}}:bedrock:{region}::foundation-model/{model_id}")])]
    if arn.kind == "inference-profile":
        geography, base = split_profile(arn.id)
        return _profile(model_id, [base], geography)
    if arn.kind == "application-inference-profile":
        return _profile(model_id, [])
    if arn.kind in _ROUTERS:
        # It routes to foundation models and to inference profiles.
        profiles = sub("arn:${AWS::Partition}:bedrock:*:${AWS::AccountId}:inference-profile/*")
        through = _allow(_INVOKE, [sub(_ANY_MODEL), profiles], {"bedrock:PromptRouterArn": model_id})
        return [_allow(_INVOKE, [model_id]), through]
    # Foundation models, provisioned throughput, imported models and deployments of custom models.
    return [_allow(_INVOKE, [model_id])]


def _profile(profile: Resource, models: list[str], geography: str | None = None) -> list[Statement]:
    """Allow an inference profile, and the models behind it, but only through it.

    Args:
        models: the foundation models' ids; none if only AWS knows them.
    """
    # "You must also specify the foundation model in each Region associated with it." AWS adds Regions to profiles, so
    # any Region is allowed; the condition restricts calls to those that the profile routes.
    # https://docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-prereq.html
    behind: list[Resource] = [sub(f"arn:${{AWS::Partition}}:bedrock:*::foundation-model/{model}") for model in models]
    if geography == "global":
        # Its requests are also authorized for a model ARN without a Region.
        # https://docs.aws.amazon.com/bedrock/latest/userguide/global-cross-region-inference.html
        behind += [sub(f"arn:${{AWS::Partition}}:bedrock:::foundation-model/{model}") for model in models]
    through = _allow(_INVOKE, behind or [sub(_ANY_MODEL)], {"bedrock:InferenceProfileArn": profile})
    return [_allow(_INVOKE, [profile]), through]


def _guardrail(guardrail_id: str, region: str) -> Resource:
    is_arn = guardrail_id.startswith("arn:")
    return guardrail_id if is_arn else sub(_in_account(region, "guardrail", guardrail_id))


def _in_account(region: str, kind: str, name: str) -> str:
    return f"arn:${{AWS::Partition}}:bedrock:{region}:${{AWS::AccountId}}:{kind}/{name}"


def _allow(
    action: str | list[str], resources: list[Resource], condition: dict[str, Resource] | None = None
) -> Statement:
    only = {"Condition": {"StringEquals": condition}} if condition else {}
    return {"Effect": "Allow", "Action": action, "Resource": resources, **only}
