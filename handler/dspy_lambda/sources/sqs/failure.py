"""One record that failed, and what its failure says of running it again."""

from __future__ import annotations

from dataclasses import dataclass

from dspy_lambda.config import Sqs
from dspy_lambda.errors import CallError
from dspy_lambda.sources.sqs.record import Record

# A queue's maxReceiveCount counts outages, too, and so must be higher. "We recommend setting the maxReceiveCount on
# your queue's redrive policy to at least 5": https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
MAX_RUNS = 5


@dataclass(frozen=True)
class Failure:
    """A failed record.

    Attributes:
        record: the record.
        error: why it failed; that of the record before it, if that one stopped its message group.
        is_own: whether it would fail without an outage, too: for its inputs, its program, or the model's answers.
    """

    record: Record
    error: CallError
    is_own: bool = False

    def is_final(self, settings: Sqs) -> bool:
        """Whether the record is not to be run again."""
        if not self.is_own:
            return False
        is_invalid = self.error.outcome == "invalid_input"
        return self.record.receive_count >= MAX_RUNS or (is_invalid and settings.invalid_to_dead_letter_queue)
