"""What becomes of failed records: when they come back, or that they never do.

Without this a failed record is invisible for the queue's whole visibility timeout (six times the function's), however
soon the provider would have had it back; and one that fails by itself is received until the redrive policy gives up.
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
# Where another SQS stands in, as under `dspy-lambda local`, the SDK finds the developer's own: a profile, for example.
# https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
_ENDPOINT = "AWS_ENDPOINT_URL_SQS"
# SQS: at most 12 hours from the record's receipt, which is up to 15 minutes ago.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html
_LONGEST_SECONDS = 43_200 - 900
LEAST_PART = 0.5  # of the backoff: the rest is random, or what failed together would come back together


class Requeue:
    """Talks to SQS with the function's own credentials. boto3 is imported with the first failure, not before.

    Every request may fail: then the record is as it was, and the visibility timeout and redrive policy hold.
    """

    def __init__(self, settings: Settings, warn: Callable[[str, dict[str, Any]], None]) -> None:
        self._variables = dict(
            settings.variables
        )  # what programs change in the process's own is not for these requests
        self._dead_letter_queue_url = settings.dead_letter_queue_url
        self._warn = warn
        self._client: Any = None

    @property
    def has_credentials(self) -> bool:
        """Whether there are credentials, as Lambda puts them into the environment: with SnapStart, by their address."""
        return any(self._variables.get(name) for name in (*_CREDENTIALS, _ENDPOINT))

    def settle(
        self, failures: list[Failure], settings: Sqs, until: float, note_moved: Callable[[Failure], None]
    ) -> None:
        """Send records that are not to be run again to the dead-letter queue; let the others come back in time.

        Args:
            until: `time.monotonic()` after which nothing is sent any more.
            note_moved: called with each failure whose record the dead-letter queue has: it need not be reported.
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
        """Delete records that are done, whose batch may not live to say so; whether SQS answered, if only to refuse.

        Args:
            until: `time.monotonic()` after which nothing is sent any more.
        """
        answers = []
        for some in _chunks(records):
            if time.monotonic() >= until:
                return False
            entries = [{"Id": str(n), "ReceiptHandle": record["receiptHandle"]} for n, record in enumerate(some)]
            answers.append(self._send("delete_message_batch", some[0]["eventSourceARN"], entries))
        return all(answers)

    def _send_to_dead_letter_queue(self, failures: list[Failure], until: float) -> Iterable[Failure]:
        """Those that it has."""
        url = self._dead_letter_queue_url
        if failures and not url:
            self._warn("there is no dead-letter queue to move records to", {"missing": DEAD_LETTER_QUEUE})
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
                    self._warn("a record in the dead-letter queue has no room for its reason", about)
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
                endpoint_url=self._variables.get(_ENDPOINT),
                aws_access_key_id=self._variables.get("AWS_ACCESS_KEY_ID"),
                aws_secret_access_key=self._variables.get("AWS_SECRET_ACCESS_KEY"),
                aws_session_token=self._variables.get("AWS_SESSION_TOKEN"),
            )
        return self._client

    def _url(self, arn: str) -> str:
        """A queue's URL from its ARN: asking SQS for it would need one more permission."""
        account, name = arn.split(":")[4:6]
        return f"{self._sqs().meta.endpoint_url}/{account}/{name}"


def pauses(failures: Iterable[Failure], unblocked: set[str], settings: Sqs) -> list[tuple[Failure, int]]:
    """Seconds until each record is to be visible again: for a message group those of its first one.

    Args:
        unblocked: message groups whose first record has been moved: the next one has waited for it only.
    """
    of_groups: dict[str, int] = dict.fromkeys(unblocked, 0)
    found = []
    for failure in failures:
        seconds, group = pause_seconds(failure, settings), failure.record.group
        found.append((failure, seconds if group is None else of_groups.setdefault(group, seconds)))
    return found


def pause_seconds(failure: Failure, settings: Sqs) -> int:
    """Seconds until a failed record is to be visible again: the provider's Retry-After or the backoff, if longer.

    Of the backoff a random part of half to whole, and more than Retry-After by up to half of it: so that what failed
    together does not come back together.
    """
    backoff = backoff_seconds(failure.record.receive_count, settings) * random.uniform(LEAST_PART, 1)  # noqa: S311
    asked = (failure.error.retry_after or 0.0) * random.uniform(1, 1.5)  # noqa: S311
    return max(1, min(math.ceil(max(backoff, asked)), _LONGEST_SECONDS))


def backoff_seconds(received: int, settings: Sqs) -> int:
    """`backoff_seconds` doubled with each receive after the first, at most `backoff_max_seconds`."""
    seconds: int = min(settings.backoff_seconds * 2 ** min(received - 1, 20), settings.backoff_max_seconds)
    return seconds


def is_addressable(record: Any) -> bool:
    """Whether a record has what it takes to be spoken of to SQS."""
    return (
        isinstance(record, dict)
        and isinstance(record.get("receiptHandle"), str)
        and isinstance(record.get("body"), str)
        and isinstance(record.get("eventSourceARN"), str)
        and record["eventSourceARN"].count(":") == 5
    )


def _chunks(items: list[Any]) -> Iterable[list[Any]]:
    return (items[start : start + MAX_ENTRIES] for start in range(0, len(items), MAX_ENTRIES))
