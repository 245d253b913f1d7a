"""What becomes of failed records: when they come back, or that they never do.

Without this a failed record is invisible for the queue's whole visibility timeout (six times the function's), however
soon the provider would have had it back; and one that can never succeed is received until the redrive policy gives up.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dspy_lambda.config import Sqs
from dspy_lambda.errors import CallError
from dspy_lambda.sources.sqs.attributes import group_of, receive_count

# https://docs.aws.amazon.com/lambda/latest/dg/snapstart-activate.html#snapstart-credentials
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
DEAD_LETTER_QUEUE = "DSPY_LAMBDA_DEAD_LETTER_QUEUE_URL"
_AT_MOST = 10  # entries of one batch request
_LONGEST_SECONDS = 43_200  # SQS: 12 hours from the record's receipt


@dataclass(frozen=True)
class Failure:
    """A failed record: as it came, and why it failed."""

    record: dict[str, Any]
    error: CallError


class Requeue:
    """Talks to SQS with the function's own credentials. boto3 is imported with the first failure, not before.

    Every request may fail: then the record is as it was, and the visibility timeout and redrive policy hold.
    """

    def __init__(self, variables: Mapping[str, str], warn: Callable[[str, dict[str, Any]], None]) -> None:
        self._variables = variables
        self._warn = warn
        self._client: Any = None

    @property
    def possible(self) -> bool:
        """Whether there are credentials, as Lambda puts them into the environment: with SnapStart, by their address."""
        return any(self._variables.get(name) for name in _CREDENTIALS)

    def settle(self, failures: list[Failure], settings: Sqs) -> set[int]:
        """Send what is invalid to the dead-letter queue, if so configured; let the rest come back in time.

        Returns:
            The positions of the failures that the dead-letter queue has now: those need not be reported.
        """
        moved: set[int] = set()
        if settings.invalid_to_dead_letter_queue:
            moved = self._bury(failures)
        if settings.backoff_seconds:
            self._bring_back([failure for n, failure in enumerate(failures) if n not in moved], settings)
        return moved

    def delete(self, records: list[dict[str, Any]]) -> bool:
        """Delete records that are done, whose batch may not live to say so; True, whatever SQS answers.

        Where the function may not delete, records that came back must be run all the same.
        """
        for some in _chunks(records):
            entries = [{"Id": str(n), "ReceiptHandle": record["receiptHandle"]} for n, record in enumerate(some)]
            self._send("delete_message_batch", some[0]["eventSourceARN"], entries)
        return True

    def _bury(self, failures: list[Failure]) -> set[int]:
        invalid = [n for n, failure in enumerate(failures) if failure.error.outcome == "invalid_input"]
        url = self._variables.get(DEAD_LETTER_QUEUE)
        if invalid and not url:
            self._warn("there is no dead-letter queue to move invalid records to", {"missing": DEAD_LETTER_QUEUE})
            return set()
        moved: set[int] = set()
        for some in _chunks(invalid):
            entries = [_letter(n, failures[n]) for n in some]
            answer = self._send("send_message_batch", url, entries)
            moved |= {int(entry["Id"]) for entry in answer.get("Successful", [])}
        return moved

    def _bring_back(self, failures: list[Failure], settings: Sqs) -> None:
        known = [failure for failure in failures if failure.error.outcome != "invalid_input"]
        for some in _chunks(known):
            entries = [
                {
                    "Id": str(n),
                    "ReceiptHandle": failure.record["receiptHandle"],
                    "VisibilityTimeout": pause_seconds(failure, settings),
                }
                for n, failure in enumerate(some)
            ]
            self._send("change_message_visibility_batch", some[0].record["eventSourceARN"], entries)

    def _send(self, method: str, queue: str | None, entries: list[dict[str, Any]]) -> dict[str, Any]:
        """What SQS answers to a batch request; nothing where it cannot be asked, as without boto3 or a region.

        Args:
            queue: its URL or ARN.
        """
        try:
            url = self._url(queue) if queue and queue.startswith("arn:") else queue
            answer: dict[str, Any] = getattr(self._sqs(), method)(QueueUrl=url, Entries=entries)
        except Exception as error:
            self._warn("SQS refused", {"request": method, "exception_name": type(error).__name__})
            return {}
        for failed in answer.get("Failed", []):
            self._warn("SQS refused", {"request": method, "code": failed.get("Code")})
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
                endpoint_url=self._variables.get("AWS_ENDPOINT_URL_SQS"),
                aws_access_key_id=self._variables.get("AWS_ACCESS_KEY_ID"),
                aws_secret_access_key=self._variables.get("AWS_SECRET_ACCESS_KEY"),
                aws_session_token=self._variables.get("AWS_SESSION_TOKEN"),
            )
        return self._client

    def _url(self, arn: str) -> str:
        """A queue's URL from its ARN: asking SQS for it would need one more permission."""
        account, name = arn.split(":")[4:6]
        return f"{self._sqs().meta.endpoint_url}/{account}/{name}"


def pause_seconds(failure: Failure, settings: Sqs) -> int:
    """Seconds until a failed record shall be visible again.

    What the provider said, where it limits the rate; else `backoff_seconds` doubled with each receive, at most
    `backoff_max_seconds`, and of that a random half to whole, so that what failed together does not come back together.
    """
    if failure.error.retry_after is not None:
        return min(math.ceil(failure.error.retry_after), _LONGEST_SECONDS)
    received = receive_count(failure.record)
    longest: int = min(settings.backoff_seconds * 2 ** min(received - 1, 20), settings.backoff_max_seconds)
    return math.ceil(longest * random.uniform(0.5, 1))  # noqa: S311 - no secret


def is_addressable(record: Any) -> bool:
    """Whether a record has what it takes to be spoken of to SQS."""
    return (
        isinstance(record, dict)
        and isinstance(record.get("receiptHandle"), str)
        and isinstance(record.get("body"), str)
        and isinstance(record.get("eventSourceARN"), str)
        and record["eventSourceARN"].count(":") == 5
    )


def _letter(number: int, failure: Failure) -> dict[str, Any]:
    """The record as it came, with the reason as message attributes."""
    record = failure.record
    attributes = {
        "Reason": {"DataType": "String", "StringValue": failure.error.detail[:1000]},
        "SourceMessageId": {"DataType": "String", "StringValue": str(record.get("messageId"))},
    }
    entry = {"Id": str(number), "MessageBody": record["body"], "MessageAttributes": attributes}
    if record["eventSourceARN"].endswith(".fifo"):
        entry["MessageGroupId"] = group_of(record) or "none"
        entry["MessageDeduplicationId"] = str(record.get("messageId"))
    return entry


def _chunks(items: list[Any]) -> Iterable[list[Any]]:
    return (items[start : start + _AT_MOST] for start in range(0, len(items), _AT_MOST))
