"""Handle SQS batches: each record is either done or reported as failed."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from typing import Any

from dspy_lambda.call import UNKNOWN
from dspy_lambda.config import Sqs
from dspy_lambda.environment import Environment
from dspy_lambda.errors import cut_off
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
_MAX_SECONDS = 1.5  # to delete the done records of a batch that died: the import of boto3, and a request


class Queues:
    """What an environment keeps for its queues.

    Attributes:
        threads: threads for requests to SQS, because programs may occupy all others.
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
            environment.telemetry.log("WARNING", "the previous process died with records in flight", fields)

    def renew_threads(self) -> None:
        """Abandon requests in progress."""
        self.threads.abandon()
        self.threads = Threads(_THREADS, "requeue")


def prepare(environment: Environment) -> None:
    """Check whether the previous process died."""
    environment.part(Queues)


def begin(environment: Environment, event: dict[str, Any], context: Any) -> Invocation:
    """Create the event's invocation."""
    # Created before the batch's programs run: `handle` and `late` may ask for it at the same time, and closing one of
    # two journals would release the other's lock.
    environment.part(Queues)
    return open_invocation(environment, context, "sqs", records=len(event["Records"]))


def handle(
    environment: Environment, runner: Runner, event: dict[str, Any], context: Any, invocation: Invocation
) -> dict[str, Any]:
    """Run all records and report those that failed. Never raises because of a record."""
    records = [read_record(environment, position, raw) for position, raw in enumerate(event["Records"])]
    try:
        return runner.use_loop().run_until_complete(_run(environment, runner, records, invocation))
    except BaseException as error:  # for example, a program settled futures of this package
        invocation.unexpected(error)
        return late(environment, event, invocation)


def late(environment: Environment, event: dict[str, Any], invocation: Invocation) -> dict[str, Any]:
    """Answer at the deadline, while the records' own thread is blocked: records done by then count as done."""
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
        # Records after a failed one of their message group must not start, so, as in `Batch`, they are not calls.
        if group not in stopped:
            call.fail(cut_off())
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

    async def delete_done_of_dead_batch() -> None:
        if await delete(queues.suspects.done, time.monotonic() + _MAX_SECONDS):
            queues.suspects.note_deleted()

    batch = Batch(environment, runner, invocation, queues.suspects, delete)
    # Concurrently, so that an unreachable SQS does not delay the batch.
    failed, _ = await asyncio.gather(batch.run(records), delete_done_of_dead_batch())
    for failure in failed:
        invocation.records_failed[failure.record.label] += 1
    await _settle(environment, failed, invocation)
    records_left = [failure.record for failure in failed if not invocation.calls[failure.record.position].moved]
    return _answer([record.identifier for record in records_left])


async def _settle(environment: Environment, failed: list[Failure], invocation: Invocation) -> None:
    """Move failed records to the dead-letter queue or set their backoff, as far as time permits."""
    queues = environment.part(Queues)
    requeue = queues.requeue
    if not requeue.has_credentials:
        return

    def note_moved(failure: Failure) -> None:
        call, record = invocation.calls[failure.record.position], failure.record
        call.moved = True
        if environment.telemetry.exceptions.in_log:  # for developers; operators have the queue's alarm
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
    """Call a function that sends requests to SQS, and return its result; None if there is not enough time."""
    if time.monotonic() >= until:
        return None
    work = asyncio.get_running_loop().run_in_executor(queues.threads, function, *arguments)
    try:
        async with asyncio.timeout_at(until):
            return await work
    except TimeoutError:
        return None
