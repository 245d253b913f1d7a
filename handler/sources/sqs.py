"""SQS batches: every record ends in exactly one of done, or reported as failed."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from handler.environment import Environment
from handler.errors import CallError, InvalidInput
from handler.payload import read_json
from handler.programs import FailedProgram, Program
from handler.sources.direct import choose, require
from handler.sources.invocation import begin
from handler.telemetry import Invocation


@dataclass(frozen=True)
class Record:
    """One record, read.

    Attributes:
        identifier: its messageId; empty where it has none (in ASCII): reported, that makes Lambda return the whole
            batch, so that nothing is lost.
        group: the FIFO message group whose order it stands in, or None.
        name: the program that its body names, if it does.
        program: the program that it is for, if this function has it.
        error: why its body cannot be read, or None.
    """

    identifier: str
    group: str | None
    name: str | None = None
    program: Program | FailedProgram | None = None
    inputs: Any = None
    error: InvalidInput | None = None

    @property
    def label(self) -> str:
        """The program's name in log and metrics."""
        return self.program.name if self.program else "unknown"


def recognise(event: dict[str, Any]) -> bool:
    """Whether an event is an SQS batch."""
    records = event.get("Records")
    return isinstance(records, list) and any(
        isinstance(record, dict) and record.get("eventSource") == "aws:sqs" for record in records
    )


def handle(environment: Environment, event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Run all records, within the program's width, and report those that failed. Never raises for a record."""
    records = [_read(environment, record) for record in event["Records"]]
    with begin(environment, context, "sqs") as invocation:
        return environment.use_loop().run_until_complete(_batch(environment, records, invocation))


async def _batch(environment: Environment, records: list[Record], invocation: Invocation) -> dict[str, Any]:
    done = await asyncio.gather(*(_line(environment, line, invocation) for line in _lines(records)))
    failed = [record for line in done for record in line]
    for record in failed:
        invocation.records_failed[record.label] += 1
    return {"batchItemFailures": [{"itemIdentifier": record.identifier} for record in failed]}


def _lines(records: list[Record]) -> list[list[Record]]:
    """Records that must run one after the other: a FIFO queue's message groups. Others are lines of one."""
    groups: dict[Any, list[Record]] = defaultdict(list)
    for position, record in enumerate(records):
        groups[position if record.group is None else record.group].append(record)
    return list(groups.values())


async def _line(environment: Environment, records: list[Record], invocation: Invocation) -> list[Record]:
    """The failed records. After a failure the rest of a message group is not started.

    https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html: "your function should stop
    processing messages after the first failure and return all failed and unprocessed messages".
    """
    for position, record in enumerate(records):
        if not await _succeeds(environment, record, invocation):
            return records[position:]
    return []


async def _succeeds(environment: Environment, record: Record, invocation: Invocation) -> bool:
    """Run one record's call; False if it failed."""
    model = record.program.model if record.program else None
    try:
        with invocation.call(record.label, model, record.identifier) as call:
            if record.error is not None:
                raise record.error
            program = require(environment, record.name, record.program)
            await environment.dispatcher.run(program, record.inputs, call)
    except CallError:
        return False
    return True


def _read(environment: Environment, record: Any) -> Record:
    """A record of the event, whatever it holds.

    A body with exactly the keys `program` and `inputs` names its program; any other object is the bare inputs.
    """
    identifier, group = _identifier(record), _group(record)
    try:
        value = _body(record)
    except InvalidInput as error:
        return Record(identifier, group, program=environment.only_program(), error=error)
    if set(value) == {"program", "inputs"} and isinstance(value["program"], str) and isinstance(value["inputs"], dict):
        name = value["program"]
        return Record(identifier, group, name, choose(environment, name), value["inputs"])
    return Record(identifier, group, None, environment.only_program(), value)


def _body(record: Any) -> dict[str, Any]:
    body = record.get("body") if isinstance(record, dict) else None
    if not isinstance(body, str):
        raise InvalidInput("The record has no body.")
    value = read_json(body)
    if not isinstance(value, dict):
        raise InvalidInput("The record's body is not a JSON object.")
    return value


def _identifier(record: Any) -> str:
    identifier = record.get("messageId") if isinstance(record, dict) else None
    return identifier if isinstance(identifier, str) and identifier.isascii() else ""


def _group(record: Any) -> str | None:
    # Standard queues carry MessageGroupId too, for fair queues; order is only promised by FIFO ones.
    if not isinstance(record, dict) or not str(record.get("eventSourceARN", "")).endswith(".fifo"):
        return None
    attributes = record.get("attributes")
    group = attributes.get("MessageGroupId") if isinstance(attributes, dict) else None
    return None if group is None else str(group)
