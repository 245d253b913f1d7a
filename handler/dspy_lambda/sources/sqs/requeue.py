"""Set when failed records come back, or move them to the dead-letter queue.

Without this, a failed record stays invisible for the queue's whole visibility timeout (six times the function's), even
if the provider recovers sooner, and a record that always fails is received until the redrive policy applies.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable
from typing import Any

from dspy_lambda.config import Sqs
from dspy_lambda.settings import DEAD_LETTER_QUEUE, Settings
from dspy_lambda.sources.sqs.dead_letter import MAX_ENTRIES, dead_letter, has_reason, requests
from dspy_lambda.sources.sqs.failure import Failure

# https://docs.aws.amazon.com/lambda/latest/dg/snapstart-activate.html#snapstart-credentials
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
# Set for a local SQS, as in `dspy-lambda local`; the SDK then finds the developer's credentials, such as a profile.
# https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
_ENDPOINT = "AWS_ENDPOINT_URL_SQS"
# SQS allows at most 12 hours after the record's receipt, which was up to 15 minutes ago.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html
_MAX_SECONDS = 43_200 - 900
MIN_BACKOFF_SHARE = 0.5  # the rest is random, so that records that failed together do not come back together


class Requeue:
    """Sends requests to SQS with the function's own credentials. boto3 is imported on the first failure.

    Any request may fail; then the queue's visibility timeout and redrive policy apply.
    """

    def __init__(self, settings: Settings, warn: Callable[[str, dict[str, Any]], None]) -> None:
        self._variables = dict(settings.variables)  # a copy, so that programs' changes do not affect these requests
        self._dead_letter_queue_url = settings.dead_letter_queue_url
        self._warn = warn
        self._client: Any = None

    @property
    def has_credentials(self) -> bool:
        """Whether the environment has credentials, or their address with SnapStart, as Lambda sets them."""
        return any(self._variables.get(name) for name in (*_CREDENTIALS, _ENDPOINT))

    def settle(
        self, failures: list[Failure], settings: Sqs, until: float, note_moved: Callable[[Failure], None]
    ) -> None:
        """Send records that must not run again to the dead-letter queue, and set the backoff of the others.

        Args:
            until: `time.monotonic()` after which no request is sent.
            note_moved: called with each failure whose record was moved and need not be reported.
        """
        moved: list[Failure] = []
        final = [failure for failure in failures if failure.is_final(settings)]
        for failure in self._send_to_dead_letter_queue(final, until):
            moved.append(failure)
            note_moved(failure)
        if settings.backoff_seconds:
            positions = {failure.record.position for failure in moved}
            waiting = [failure for failure in failures if failure.record.position not in positions]
            unblocked = {failure.record.group for failure in moved if failure.record.group is not None}
            self._apply_backoff(pauses(waiting, unblocked, settings), until)

    def delete(self, records: list[dict[str, Any]], until: float) -> bool:
        """Delete done records in case their batch never ends; return whether SQS answered, even with an error.

        Args:
            until: `time.monotonic()` after which no request is sent.
        """
        answers = []
        for some in _chunks(records):
            if time.monotonic() >= until:
                return False
            entries = [{"Id": str(n), "ReceiptHandle": record["receiptHandle"]} for n, record in enumerate(some)]
            answers.append(self._send("delete_message_batch", some[0]["eventSourceARN"], entries))
        return all(answers)

    def _send_to_dead_letter_queue(self, failures: list[Failure], until: float) -> Iterable[Failure]:
        """Send failures to the dead-letter queue, and yield those that it accepted."""
        url = self._dead_letter_queue_url
        if failures and not url:
            self._warn("no dead-letter queue is configured", {"missing": DEAD_LETTER_QUEUE})
            return
        for entries in requests(dead_letter(n, failure) for n, failure in enumerate(failures)):
            if time.monotonic() >= until:
                return
            answer = self._send("send_message_batch", url, entries)
            by_id = {entry["Id"]: entry for entry in entries}
            for sent in answer.get("Successful", []):
                failure = failures[int(sent["Id"])]
                if not has_reason(by_id[sent["Id"]], failure):
                    about = {"message_id": failure.record.identifier, "outcome": failure.error.outcome}
                    self._warn("a dead-letter record has no room for its failure reason", about)
                yield failure

    def _apply_backoff(self, waits: list[tuple[Failure, int]], until: float) -> None:
        for some in _chunks(waits):
            if time.monotonic() >= until:
                return
            entries = [
                {"Id": str(n), "ReceiptHandle": failure.record.raw["receiptHandle"], "VisibilityTimeout": seconds}
                for n, (failure, seconds) in enumerate(some)
            ]
            self._send("change_message_visibility_batch", some[0][0].record.raw["eventSourceARN"], entries)

    def _send(self, method: str, queue: str | None, entries: list[dict[str, Any]]) -> dict[str, Any]:
        """Send a batch request and return SQS's answer; empty if the request fails, as without boto3 or a region.

        Args:
            queue: its URL or ARN.
        """
        try:
            url = self._url(queue) if queue and queue.startswith("arn:") else queue
            answer: dict[str, Any] = getattr(self._sqs(), method)(QueueUrl=url, Entries=entries)
        except Exception as error:
            self._warn("SQS request failed", {"request": method, "exception_name": type(error).__name__})
            return {}
        for failed in answer.get("Failed", []):
            self._warn("SQS request failed", {"request": method, "code": failed.get("Code")})
        return answer

    def _sqs(self) -> Any:
        if self._client is None:
            import boto3
            from botocore.config import Config

            config = Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 2})
            region = self._variables.get("AWS_REGION") or self._variables.get("AWS_DEFAULT_REGION")
            self._client = boto3.client(
                "sqs",
                region_name=region,
                config=config,
                endpoint_url=self._variables.get(_ENDPOINT),
                aws_access_key_id=self._variables.get("AWS_ACCESS_KEY_ID"),
                aws_secret_access_key=self._variables.get("AWS_SECRET_ACCESS_KEY"),
                aws_session_token=self._variables.get("AWS_SESSION_TOKEN"),
            )
        return self._client

    def _url(self, arn: str) -> str:
        """Build a queue's URL from its ARN: requesting it from SQS would need another permission."""
        account, name = arn.split(":")[4:6]
        return f"{self._sqs().meta.endpoint_url}/{account}/{name}"


def pauses(failures: Iterable[Failure], unblocked: set[str], settings: Sqs) -> list[tuple[Failure, int]]:
    """Return each record with the seconds until it becomes visible; in a message group, those of its first record.

    Args:
        unblocked: message groups whose first record was moved; the others only waited for it and become visible at
            once.
    """
    of_groups: dict[str, int] = dict.fromkeys(unblocked, 0)
    found = []
    for failure in failures:
        seconds, group = pause_seconds(failure, settings), failure.record.group
        found.append((failure, seconds if group is None else of_groups.setdefault(group, seconds)))
    return found


def pause_seconds(failure: Failure, settings: Sqs) -> int:
    """Return the seconds until a failed record becomes visible: the provider's Retry-After or the backoff, if longer.

    Applies jitter so that records that failed together do not come back together: 50 to 100 % of the backoff, and 100
    to 150 % of Retry-After.
    """
    backoff = backoff_seconds(failure.record.receive_count, settings) * random.uniform(MIN_BACKOFF_SHARE, 1)  # noqa: S311
    asked = (failure.error.retry_after or 0.0) * random.uniform(1, 1.5)  # noqa: S311
    return max(1, min(math.ceil(max(backoff, asked)), _MAX_SECONDS))


def backoff_seconds(received: int, settings: Sqs) -> int:
    """Return `backoff_seconds`, doubled with each receive after the first, at most `backoff_max_seconds`."""
    seconds: int = min(settings.backoff_seconds * 2 ** min(received - 1, 20), settings.backoff_max_seconds)
    return seconds


def is_addressable(record: Any) -> bool:
    """Whether a record has the fields that requests to SQS need."""
    return (
        isinstance(record, dict)
        and isinstance(record.get("receiptHandle"), str)
        and isinstance(record.get("body"), str)
        and isinstance(record.get("eventSourceARN"), str)
        and record["eventSourceARN"].count(":") == 5
    )


def _chunks(items: list[Any]) -> Iterable[list[Any]]:
    return (items[start : start + MAX_ENTRIES] for start in range(0, len(items), MAX_ENTRIES))
