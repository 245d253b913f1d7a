"""Emulates Lambda's event source mapping between a queue and its function.

Behavior: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html and
https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from dspy_lambda_infra.config import Sqs
from dspy_lambda_infra.local.environment import MAX_REQUEST_BYTES
from dspy_lambda_infra.local.events import ACCOUNT
from dspy_lambda_infra.local.function import Function, Throttled
from dspy_lambda_infra.local.queues import REGION, Queue

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_RECEIVE_AT_MOST = 10
_POLL_SECONDS = 1


class EventSourceMapping:
    """Polls one queue, invokes its function with batches, and deletes finished records.

    A record that the function reports as failed, and every record of a batch that was throttled or ended in a
    function error, stays in the queue until its visibility timeout has passed: then it is received again, or moved
    to the dead-letter queue once it has been received `max_receive_count` times.
    """

    def __init__(self, client: SQSClient, queue: Queue, function: Function, settings: Sqs) -> None:
        self._client = client
        self._queue = queue
        self._function = function
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.maximum_concurrency)
        self._invocations: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Poll until canceled."""
        try:
            while True:
                # Receive only as much as can be invoked now: that is the purpose of MaximumConcurrency.
                await self._slots.acquire()
                batch = await self._collect()
                if not batch:
                    self._slots.release()
                    continue
                task = asyncio.create_task(self._invoke_all(batch))
                self._invocations.add(task)
                task.add_done_callback(self._done)
        finally:
            for task in self._invocations:
                task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._invocations.discard(task)
        self._slots.release()

    async def _collect(self) -> list[dict[str, Any]]:
        """Receive until the batch is full or 6 MB large, or until its window since the first record has passed."""
        batch: list[dict[str, Any]] = []
        closes = 0.0
        while len(batch) < self._settings.batch_size and not (batch and time.monotonic() >= closes):
            received = await self._receive(self._settings.batch_size - len(batch))
            if not received and not batch:
                return []
            if not batch:
                closes = time.monotonic() + self._settings.window_seconds
            batch += received
            if sum(len(_encode(record)) for record in batch) >= MAX_REQUEST_BYTES:
                break
        return batch

    async def _receive(self, most: int) -> list[dict[str, Any]]:
        """Receive some records or none; retry if the queue cannot be read now."""
        try:
            answer = await asyncio.to_thread(
                self._client.receive_message,
                QueueUrl=self._queue.url,
                MaxNumberOfMessages=min(most, _RECEIVE_AT_MOST),
                WaitTimeSeconds=_POLL_SECONDS,
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        except (BotoCoreError, ClientError) as error:
            self._log(f"the queue cannot be read: {error}")
            await asyncio.sleep(_POLL_SECONDS)
            return []
        return [self._record(message) for message in answer.get("Messages", [])]

    async def _invoke_all(self, batch: list[dict[str, Any]]) -> None:
        """Invoke with as many records at a time as fit into 6 MB."""
        failed_groups: set[str] = set()
        for part in split(batch):
            # Records received after a failed one of their FIFO message group go back to the queue with it.
            part = [record for record in part if self._group(record) not in failed_groups]
            if part:
                failed = await self._invoke(part)
                failed_groups |= {group for record in failed if (group := self._group(record))}

    async def _invoke(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Invoke once and delete finished records; return those that stay in the queue."""
        try:
            answer = await self._function.invoke(_encode({"Records": records}))
        except Throttled:
            self._log("throttled: the records go back to the queue")
            return records
        sent = {record["messageId"] for record in records}
        failed = sent if answer.error is not None else failed_identifiers(answer.payload, sent)
        await self._delete([record for record in records if record["messageId"] not in failed])
        left = [record for record in records if record["messageId"] in failed]
        self._log_last_receives(left)
        return left

    def _log_last_receives(self, failed: list[dict[str, Any]]) -> None:
        """Log records that the redrive policy moves instead of their next receive."""
        most = self._settings.max_receive_count
        for record in failed:
            if int(record["attributes"].get("ApproximateReceiveCount", 0)) >= most:
                text = f"goes to the dead-letter queue after {most} receives (max_receive_count)"
                self._log(text, message_id=record["messageId"])

    async def _delete(self, done: list[dict[str, Any]]) -> None:
        for start in range(0, len(done), _RECEIVE_AT_MOST):
            entries: Any = [
                {"Id": str(position), "ReceiptHandle": record["receiptHandle"]}
                for position, record in enumerate(done[start : start + _RECEIVE_AT_MOST])
            ]
            try:
                await asyncio.to_thread(self._client.delete_message_batch, QueueUrl=self._queue.url, Entries=entries)
            except (BotoCoreError, ClientError) as error:
                self._log(f"finished records cannot be deleted: {error}")

    def _group(self, record: dict[str, Any]) -> str | None:
        """Return a record's message group if order is guaranteed: standard queues also have groups, for fairness."""
        group: str | None = record["attributes"].get("MessageGroupId")
        return group if self._settings.fifo else None

    def _log(self, text: str, **about: str) -> None:
        line = {"level": "WARN", "message": text, "queue": self._queue.name, **about}
        self._function.settings.log(self._function.settings.name, json.dumps(line))

    def _record(self, message: Any) -> dict[str, Any]:
        attributes = {name: _attribute(value) for name, value in message.get("MessageAttributes", {}).items()}
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message.get("Attributes", {}),
            "messageAttributes": attributes,
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self._queue.name}",
            "awsRegion": REGION,
        }


def _attribute(value: Any) -> dict[str, Any]:
    attribute = {"dataType": value["DataType"], "stringListValues": [], "binaryListValues": []}
    if "StringValue" in value:
        attribute["stringValue"] = value["StringValue"]
    if "BinaryValue" in value:
        attribute["binaryValue"] = base64.b64encode(value["BinaryValue"]).decode()
    return attribute


def _encode(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="replace")


def split(batch: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Split records, in order, into as few events as possible of up to 6 MB each, the limit of an invocation."""
    parts: list[list[dict[str, Any]]] = []
    room = 0
    for record in batch:
        size = len(_encode(record)) + 2
        if not parts or size > room:
            parts.append([])
            room = MAX_REQUEST_BYTES - len(b'{"Records": []}')
        parts[-1].append(record)
        room -= size
    return parts


def failed_identifiers(payload: bytes, sent: set[str]) -> set[str]:
    """Return which messages of a batch an answer reports as failed, by Lambda's rules.

    None of them for an empty or missing list; all of them for an answer in another format, or with an empty or unknown
    identifier.
    """
    try:
        answer = json.loads(payload)
        failures = (answer or {}).get("batchItemFailures") or []
        failed = {failure["itemIdentifier"] for failure in failures}
    except (ValueError, AttributeError, KeyError, TypeError):
        return sent
    return failed if failed <= sent else sent
