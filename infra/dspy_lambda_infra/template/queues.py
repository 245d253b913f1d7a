"""Queues, which outlive their stack together with the records in them."""

from __future__ import annotations

from typing import Any

from dspy_lambda.sources.sqs.requeue import MIN_BACKOFF_SHARE, backoff_seconds
from dspy_lambda_infra.config import FunctionSettings
from dspy_lambda_infra.project import Function, Project, logical_name
from dspy_lambda_infra.template.syntax import get_att, ref

# "Set the visibility timeout to at least six times the function timeout, plus MaximumBatchingWindowInSeconds".
# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
VISIBILITY_FACTOR = 6
# A record keeps its age when the redrive policy moves it, so a dead-letter queue needs a longer retention.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html
RETENTION_SECONDS = 4 * 24 * 3600
DLQ_RETENTION_SECONDS = 14 * 24 * 3600


def program_queues(project: Project, function: Function) -> dict[str, Any]:
    """Return a program's queue and its dead-letter queue; none without `sqs`."""
    name, sqs = logical_name(function.name), function.settings.sqs
    if not sqs:
        return {}
    fifo = {"FifoQueue": True} if sqs.fifo else {}
    queue = {
        **fifo,
        **({"ContentBasedDeduplication": True} if sqs.fifo else {}),
        "VisibilityTimeout": visibility_timeout_seconds(function.settings),
        "MessageRetentionPeriod": RETENTION_SECONDS,
        "RedrivePolicy": {
            "deadLetterTargetArn": get_att(f"{name}DeadLetterQueue.Arn"),
            "maxReceiveCount": sqs.max_receive_count,
        },
        **_encryption(project),
    }
    return {f"{name}Queue": _kept("AWS::SQS::Queue", queue), f"{name}DeadLetterQueue": _dead_letters(project, fifo)}


def on_failure_queue(project: Project) -> dict[str, Any]:
    """Return the queue for asynchronous invocations and schedules that failed permanently; Lambda would drop them."""
    queue = _dead_letters(project, {})
    # No queue redrives into it. The programs' dead-letter queues cannot name their sources: queue and dead-letter queue
    # would depend on each other.
    queue["Properties"]["RedriveAllowPolicy"] = {"redrivePermission": "denyAll"}
    return {"OnFailureQueue": queue}


def queue_policy(project: Project) -> dict[str, Any]:
    """Return one policy for all queues, to save resources of the stack's quota: requests only over TLS.

    `Resource: "*"` is the queue that the policy is attached to.
    https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/quickref-iam.html#scenario-sqs-policy
    """
    queued = [logical_name(function.name) for function in project.functions.values() if function.settings.sqs]
    names = [f"{name}{kind}" for name in queued for kind in ("Queue", "DeadLetterQueue")]
    statement = {
        "Sid": "OnlyOverTls",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "sqs:*",
        "Resource": "*",
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    properties = {
        "Queues": [ref(name) for name in [*names, "OnFailureQueue"]],
        "PolicyDocument": {"Version": "2012-10-17", "Statement": [statement]},
    }
    return {"QueuePolicy": _kept("AWS::SQS::QueuePolicy", properties)}


def visibility_timeout_seconds(settings: FunctionSettings) -> int:
    """Return the visibility timeout of a function's queue."""
    own = settings.sqs.visibility_timeout_seconds if settings.sqs else None
    return least_visibility_timeout_seconds(settings) if own is None else own


def least_visibility_timeout_seconds(settings: FunctionSettings) -> int:
    """Return AWS's recommendation, which includes the batching window: records are invisible during it too."""
    window = settings.sqs.window_seconds if settings.sqs else 0
    return VISIBILITY_FACTOR * settings.timeout_seconds + window


def survived_outage_seconds(settings: FunctionSettings) -> int:
    """Return the shortest time from a record's first receive to its last, if the provider refuses all calls.

    Based on the handler's backoff, or without `backoff_seconds` on the visibility timeout; 0 without a queue. A longer
    Retry-After adds to it, and each receive for another reason (a throttle, a crash in the same batch) removes one
    pause.
    """
    if not settings.sqs:
        return 0
    receives = settings.sqs.max_receive_count
    if settings.sqs.backoff_seconds:
        seconds = sum(MIN_BACKOFF_SHARE * backoff_seconds(received, settings.sqs) for received in range(1, receives))
    else:
        seconds = (receives - 1) * visibility_timeout_seconds(settings)
    return min(int(seconds), RETENTION_SECONDS)


def _dead_letters(project: Project, fifo: dict[str, Any]) -> dict[str, Any]:
    return _kept("AWS::SQS::Queue", {**fifo, "MessageRetentionPeriod": DLQ_RETENTION_SECONDS, **_encryption(project)})


def _encryption(project: Project) -> dict[str, Any]:
    key = project.config.lambda_.kms_key_arn
    return {"KmsMasterKeyId": key} if key else {"SqsManagedSseEnabled": True}


def _kept(type_: str, properties: dict[str, Any]) -> dict[str, Any]:
    # A failed first deployment leaves nothing behind.
    kept = {"DeletionPolicy": "RetainExceptOnCreate", "UpdateReplacePolicy": "Retain"}
    return {"Type": type_, **kept, "Properties": properties}
