"""Run a batch: message groups in order, and suspect records last."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

from dspy.utils.exceptions import is_retryable_lm_error

from dspy_lambda.call import Call
from dspy_lambda.config import Sqs
from dspy_lambda.environment import Environment
from dspy_lambda.errors import CallError, DeadlineExceeded, ProgramFailed
from dspy_lambda.invocation import Invocation
from dspy_lambda.programs.program import Program
from dspy_lambda.runner import Runner
from dspy_lambda.sources.sqs.attributes import age_ms, body_of
from dspy_lambda.sources.sqs.failure import Failure
from dspy_lambda.sources.sqs.record import Record
from dspy_lambda.sources.sqs.requeue import is_addressable
from dspy_lambda.sources.sqs.suspects import Suspects


class Batch:
    """Runs the records of one invocation.

    Args:
        delete: deletes done records (given as raw records) before a record that may end the process is started;
            returns None if there is not enough time.
    """

    def __init__(
        self,
        environment: Environment,
        runner: Runner,
        invocation: Invocation,
        suspects: Suspects,
        delete: Callable[[list[Any]], Awaitable[bool | None]],
    ) -> None:
        self._environment = environment
        self._runner = runner
        self._invocation = invocation
        self._suspects = suspects
        self._delete = delete
        self._done: list[Record] = []  # not deleted yet

    async def run(self, records: list[Record]) -> list[Failure]:
        """Run all records, and return those that failed, in the order of the batch."""
        mark = self._suspects.begin(records)
        for record in records:
            call = self._call(record)
            if mark is not None:
                call.mark = (mark, record.position)
        first, behind = self._suspects.split(message_groups(records))
        failed = await self._run_groups(first)
        failed += await self._run_suspects(behind)
        if self._invocation.over:  # the main thread answered it; the journal may already belong to another batch
            return []
        self._suspects.end()
        came_back = sum(record.receive_count > 1 for record in records)
        self._suspects.survived(came_back, len(records))
        return sorted(failed, key=lambda failure: failure.record.position)

    def _batch_size(self, label: str) -> int:
        return (self._environment.config.lambda_.function(label).sqs or Sqs()).batch_size

    async def _run_suspects(self, groups: list[list[Record]]) -> list[Failure]:
        waiting = deque(groups)
        failed: list[Failure] = []
        while waiting:
            if not await self._delete_done():
                return failed + self._not_started(waiting)
            deadline = self._invocation.deadline
            left = None if deadline is None else deadline - time.monotonic()
            label = waiting[0][0].label
            usual = self._runner.dispatcher.usual_seconds(label)
            count = self._suspects.number_to_start(list(waiting), self._batch_size(label), usual, left)
            failed += await self._run_groups([waiting.popleft() for _ in range(count)], waited=True)
        return failed

    async def _delete_done(self) -> bool:
        """Delete the done records, and return whether they stay done if the process ends now."""
        done, self._done = self._done, []
        self._suspects.forget(record.identifier for record in done)
        # If the function is not allowed to delete, records that came back must still be run.
        return not done or await self._delete([r.raw for r in done if is_addressable(r.raw)]) is not None

    def _not_started(self, groups: Iterable[list[Record]]) -> list[Failure]:
        failed = []
        for group in groups:
            call = self._call(group[0])
            call.fail(DeadlineExceeded("Too little time was left to start."))
            failed += _stopped_at(group, 0, call)
        return failed

    async def _run_groups(self, groups: list[list[Record]], *, waited: bool = False) -> list[Failure]:
        """Run groups in as many tasks as there are slots; each task takes the next group when it is free."""
        by_program: dict[str, list[list[Record]]] = defaultdict(list)
        for group in groups:
            by_program[group[0].label].append(group)
        slots = self._environment.config.server.max_concurrent_per_program
        workers = []
        for of_program in by_program.values():
            waiting = iter(of_program)
            workers += [self._worker(waiting, waited) for _ in range(min(slots, len(of_program)))]
        return [failure for found in await asyncio.gather(*workers) for failure in found]

    async def _worker(self, groups: Iterator[list[Record]], waited: bool) -> list[Failure]:
        failed = []
        for position, group in enumerate(groups):
            failed += await self._run_group(group, waited=waited or position > 0)
        return failed

    async def _run_group(self, records: list[Record], *, waited: bool) -> list[Failure]:
        """Run a group, and return the failed records with their reasons. After a failure the rest is not started.

        https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html: "your function should stop
        processing messages after the first failure and return all failed and unprocessed messages".
        """
        for index, record in enumerate(records):
            if self._suspects.is_done(record.identifier):
                self._done.append(record)
                continue
            call = await self._run_record(record, waited=waited or index > 0)
            if not call.succeeded:
                return _stopped_at(records, index, call, is_fatal=self._suspects.is_fatal(record))
            self._done.append(record)
        return []

    async def _run_record(self, record: Record, *, waited: bool) -> Call:
        """Run one record's call."""
        call = self._call(record)
        call.begin(waited=waited)
        call.record_age_ms = age_ms(record.raw, time.time())
        try:
            program = self._program_of(record)
        except CallError as error:
            call.inputs = record.inputs if record.error is None else body_of(record.raw)
            call.fail(error)
        else:
            await self._runner.dispatcher.run(program, record.inputs, call)
        return call

    def _program_of(self, record: Record) -> Program:
        """Return the program to run.

        Raises:
            CallError: The record must not be run.
        """
        if record.error is not None:
            raise record.error
        if self._suspects.is_fatal(record):
            raise ProgramFailed("The execution environment died while this record ran alone.")
        return self._environment.served.require(record.name, record.program)

    def _call(self, record: Record) -> Call:
        model = record.program.model if record.program else None
        return self._invocation.call(record.label, model, record.identifier, position=record.position)


def _stopped_at(group: list[Record], index: int, call: Call, *, is_fatal: bool = False) -> list[Failure]:
    """Return failures for a failed record and for those after it in its message group, which are not calls."""
    error = call.error
    assert error is not None
    # A program may replace the provider's error with its own exception.
    was_provider = call.lm_error is not None and is_retryable_lm_error(call.lm_error)
    first = Failure(group[index], error, is_own=error.temporary is False and not was_provider, is_fatal=is_fatal)
    return [first, *(Failure(record, error) for record in group[index + 1 :])]


def message_groups(records: list[Record]) -> list[list[Record]]:
    """Group records that must run in order: the message groups of a FIFO queue. Other records are single groups."""
    groups: dict[int | str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.position if record.group is None else record.group].append(record)
    return list(groups.values())
