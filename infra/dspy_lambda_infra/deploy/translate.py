"""Translates a SAM template to CloudFormation with AWS's own translator, offline."""

from __future__ import annotations

import logging
from typing import Any

import boto3
from samtranslator.model.exceptions import InvalidDocumentException
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

from dspy_lambda.errors import ConfigError

_MANAGED = "arn:aws:iam::aws:policy/"
# The managed policies that SAM adds to a function's role.
_POLICIES = {
    "AWSLambdaBasicExecutionRole": f"{_MANAGED}service-role/AWSLambdaBasicExecutionRole",
    "AWSLambdaVPCAccessExecutionRole": f"{_MANAGED}service-role/AWSLambdaVPCAccessExecutionRole",
    "AWSLambdaSQSQueueExecutionRole": f"{_MANAGED}service-role/AWSLambdaSQSQueueExecutionRole",
    "AWSXRayDaemonWriteAccess": f"{_MANAGED}AWSXRayDaemonWriteAccess",
}


# It logs feature toggles that only AWS's service has.
logging.getLogger("samtranslator").setLevel(logging.ERROR)
# Placeholders for the artifacts, which `sam deploy` uploads first.
_CODE = "s3://artifacts/not-uploaded"
_IMAGE = "000000000000.dkr.ecr.us-east-1.amazonaws.com/artifacts:not-uploaded"


def translate(text: str, parameters: dict[str, str], region: str = "us-east-1") -> dict[str, Any]:
    """Return the translated template.

    Args:
        text: the SAM template.
        parameters: values that override the template's defaults.
        region: the Region to deploy to.

    Raises:
        ConfigError: the translator rejects the template; contains its reasons.
    """
    return translate_mapping(yaml_parse(text), parameters, region)


def translate_mapping(
    template: dict[str, Any], parameters: dict[str, str], region: str = "us-east-1"
) -> dict[str, Any]:
    """Translate a template given as a mapping without short-form intrinsics; modifies the mapping."""
    # Only AWS can read what AWS::Include brings.
    template["Resources"].pop("Fn::Transform", None)
    for resource in template["Resources"].values():
        if resource.get("Type") == "AWS::Serverless::Function":
            is_image = resource["Properties"].get("PackageType") == "Image"
            resource["Properties"] |= {"ImageUri": _IMAGE} if is_image else {"CodeUri": _CODE}
    try:
        translator = Translator(_POLICIES, Parser(), boto_session=boto3.Session(region_name=region))
        translated: dict[str, Any] = translator.translate(template, parameters)
    except InvalidDocumentException as error:
        reasons = "; ".join(cause.message for cause in error.causes)
        raise ConfigError(f"template: {reasons}") from None
    return translated
