"""Queues, that outlive their stack with the work that is in them."""

from __future__ import annotations

from typing import Any

from dspy_lambda.config import FunctionSettings
from dspy_lambda_infra.project import Function, Project, logical_name
from dspy_lambda_infra.template.syntax import get_att

# "Set the visibility timeout to at least six times the function timeout, plus MaximumBatchingWindowInSeconds"; the DLQ
# keeps what failed for 14 days.
# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
VISIBILITY_FACTOR = 6
DLQ_RETENTION_SECONDS = 14 * 24 * 3600


def program_queues(project: Project, function: Function) -> dict[str, Any]:
    """A program's queue and its dead-letter queue; none without `sqs`."""
    name, sqs = logical_name(function.name), function.settings.sqs
    if not sqs:
        return {}
    fifo = {"FifoQueue": True} if sqs.fifo else {}
    queue = {
        **fifo,
        **({"ContentBasedDeduplication": True} if sqs.fifo else {}),
        "VisibilityTimeout": visibility_timeout_seconds(function.settings),
        "RedrivePolicy": {
            "deadLetterTargetArn": get_att(f"{name}DeadLetterQueue.Arn"),
            "maxReceiveCount": sqs.max_receive_count,
        },
        **_encryption(project),
    }
    return {f"{name}Queue": _kept(queue), f"{name}DeadLetterQueue": _dead_letters(project, fifo)}


def on_failure_queue(project: Project) -> dict[str, Any]:
    """Where asynchronous invocations and schedules end that failed for good; Lambda drops them otherwise."""
    return {"OnFailureQueue": _dead_letters(project, {})}


def visibility_timeout_seconds(settings: FunctionSettings) -> int:
    """Of a function's queue."""
    own = settings.sqs.visibility_timeout_seconds if settings.sqs else None
    return least_visibility_timeout_seconds(settings) if own is None else own


def least_visibility_timeout_seconds(settings: FunctionSettings) -> int:
    """What AWS advises: records are invisible while a batch is gathered, too."""
    window = settings.sqs.window_seconds if settings.sqs else 0
    return VISIBILITY_FACTOR * settings.timeout_seconds + window


def _dead_letters(project: Project, fifo: dict[str, Any]) -> dict[str, Any]:
    return _kept({**fifo, "MessageRetentionPeriod": DLQ_RETENTION_SECONDS, **_encryption(project)})


def _encryption(project: Project) -> dict[str, Any]:
    key = project.config.lambda_.kms_key_arn
    return {"KmsMasterKeyId": key} if key else {"SqsManagedSseEnabled": True}


def _kept(properties: dict[str, Any]) -> dict[str, Any]:
    # A first deployment that fails leaves nothing behind.
    kept = {"DeletionPolicy": "RetainExceptOnCreate", "UpdateReplacePolicy": "Retain"}
    return {"Type": "AWS::SQS::Queue", **kept, "Properties": properties}
