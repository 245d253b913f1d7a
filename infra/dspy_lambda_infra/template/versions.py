"""When functions with an alias publish a version: when something changes that a version keeps, and only then.

Lambda refuses a version in which nothing is new. SAM publishes one when code, variables or memory change; its
`AutoPublishAliasAllProperties` also does for tags and reserved concurrency, which no version keeps.
https://github.com/aws/serverless-application-model/issues/3281
"""

from __future__ import annotations

import hashlib
from typing import Any

from dspy_lambda_infra.template.extra import merge
from dspy_lambda_infra.template.syntax import dump, ref, sub

# What else a version keeps, by SAM's names.
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
    """The template with a description of each version: CloudFormation replaces a version whose description changes.

    It names the version of the secrets where the function reads any: SAM does not see a parameter's value change.
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
    """Of what a version keeps, a function's own settings over those of all, as SAM merges them: one list is replaced.

    https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/sam-specification-template-anatomy-globals.html
    """
    settings = merge(shared, own) | {name: own[name] for name in ("Architectures",) if name in own}
    kept = {name: settings[name] for name in _KEPT if name in settings}
    return hashlib.sha256(dump(kept).encode()).hexdigest()[:12]
