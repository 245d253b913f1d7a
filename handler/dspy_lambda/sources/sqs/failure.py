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
        is_fatal: whether it was not run, because it has ended its environment.
    """

    record: Record
    error: CallError
    is_own: bool = False
    is_fatal: bool = False

    def is_final(self, settings: Sqs) -> bool:
        """Whether the record is not to be run again.

        At the fifth receive and each fifth one after it: at a higher count the fifth failed for another reason, and
        what comes back from an outage has some runs left.
        """
        if self.is_own and self.error.outcome == "invalid_input" and settings.invalid_to_dead_letter_queue:
            return True
        return self.is_fatal or (self.is_own and self.record.receive_count % MAX_RUNS == 0)
