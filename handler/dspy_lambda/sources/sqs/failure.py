"""A failed record, and whether to run it again."""

from __future__ import annotations

from dataclasses import dataclass

from dspy_lambda.config import Sqs
from dspy_lambda.errors import CallError
from dspy_lambda.sources.sqs.record import Record

# A queue's maxReceiveCount also counts outages, so it must be higher. "We recommend setting the maxReceiveCount on
# your queue's redrive policy to at least 5": https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
MAX_RUNS = 5


@dataclass(frozen=True)
class Failure:
    """A failed record.

    Attributes:
        record: the record.
        error: why it failed; the error of an earlier record if that one stopped the message group.
        is_own: whether it would fail even without an outage, because of its inputs, its program or the model's answers.
        is_fatal: whether it was not run because it has repeatedly ended its execution environment.
    """

    record: Record
    error: CallError
    is_own: bool = False
    is_fatal: bool = False

    def is_final(self, settings: Sqs) -> bool:
        """Whether the record must not be run again.

        That is so at every fifth receive, not only at the fifth: if the fifth failed because of an outage, the record
        gets more runs.
        """
        if self.is_own and self.error.outcome == "invalid_input" and settings.invalid_to_dead_letter_queue:
            return True
        return self.is_fatal or (self.is_own and self.record.receive_count % MAX_RUNS == 0)
