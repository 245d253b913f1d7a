"""Compares a stack with its next deployment, resource by resource: what changes, and what that replaces or restarts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from dspy_lambda_infra.deploy.parameters import HIDDEN
from dspy_lambda_infra.deploy.resolve import resolve

# These change with every build or along with other changes, and carry no information of their own.
_NOISE = ("Metadata",)
# "Update requires: Replacement" in the resource types' schemas (createOnlyProperties).
# https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/
_REPLACING = {
    "AWS::ApiGateway::ApiKey": {"GenerateDistinctId", "Name", "Value"},
    "AWS::ApiGateway::Stage": {"RestApiId", "StageName"},
    "AWS::ApiGateway::UsagePlanKey": {"KeyId", "KeyType", "UsagePlanId"},
    "AWS::ApiGatewayV2::Api": {"ProtocolType"},
    "AWS::ApiGatewayV2::Stage": {"ApiId", "StageName"},
    "AWS::CloudWatch::Alarm": {"AlarmName"},
    "AWS::CloudWatch::Dashboard": {"DashboardName"},
    "AWS::IAM::Role": {"Path", "RoleName"},
    "AWS::Lambda::Alias": {"FunctionName", "Name"},
    "AWS::Lambda::EventInvokeConfig": {"FunctionName", "Qualifier"},
    "AWS::Lambda::EventSourceMapping": {"EventSourceArn"},
    "AWS::Lambda::Function": {"DurableConfig", "FunctionName", "PackageType", "TenancyConfig"},
    "AWS::Lambda::Permission": {"Action", "FunctionName", "FunctionUrlAuthType", "Principal", "SourceArn"},
    "AWS::Lambda::Url": {"Qualifier", "TargetFunctionArn"},
    "AWS::Logs::LogGroup": {"LogGroupName"},
    "AWS::SNS::Topic": {"FifoTopic", "TopicName"},
    "AWS::SQS::Queue": {"FifoQueue", "QueueName"},
    "AWS::Scheduler::Schedule": {"Name"},
}
# Lambda starts new execution environments when a function's configuration changes; these properties are not part of
# that.
_NOT_RESTARTING = {"RecursiveLoop", "ReservedConcurrentExecutions", "Tags"}
_KEY = "KmsMasterKeyId"
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-server-side-encryption.html
_FORMER_KEY = (
    " (messages in it stay encrypted with the former key, which the stack's roles can no longer use: let it "
    "drain first)"
)


def changes(
    deployed: dict[str, Any] | None,
    new: dict[str, Any],
    before: Mapping[str, str] | None = None,
    after: Mapping[str, str] | None = None,
) -> list[str]:
    """Return one line per resource that would be added, changed or removed; empty if there is none.

    Code is not compared: artifacts get their location in S3 only during deployment.

    Args:
        deployed: the stack's processed template; None if there is no stack.
        new: the translated template.
        before: the parameters of the deployed stack.
        after: the parameters of the next deployment.
    """
    resources = resolve(new, after or {})
    if deployed is None:
        kinds = Counter(resource["Type"] for resource in resources.values())
        return [f"+ {count:>3} {kind}" for kind, count in sorted(kinds.items())]
    present = _named(resources)
    past = _named(resolve(deployed, before or {}))
    lines = [f"+ {name} ({present[name]['Type']})" for name in sorted(present.keys() - past.keys())]
    for name in sorted(past.keys() & present.keys()):
        if paths := _differing(past[name], present[name]):
            lines.append(f"~ {name}: {', '.join(paths)}{_effect(past[name], present[name], paths)}")
    for name in sorted(past.keys() - present.keys()):
        lines.append(f"- {name} ({past[name]['Type']}): {_fate(past[name], 'DeletionPolicy')}")
    return lines


def parameter_changes(before: Mapping[str, str], after: Mapping[str, str], hidden: Collection[str] = ()) -> list[str]:
    """Return one line per parameter of a deployed stack whose value would change, without `hidden` values."""
    changed = [key for key in sorted(before.keys() & after.keys()) if before[key] != after[key]]
    shown = {key: (HIDDEN, HIDDEN) if key in hidden else (before[key], after[key]) for key in changed}
    return [f"~ {key}: {old} -> {new}" for key, (old, new) in shown.items()]


def _named(resources: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return resources by logical id; API deployments, whose ids contain a digest, by their kind."""
    found = {}
    for name, resource in resources.items():
        kept = {key: value for key, value in resource.items() if key not in _NOISE}
        found[resource["Type"].rpartition("::")[2] if _is_versioned(resource) else name] = _without_code(kept)
    return found


def _is_versioned(resource: dict[str, Any]) -> bool:
    kind: str = resource["Type"]
    return kind.endswith(("::Deployment", "Lambda::Version"))


def _without_code(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_code(item) for key, item in value.items() if key not in ("Code", "DeploymentId")}
    return [_without_code(item) for item in value] if isinstance(value, list) else value


def _differing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    if _is_versioned(before):
        return []
    old, new = before.get("Properties", {}), after.get("Properties", {})
    paths = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    paths += [key for key in sorted({*before, *after} - {"Properties"}) if before.get(key) != after.get(key)]
    return paths


def _effect(before: dict[str, Any], after: dict[str, Any], paths: list[str]) -> str:
    kind = after["Type"]
    if before["Type"] != kind:
        return f" (REJECTED by CloudFormation: a resource cannot change its type; give the {kind} another logical id)"
    if _REPLACING.get(kind, set()) & set(paths):
        return f" (REPLACED; the old one: {_fate(before, 'UpdateReplacePolicy')})"
    if kind == "AWS::Lambda::Function" and set(paths) - _NOT_RESTARTING:
        return " (restarts its environments)"
    if kind == "AWS::SQS::Queue" and _KEY in paths and _KEY in before.get("Properties", {}):
        return _FORMER_KEY
    return ""


def _fate(resource: dict[str, Any], policy: str) -> str:
    return "kept, outside the stack" if str(resource.get(policy)).startswith("Retain") else "DELETED"
