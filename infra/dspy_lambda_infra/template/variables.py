"""A function's environment variables: names of secrets, never a value."""

from __future__ import annotations

import json
from typing import Any

from dspy_lambda.settings import (
    DEAD_LETTER_QUEUE,
    EXTENSION_PORT,
    METRICS_NAMESPACE,
    PRECONNECT,
    SECRETS,
    SECRETS_VERSION,
)
from dspy_lambda_infra.project import Function, Project, logical_name
from dspy_lambda_infra.template.syntax import Intrinsic, ref, sub

_EXTENSION_LAYER = ":layer:AWS-Parameters-and-Secrets-Lambda-Extension"
_LONGEST_URL = len("https://sqs.ap-southeast-1.amazonaws.com.cn/123456789012/") + 80


def variables(project: Project, function: Function) -> dict[str, Any]:
    """What one program's function has among its variables; of secrets only the places."""
    name, settings, config = logical_name(function.name), function.settings, project.config
    found: dict[str, Any] = dict(function.environment)
    if settings.preconnect:
        found[PRECONNECT] = "true"
    if settings.sqs:
        found[DEAD_LETTER_QUEUE] = ref(f"{name}DeadLetterQueue")
    if secrets := project.secrets(function):
        found[SECRETS] = sub(" ".join(f"{variable}={place}" for variable, place in secrets.items()))
        found[SECRETS_VERSION] = ref("SecretsVersion")
        # Empty on AWS, where the secret fills them; there, so that `sam local` hands over this machine's.
        found |= dict.fromkeys(secrets, "")
        if any(_EXTENSION_LAYER in layer for layer in config.lambda_.layers):
            found[EXTENSION_PORT] = "2773"
    if config.lambda_.tracing == "otel":
        found["AWS_LAMBDA_EXEC_WRAPPER"] = "/opt/otel-instrument"
    return found


def shared_variables() -> dict[str, str | Intrinsic]:
    """What every function of the stack has among its variables."""
    # The stack's name, so that the metrics of two stages in one account stay apart.
    return {"POWERTOOLS_SERVICE_NAME": sub("${AWS::StackName}"), "POWERTOOLS_METRICS_NAMESPACE": METRICS_NAMESPACE}


def environment_bytes(project: Project, function: Function) -> int:
    """The most that a function's variables can take, as Lambda counts them: as one JSON object."""
    found = {**shared_variables(), **variables(project, function)}
    return len(json.dumps({name: _longest(value) for name, value in found.items()}, separators=(",", ":")).encode())


def _longest(value: str | Intrinsic) -> str:
    """A variable's value with the longest names of stack and stage; a reference is at most a queue's URL."""
    if isinstance(value, str):
        return value
    if value.tag == "!Ref":
        return "x" * _LONGEST_URL
    return str(value.value).replace("${Stage}", "x" * 32).replace("${AWS::StackName}", "x" * 128)
