"""SQS batches: every record ends in exactly one of: done, or reported as failed."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from typing import Any

from dspy_lambda.call import UNKNOWN
from dspy_lambda.config import Sqs
from dspy_lambda.environment import Environment
from dspy_lambda.errors import DeadlineExceeded
from dspy_lambda.invocation import Invocation, open_invocation
from dspy_lambda.runner import Runner
from dspy_lambda.sources.sqs.attributes import group_of, identifier_of
from dspy_lambda.sources.sqs.batch import Batch
from dspy_lambda.sources.sqs.failure import Failure
from dspy_lambda.sources.sqs.record import Record, read_record
from dspy_lambda.sources.sqs.requeue import Requeue, is_addressable
from dspy_lambda.sources.sqs.suspects import open_suspects
from dspy_lambda.threads import Threads

_LAST_SECONDS = 0.05  # for the answer itself
_THREADS = 2
_MOST_SECONDS = 1.5  # for what a batch that died left to do: boto3's import, and a request


class Queues:
    """What an environment keeps for its queues.

    Attributes:
        threads: what talks to SQS runs there: programs may have used up all others.
    """

    def __init__(self, environment: Environment) -> None:
        self.threads = Threads(_THREADS, "requeue")
        self.requeue = Requeue(
            environment.settings, lambda message, fields: environment.telemetry.log("WARNING", message, fields)
        )
        self.suspects = open_suspects(environment.settings)
        died_with, done = self.suspects.died_with, self.suspects.done
        if died_with or done:
            fields = {"message_ids": died_with[:100], "records": len(died_with), "done": len(done)}
            environment.telemetry.log("WARNING", "the process before this one died with records in flight", fields)

    def renew_threads(self) -> None:
        """Leave requests that are under way to themselves."""
        self.threads.abandon()
        self.threads = Threads(_THREADS, "requeue")


def prepare(environment: Environment) -> None:
    """See whether the process before this one died."""
    environment.part(Queues)


def begin(environment: Environment, event: dict[str, Any], context: Any) -> Invocation:
    """Its invocation."""
    # Here, before the batch's programs run: `handle` and `late` may ask for it at once, and of two journals the one
    # that is closed takes the other's lock along.
    environment.part(Queues)
    return open_invocation(environment, context, "sqs", records=len(event["Records"]))


def handle(
    environment: Environment, runner: Runner, event: dict[str, Any], context: Any, invocation: Invocation
) -> dict[str, Any]:
    """Run all records, and report those that failed. Never raises for a record."""
    records = [read_record(environment, position, raw) for position, raw in enumerate(event["Records"])]
    try:
        return runner.use_loop().run_until_complete(_run(environment, runner, records, invocation))
    except BaseException as error:  # a program that settles futures which are not its own
        invocation.unforeseen(error)
        return late(environment, event, invocation)


def late(environment: Environment, event: dict[str, Any], invocation: Invocation) -> dict[str, Any]:
    """The answer at the deadline, while the records' own thread stands still: done is what was done by then."""
    queues = environment.part(Queues)
    queues.renew_threads()
    suspects = queues.suspects
    running = [call for call in list(invocation.calls.values()) if call.running and not call.settled]
    only = environment.served.only()
    label, model = (only.name, only.model) if only else (UNKNOWN, None)
    reported: list[str] = []
    stopped: set[str | None] = set()
    for position, raw in enumerate(event["Records"]):
        identifier, group = identifier_of(raw), group_of(raw)
        if suspects.is_done(identifier):
            continue
        call = invocation.call(label, model, identifier, position=position)
        # What is behind a failed record of its message group was not to be started: as in `Batch`, it is no call.
        if group not in stopped:
            call.fail(DeadlineExceeded("The deadline came before the answer."))
        if call.succeeded:
            continue
        if group is not None:
            stopped.add(group)
        if not call.moved:
            reported.append(identifier)
            invocation.records_failed[call.program] += 1
    suspects.suspect([call.message_id or "" for call in running], alone=False)
    if invocation.blocker is not None:
        suspects.suspect([invocation.blocker.message_id or ""], alone=True)
    suspects.end()
    return _answer(reported)


def _answer(identifiers: list[str]) -> dict[str, Any]:
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in identifiers]}


async def _run(
    environment: Environment, runner: Runner, records: list[Record], invocation: Invocation
) -> dict[str, Any]:
    queues = environment.part(Queues)

    async def delete(raws: list[Any], until: float = math.inf) -> bool | None:
        if not raws or not queues.requeue.has_credentials:
            return True
        until = min(until, invocation.answer_by - _LAST_SECONDS)
        deleted: bool | None = await _in_time(queues, until, queues.requeue.delete, raws, until)
        return deleted

    async def delete_of_the_dead() -> None:
        if await delete(queues.suspects.done, time.monotonic() + _MOST_SECONDS):
            queues.suspects.note_deleted()

    batch = Batch(environment, runner, invocation, queues.suspects, delete)
    # Side by side: where SQS cannot be reached, a batch waits for it no longer than that.
    failed, _ = await asyncio.gather(batch.run(records), delete_of_the_dead())
    for failure in failed:
        invocation.records_failed[failure.record.label] += 1
    await _settle(environment, failed, invocation)
    records_left = [failure.record for failure in failed if not invocation.calls[failure.record.position].moved]
    return _answer([record.identifier for record in records_left])


async def _settle(environment: Environment, failed: list[Failure], invocation: Invocation) -> None:
    """Move records to the dead-letter queue, or see to it that they come back in time, as far as time is left."""
    queues = environment.part(Queues)
    requeue = queues.requeue
    if not requeue.has_credentials:
        return

    def note_moved(failure: Failure) -> None:
        call, record = invocation.calls[failure.record.position], failure.record
        call.moved = True
        if environment.telemetry.exceptions.in_log:  # for developers; the queue's alarm tells operators
            about = {"program": record.label, **call.ids(), "receives": record.receive_count}
            environment.telemetry.log("WARNING", "moved to the dead-letter queue", about)

    by_program: dict[str, list[Failure]] = defaultdict(list)
    for failure in failed:
        if failure.record.identifier and is_addressable(failure.record.raw):
            by_program[failure.record.label].append(failure)
    until = invocation.answer_by - _LAST_SECONDS
    for label, failures in by_program.items():
        settings = environment.config.lambda_.function(label).sqs or Sqs()
        await _in_time(queues, until, requeue.settle, failures, settings, until, note_moved)


async def _in_time(queues: Queues, until: float, function: Any, *arguments: Any) -> Any:
    """What a function that talks to SQS returns; None if there is no time for it."""
    if time.monotonic() >= until:
        return None
    work = asyncio.get_running_loop().run_in_executor(queues.threads, function, *arguments)
    try:
        async with asyncio.timeout_at(until):
            return await work
    except TimeoutError:
        return None
