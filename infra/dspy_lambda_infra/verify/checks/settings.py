"""Checks of the config's switches."""

from __future__ import annotations

from typing import Any

from dspy_lambda_infra.verify.checks import waiting
from dspy_lambda_infra.verify.project import PROGRAM
from dspy_lambda_infra.verify.stack import Seen, Stack


def the_function_is_arm64(stack: Stack) -> Seen:
    """architecture: arm64 runs on Graviton, with an artifact built on another platform."""
    found = _configuration(stack).get("Architectures")
    answer = stack.call("why?")
    return found == ["arm64"] and answer.status == 200, f"{found}; {answer}"


def the_function_is_an_image(stack: Stack) -> Seen:
    """package_type: Image answers like a zip."""
    found = _configuration(stack).get("PackageType")
    answer = stack.call("why?")
    return found == "Image" and answer.status == 200, f"{found}; {answer}"


def snap_start_is_on(stack: Stack) -> Seen:
    """snap_start: the called version has a snapshot, and answers."""
    found = _configuration(stack).get("SnapStart", {}).get("OptimizationStatus")
    answer = stack.call("why?")
    return found == "On" and answer.status == 200, f"{found}; {answer}"


def the_function_is_in_the_vpc(stack: Stack) -> Seen:
    """vpc: the function is in the subnet and answers; a program without a model needs no internet access."""
    found = _configuration(stack).get("VpcConfig", {}).get("SubnetIds")
    answer = stack.call("no model")
    fine = found == [(stack.shared or {}).get("Subnet")] and answer.json == {"answer": "none asked"}
    return fine, f"{found}; {answer}"


def everything_is_encrypted_with_the_key(stack: Stack) -> Seen:
    """kms_key_arn: function, queues and log groups use it, and a record is processed."""
    key = (stack.shared or {}).get("KeyArn", "")
    function = _configuration(stack).get("KMSKeyArn")
    attributes = stack.client("sqs").get_queue_attributes(QueueUrl=stack.queue(), AttributeNames=["KmsMasterKeyId"])
    group = stack.resource(f"{PROGRAM}LogGroup")
    groups = stack.client("logs").describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    found = {function, attributes.get("Attributes", {}).get("KmsMasterKeyId"), *(g.get("kmsKeyId") for g in groups)}
    stack.send("q")
    left = waiting(stack, stack.queue(), 120)
    return found == {key} and left == 0, f"{found}; {left} in the queue"


def _configuration(stack: Stack) -> dict[str, Any]:
    """Return the configuration of the function, or of the version behind its alias."""
    name = stack.outputs[f"{PROGRAM}FunctionName"]
    found: dict[str, Any] = stack.client("lambda").get_function_configuration(FunctionName=name)
    return found
