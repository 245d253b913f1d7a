"""SQS batches: every record ends in exactly one of done, or reported as failed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from handler.environment import Environment
from handler.errors import CallError, InvalidInput
from handler.payload import read_json
from handler.sources.direct import choose, require
from handler.sources.invocation import begin
from handler.telemetry import Invocation


def recognise(event: dict[str, Any]) -> bool:
    """Whether an event is an SQS batch."""
    records = event.get("Records")
    return isinstance(records, list) and any(
        isinstance(record, dict) and record.get("eventSource") == "aws:sqs" for record in records
    )


def handle(environment: Environment, event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Run all records, within the program's width, and report those that failed. Never raises for a record."""
    with begin(environment, context, "sqs") as invocation:
        return environment.use_loop().run_until_complete(_batch(environment, event["Records"], invocation))


async def _batch(environment: Environment, records: list[Any], invocation: Invocation) -> dict[str, Any]:
    done = await asyncio.gather(*(_line(environment, line, invocation) for line in _lines(records)))
    failed = [identifier for line in done for identifier in line]
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in failed]}


def _lines(records: list[Any]) -> list[list[Any]]:
    """Records that must run one after the other: a FIFO queue's message groups. Others are lines of one."""
    groups: dict[Any, list[Any]] = defaultdict(list)
    for position, record in enumerate(records):
        attributes = record.get("attributes") if isinstance(record, dict) else None
        group = attributes.get("MessageGroupId") if isinstance(attributes, dict) and _is_fifo(record) else None
        groups[position if group is None else str(group)].append(record)
    return list(groups.values())


def _is_fifo(record: dict[str, Any]) -> bool:
    # Standard queues carry MessageGroupId too, for fair queues; order is only promised by FIFO ones.
    return str(record.get("eventSourceARN", "")).endswith(".fifo")


async def _line(environment: Environment, records: list[Any], invocation: Invocation) -> list[str]:
    """The identifiers of the failed records. After a failure the rest of a message group is not started.

    https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html: "your function should stop
    processing messages after the first failure and return all failed and unprocessed messages".
    """
    for position, record in enumerate(records):
        if not await _succeeds(environment, record, invocation):
            return [_identifier(rest) for rest in records[position:]]
    return []


async def _succeeds(environment: Environment, record: Any, invocation: Invocation) -> bool:
    """Run one record's call; False if it failed."""
    name, program, inputs, unreadable = None, environment.only_program(), None, None
    try:
        name, inputs = _read(record)
        program = choose(environment, name)
    except InvalidInput as error:
        unreadable = error
    label = program.name if program else "unknown"
    try:
        with invocation.call(label, program.model if program else None, _identifier(record)) as call:
            if unreadable is not None:
                raise unreadable
            loaded = require(environment, name, program)
            await environment.dispatcher.run(loaded, inputs, call)
    except CallError:
        invocation.records_failed[label] = invocation.records_failed.get(label, 0) + 1
        return False
    return True


def _identifier(record: Any) -> str:
    """A record's messageId. Empty where it has none that is ASCII: Lambda then returns the whole batch; nothing is lost."""
    identifier = record.get("messageId") if isinstance(record, dict) else None
    return identifier if isinstance(identifier, str) and identifier.isascii() else ""


def _read(record: Any) -> tuple[str | None, Any]:
    """The program's name, if the body names one, and its inputs.

    A body with exactly the keys `program` and `inputs` names its program; any other object is the bare inputs.
    """
    body = record.get("body") if isinstance(record, dict) else None
    if not isinstance(body, str):
        raise InvalidInput("The record has no body.")
    value = read_json(body)
    if not isinstance(value, dict):
        raise InvalidInput("The record's body is not a JSON object.")
    if set(value) == {"program", "inputs"} and isinstance(value["program"], str) and isinstance(value["inputs"], dict):
        return value["program"], value["inputs"]
    return None, value
