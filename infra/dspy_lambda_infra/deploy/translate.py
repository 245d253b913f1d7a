"""A SAM template as the CloudFormation template that AWS makes of it, by AWS's own translator, offline."""

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
# The managed policies that SAM gives a function's role by itself.
_POLICIES = {
    "AWSLambdaBasicExecutionRole": f"{_MANAGED}service-role/AWSLambdaBasicExecutionRole",
    "AWSLambdaVPCAccessExecutionRole": f"{_MANAGED}service-role/AWSLambdaVPCAccessExecutionRole",
    "AWSLambdaSQSQueueExecutionRole": f"{_MANAGED}service-role/AWSLambdaSQSQueueExecutionRole",
    "AWSXRayDaemonWriteAccess": f"{_MANAGED}AWSXRayDaemonWriteAccess",
}


# It tells of feature toggles that only AWS's own service has.
logging.getLogger("samtranslator").setLevel(logging.ERROR)
# Stand in for the artifacts, which `sam deploy` uploads first.
_CODE = "s3://artifacts/not-uploaded"
_IMAGE = "000000000000.dkr.ecr.us-east-1.amazonaws.com/artifacts:not-uploaded"


def translate(text: str, parameters: dict[str, str], region: str = "us-east-1") -> dict[str, Any]:
    """The translated template.

    Args:
        text: the SAM template.
        parameters: values over the template's defaults.
        region: where it would be deployed to.

    Raises:
        ConfigError: the translator refuses the template; with its reasons.
    """
    return translate_mapping(yaml_parse(text), parameters, region)


def translate_mapping(
    template: dict[str, Any], parameters: dict[str, str], region: str = "us-east-1"
) -> dict[str, Any]:
    """The same of a template as a mapping without short-form intrinsics, which is changed."""
    # What AWS::Include brings only AWS can read.
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
