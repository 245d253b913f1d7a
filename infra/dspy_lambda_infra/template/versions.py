"""Publishes a version of functions with an alias if, and only if, something changes that a version captures.

Lambda refuses to publish a version without changes. SAM publishes one when code, variables or memory change; with
`AutoPublishAliasAllProperties` also for tags and reserved concurrency, which versions do not capture.
https://github.com/aws/serverless-application-model/issues/3281
"""

from __future__ import annotations

import hashlib
from typing import Any

from dspy_lambda_infra.template.extra import merge
from dspy_lambda_infra.template.syntax import dump, ref, sub

# The other properties that a version captures, by SAM's names.
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-versions.html
_KEPT = (
    "Architectures",
    "DeadLetterQueue",
    "Description",
    "EphemeralStorage",
    "FileSystemConfigs",
    "Handler",
    "ImageConfig",
    "KmsKeyArn",
    "Layers",
    "LoggingConfig",
    "Role",
    "Runtime",
    "SnapStart",
    "Timeout",
    "Tracing",
    "VpcConfig",
)


def describe_versions(template: dict[str, Any]) -> dict[str, Any]:
    """Add a description to each version in the template: CloudFormation replaces a version if its description changes.

    It includes the secrets version if the function reads any: SAM does not notice when a parameter's value changes.
    https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-lambda-version.html
    """
    shared = template.get("Globals", {}).get("Function", {})
    for resource in template["Resources"].values():
        own = resource.get("Properties") or {}
        if resource.get("Type") == "AWS::Serverless::Function" and "AutoPublishAlias" in own:
            text = f"settings {_digest(shared, own)}"
            reads_secrets = ref("SecretsVersion") in own.get("Environment", {}).get("Variables", {}).values()
            described = sub(f"{text}, secrets ${{SecretsVersion}}") if reads_secrets else text
            own.setdefault("VersionDescription", described)
    return template


def _digest(shared: dict[str, Any], own: dict[str, Any]) -> str:
    """Return a digest of what a version captures, with SAM's merge of global settings: this replaces one list.

    https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/sam-specification-template-anatomy-globals.html
    """
    settings = merge(shared, own) | {name: own[name] for name in ("Architectures",) if name in own}
    kept = {name: settings[name] for name in _KEPT if name in settings}
    return hashlib.sha256(dump(kept).encode()).hexdigest()[:12]
