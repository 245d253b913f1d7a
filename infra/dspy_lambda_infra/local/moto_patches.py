"""Patches what moto's SQS lacks: the order of FIFO message groups, protection against concurrent changes, and traces.

After the visibility timeout, moto 5.2 skips a group's first message because the second one still counts as pending,
and then delivers the second one. It rebuilds a queue's message list on each delete, in a thread per request, without
a lock. It still lets a consumer extend a visibility timeout that has already expired. And it drops AWSTraceHeader, the
one system attribute, of messages that were sent as a batch.
`tests/infra/local/test_moto_patches.py` shows the first fault, and fails when moto no longer has it.
"""

from __future__ import annotations

import inspect
import time
from typing import Any

from moto.sqs.exceptions import ReceiptHandleIsInvalid
from moto.sqs.models import Message, Queue, SQSBackend

# How soon a long poll notices that a message is visible again; a new message ends the poll at once.
_POLL_SECONDS = 0.05

receive_as_moto = SQSBackend.receive_message
_delete_as_moto = Queue.delete_message
_change_as_moto = SQSBackend.change_message_visibility
_send_batch_as_moto = SQSBackend.send_message_batch
_PARAMETERS = ["self", "queue_name", "count", "wait_seconds_timeout", "visibility_timeout", "message_attribute_names"]
_NEEDED = {
    Message: ("visible", "delayed"),
    Queue: ("messages", "pending_messages", "pending_message_groups", "delete_message", "wait_for_messages"),
    SQSBackend: ("get_queue", "change_message_visibility", "send_message_batch"),
}


def patch_fifo_order() -> str | None:
    """Patch moto in this process; return the reason if this moto version does not match the patches."""
    missing = [
        f"{owner.__name__}.{name}" for owner, names in _NEEDED.items() for name in names if not hasattr(owner, name)
    ]
    if missing:
        return f"this version of moto lacks {', '.join(missing)}"
    if list(inspect.signature(receive_as_moto).parameters) != _PARAMETERS:
        return "this version of moto receives messages differently"
    SQSBackend.receive_message = _receive_message
    Queue.delete_message = _delete_message
    SQSBackend.change_message_visibility = _change_message_visibility
    SQSBackend.send_message_batch = _send_message_batch
    return None


def _receive_message(
    self: Any,
    queue_name: str,
    count: int,
    wait_seconds_timeout: int,
    visibility_timeout: int,
    message_attribute_names: list[str] | None = None,
) -> list[Any]:
    """Let moto choose among the deliverable messages, with the queue locked, until there are some."""
    queue = self.get_queue(queue_name)
    ends = time.monotonic() + wait_seconds_timeout
    while True:
        with queue._messages_lock:
            view = _BackendView(self, _Deliverable(queue)) if queue.fifo_queue else self
            received: list[Any] = receive_as_moto(
                view, queue_name, count, 0, visibility_timeout, message_attribute_names
            )
            left = ends - time.monotonic()
            if received or left <= 0:
                return received
            queue._messages_lock.wait(min(left, _POLL_SECONDS))


def _delete_message(self: Any, receipt_handle: str) -> None:
    with self._messages_lock:
        _delete_as_moto(self, receipt_handle)


def _change_message_visibility(self: Any, queue_name: str, receipt_handle: str, visibility_timeout: int) -> None:
    """Change it only for a message in flight: "The specified message isn't in flight" otherwise.

    A late change would hide a group's first message while the second one is delivered.
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html
    """
    queue = self.get_queue(queue_name)
    with queue._messages_lock:
        if not any(m.receipt_handle == receipt_handle and not m.visible for m in queue._messages):
            raise ReceiptHandleIsInvalid
        _change_as_moto(self, queue_name, receipt_handle, visibility_timeout)


def _send_message_batch(self: Any, queue_name: str, entries: dict[str, dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    """Send messages with their system attributes, before a consumer can receive them."""
    attributes = {entry["Id"]: entry.get("MessageSystemAttributes") for entry in entries.values()}
    with self.get_queue(queue_name)._messages_lock:
        sent, failed = _send_batch_as_moto(self, queue_name, entries)
        for message in sent:
            message.system_attributes = attributes[message.user_id] or {}
    return sent, failed


class _Deliverable:
    """A FIFO queue without the message groups that have a message in flight.

    "Inflight messages block delivery of available messages within the same message group."
    https://repost.aws/knowledge-center/sqs-fifo-messages-not-returned
    """

    def __init__(self, queue: Any) -> None:
        self._queue = queue
        blocked = {message.group_id for message in queue._messages if message.delayed or not message.visible}
        self.messages = [message for message in queue.messages if message.group_id not in blocked]
        self.pending_messages: set[Any] = set()
        self.pending_message_groups: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)


class _BackendView:
    """moto's SQS backend for one call, with one of its queues replaced."""

    def __init__(self, backend: Any, queue: _Deliverable) -> None:
        self._backend = backend
        self._queue = queue

    def get_queue(self, _: str) -> _Deliverable:
        return self._queue

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)
