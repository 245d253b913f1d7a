"""SQS batches: every record ends in exactly one of done, or reported as failed."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dspy_lambda.config import Sqs
from dspy_lambda.environment import Environment
from dspy_lambda.errors import CallError, InvalidInput, ProgramFailed
from dspy_lambda.payload import read_json
from dspy_lambda.programs import FailedProgram, Program
from dspy_lambda.requeue import Failure, is_addressable
from dspy_lambda.sources.direct import choose, require
from dspy_lambda.sources.invocation import begin
from dspy_lambda.telemetry import Invocation
from dspy_lambda.telemetry.calls import UNKNOWN

_LAST_SECONDS = 0.2  # for the answer itself


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
        source: the record as it came.
    """

    identifier: str
    group: str | None
    name: str | None = None
    program: Program | FailedProgram | None = None
    inputs: Any = None
    error: InvalidInput | None = None
    source: Any = None

    @property
    def label(self) -> str:
        """The program's name in log and metrics."""
        return self.program.name if self.program else UNKNOWN


def recognise(event: dict[str, Any]) -> bool:
    """Whether an event is an SQS batch."""
    records = event.get("Records")
    return isinstance(records, list) and any(
        isinstance(record, dict) and record.get("eventSource") == "aws:sqs" for record in records
    )


def handle(environment: Environment, event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Run all records, within the program's width, and report those that failed. Never raises for a record."""
    records = [_read(environment, record) for record in event["Records"]]
    with begin(environment, context, "sqs", records=len(records)) as invocation:
        try:
            return environment.use_loop().run_until_complete(_batch(environment, records, invocation))
        except ProgramFailed:
            return {"batchItemFailures": [{"itemIdentifier": record.identifier} for record in records]}


async def _batch(environment: Environment, records: list[Record], invocation: Invocation) -> dict[str, Any]:
    width = environment.config.server.max_concurrent_per_program
    workers = []
    for lines in _lines(records).values():
        waiting = iter(lines)  # shared by a program's workers: each takes the next line when it is done with one
        workers += [_work(environment, waiting, invocation) for _ in range(min(width, len(lines)))]
    failed = [failure for found in await asyncio.gather(*workers) for failure in found]
    order = {id(record): position for position, record in enumerate(records)}
    failed.sort(key=lambda failure: order[id(failure[0])])
    for record, _ in failed:
        invocation.records_failed[record.label] += 1
    moved = await _requeue(environment, failed, invocation)
    reported = [record.identifier for record, _ in failed if id(record) not in moved]
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in reported]}


async def _requeue(
    environment: Environment, failed: list[tuple[Record, CallError]], invocation: Invocation
) -> set[int]:
    """See to it that failed records come back in time, as far as time is left; the `id()`s of those that need not be
    reported: two records may have one identifier."""
    seconds = invocation.ends - time.monotonic() - _LAST_SECONDS
    by_program: dict[str, list[tuple[Record, CallError]]] = defaultdict(list)
    for record, error in failed:
        if record.identifier and is_addressable(record.source):
            by_program[record.label].append((record, error))
    moved: set[int] = set()
    if seconds <= 0 or not environment.requeue.possible:
        return moved
    for label, failures in by_program.items():
        settings = environment.config.lambda_.function(label).sqs or Sqs()
        found = [Failure(record.source, error) for record, error in failures]
        try:
            async with asyncio.timeout_at(invocation.ends - _LAST_SECONDS):
                positions = await asyncio.to_thread(environment.requeue.settle, found, settings)
        except TimeoutError:
            break
        moved |= {id(failures[position][0]) for position in positions}
    return moved


def _lines(records: list[Record]) -> dict[str, list[list[Record]]]:
    """By program, the records that must run one after the other: a FIFO queue's message groups. Others stand alone."""
    groups: dict[Any, list[Record]] = defaultdict(list)
    for position, record in enumerate(records):
        groups[position if record.group is None else record.group].append(record)
    lines: dict[str, list[list[Record]]] = defaultdict(list)
    for line in groups.values():
        lines[line[0].label].append(line)
    return lines


async def _work(
    environment: Environment, lines: Iterator[list[Record]], invocation: Invocation
) -> list[tuple[Record, CallError]]:
    """Take one line after the other; the failed records. As many tasks as can run, not as there are records."""
    failed = []
    for position, line in enumerate(lines):
        failed += await _line(environment, line, invocation, late=position > 0)
    return failed


async def _line(
    environment: Environment, records: list[Record], invocation: Invocation, *, late: bool
) -> list[tuple[Record, CallError]]:
    """The failed records, each with its reason. After a failure the rest of a message group is not started.

    https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html: "your function should stop
    processing messages after the first failure and return all failed and unprocessed messages".
    """
    for position, record in enumerate(records):
        error = await _failure(environment, record, invocation, late=late or position > 0)
        if error is not None:
            behind = ProgramFailed("A record before this one in its message group failed.")
            return [(record, error), *((rest, behind) for rest in records[position + 1 :])]
    return []


async def _failure(environment: Environment, record: Record, invocation: Invocation, *, late: bool) -> CallError | None:
    """Run one record's call; why it failed, or None."""
    model = record.program.model if record.program else None
    try:
        with invocation.call(record.label, model, record.identifier, late=late) as call:
            if record.error is not None:
                raise record.error
            program = require(environment, record.name, record.program)
            await environment.dispatcher.run(program, record.inputs, call)
    except CallError as error:
        return error
    return None


def _read(environment: Environment, record: Any) -> Record:
    """A record of the event, whatever it holds.

    A body with exactly the keys `program` and `inputs` names its program; any other object is the bare inputs.
    """
    identifier, group = _identifier(record), _group(record)
    try:
        value = _body(record)
    except InvalidInput as error:
        return Record(identifier, group, program=environment.only_program(), error=error, source=record)
    if set(value) == {"program", "inputs"} and isinstance(value["program"], str) and isinstance(value["inputs"], dict):
        name = value["program"]
        return Record(identifier, group, name, choose(environment, name), value["inputs"], source=record)
    return Record(identifier, group, None, environment.only_program(), value, source=record)


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
