"""A function's environment variables: the names of secrets, never their values."""

from __future__ import annotations

import json
from typing import Any

from dspy_lambda.settings import DEAD_LETTER_QUEUE, EXTENSION_PORT, SECRETS, SECRETS_VERSION
from dspy_lambda_infra.project import Function, Project, logical_name, shared_variables
from dspy_lambda_infra.template.syntax import Intrinsic, ref, sub

_EXTENSION_LAYER = ":layer:AWS-Parameters-and-Secrets-Lambda-Extension"
_LONGEST_URL = len("https://sqs.ap-southeast-1.amazonaws.com.cn/123456789012/") + 80


def variables(project: Project, function: Function) -> dict[str, Any]:
    """Return the variables of one program's function; for secrets, only their locations."""
    name, settings, config = logical_name(function.name), function.settings, project.config
    found: dict[str, Any] = dict(function.environment)
    if settings.sqs:
        found[DEAD_LETTER_QUEUE] = ref(f"{name}DeadLetterQueue")
    if secrets := project.secrets(function):
        found[SECRETS] = sub(" ".join(f"{variable}={place}" for variable, place in secrets.items()))
        found[SECRETS_VERSION] = ref("SecretsVersion")
        # Empty on AWS, where the secrets fill them; declared so that `sam local` passes on this machine's values.
        found |= dict.fromkeys(secrets, "")
        if any(_EXTENSION_LAYER in layer for layer in config.lambda_.layers):
            found[EXTENSION_PORT] = "2773"
    if config.lambda_.tracing == "otel":
        found["AWS_LAMBDA_EXEC_WRAPPER"] = "/opt/otel-instrument"
    return found


def stack_variables() -> dict[str, str | Intrinsic]:
    """Return the variables that every function in the stack has."""
    # The stack's name, to separate the metrics of two stages in one account.
    return shared_variables(sub("${AWS::StackName}"))


def environment_bytes(project: Project, function: Function) -> int:
    """Return the maximum size of a function's variables, as Lambda counts them: as one JSON object."""
    found = {**stack_variables(), **variables(project, function)}
    return len(json.dumps({name: _longest(value) for name, value in found.items()}, separators=(",", ":")).encode())


def _longest(value: str | Intrinsic) -> str:
    """Return a variable's value with the longest stack and stage names; a reference is at most a queue's URL."""
    if isinstance(value, str):
        return value
    if "Ref" in value:
        return "x" * _LONGEST_URL
    return str(value["Fn::Sub"]).replace("${Stage}", "x" * 32).replace("${AWS::StackName}", "x" * 128)
