"""Which records may end their environment or stop its loop, and how many of them to run side by side.

A record that kills its process (`os._exit`, native code, memory) takes the batch's other records along: all come
back, and would meet it again. Nothing in a message says that this is why it came back: a receive count of 2 is also
every ordinary retry, and running those one by one would serialize the queue after each outage. So:

- A record that ran when a process died, or while the loop stood still, is a suspect by name in its sandbox: it runs
  last and alone. One that was alone when that happened again runs after all others.
- A record that came back for a reason unknown here starts after those that did not. Such records run one at a time
  until a whole batch's worth of them has survived within a minute of each other: this is the wake of an outage. What
  comes back after a death is less than a batch without the one that killed, and comes much later.
- What is done is deleted from the queue before the next of them starts.
- One that was alone when that happened three times is not run again here once it has been received `MAX_RUNS` times:
  the queue's own `max_receive_count`, which is higher because it counts outages, too, is what ends it elsewhere. Not
  after one time: an innocent record may be the one that runs when the process ends for another reason.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable

from dspy_lambda.process import JOURNAL_FOLDER
from dspy_lambda.settings import Settings
from dspy_lambda.sources.sqs.failure import MAX_RUNS
from dspy_lambda.sources.sqs.journal import Journal, Note
from dspy_lambda.sources.sqs.record import Record

_MOST = 1000
_FATAL = 3
# One at a time is for as long as it fits into this part of the time that is left.
_PART_OF_TIME = 0.5
_WAKE_SECONDS = 60.0


class Suspects:
    """What one execution environment knows of records that it met before.

    Args:
        journal: what outlives this process; None where nothing can.

    Attributes:
        died_with: the identifiers of what ran when the process before this one died.
    """

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self._known = journal.load() if journal else {}  # by identifier: how often it was alone
        self._survivors = 0
        self._last_survival = 0.0
        self._is_kept = True
        self.died_with = journal.died_with if journal else []
        self._done = {note["messageId"] for note in self.done}
        if self.died_with:
            self.suspect(self.died_with, alone=len(self.died_with) == 1)
            self._keep()  # the journal's own note is gone, and this process may die before its first batch ends

    def suspect(self, identifiers: Iterable[str], *, alone: bool) -> None:
        """These ran when the process died or the loop stood still; `alone`: nothing else can have done it."""
        names = [name for name in identifiers if name]
        for name in names:
            # Moved to the end: the oldest are forgotten first.
            self._known[name] = self._known.pop(name, 0) + alone
        while len(self._known) > _MOST:
            del self._known[next(iter(self._known))]
        self._is_kept = self._is_kept and not names

    def begin(self, records: list[Record]) -> Callable[[int, str], None] | None:
        """Note a batch in the journal; what to call with a record's position and its state."""
        if self._journal is None:
            return None
        return self._journal.begin([record.raw for record in records])

    def end(self) -> None:
        """The batch is over."""
        if self._journal is not None:
            self._journal.end()
            self._keep()  # not with the next batch: the process may be replaced before that

    def _keep(self) -> None:
        if self._journal is not None and not self._is_kept:
            self._journal.keep(self._known)
            self._is_kept = True

    def split(self, groups: list[list[Record]]) -> tuple[list[list[Record]], list[list[Record]]]:
        """The groups to start at once, and those to start after them, the most suspect last."""
        ranked = [(max(self._rank(record) for record in group), group) for group in groups]
        behind = [(rank, group) for rank, group in ranked if rank]
        if len(groups) < 2 or not behind:
            return groups, []
        random.shuffle(behind)  # or the same record would be behind the same one each time
        behind.sort(key=lambda item: item[0])
        return [group for rank, group in ranked if not rank], [group for _, group in behind]

    def _rank(self, record: Record) -> int:
        """0 for a record that is new, 1 if it came back, 2 for a suspect, 3 for one that was alone."""
        known = self._known.get(record.identifier)
        if known is not None:
            return 3 if known else 2
        return 1 if record.receive_count > 1 else 0

    def is_fatal(self, record: Record) -> bool:
        """Whether a record has had its runs and is known to end whatever runs it."""
        return self._known.get(record.identifier, 0) >= _FATAL and record.receive_count > MAX_RUNS

    def side_by_side(
        self, waiting: list[list[Record]], batch_size: int, usual: float | None, left: float | None
    ) -> int:
        """How many of the waiting groups to start now: one, unless it came back for a reason unknown.

        Args:
            batch_size: the most records that one death sends back.
            usual: seconds that a call of the program takes, where known.
            left: seconds until the deadline.
        """
        unknown = sum(1 for group in waiting if max(self._rank(record) for record in group) == 1)
        wanted = unknown if self._survivors >= batch_size else 1
        if unknown and usual is not None and left is not None:
            # Records that are not started in time come back as well, and burn their receives for nothing.
            wanted = max(wanted, math.ceil(len(waiting) * usual / max(left * _PART_OF_TIME, 0.001)))
        return max(1, min(wanted, unknown))

    def survived(self, came_back: int, records: int) -> None:
        """A batch is over, and the process is not."""
        now = time.monotonic()
        is_wake = came_back * 2 > records
        if not is_wake or now - self._last_survival > _WAKE_SECONDS:
            self._survivors = 0
        self._survivors += came_back if is_wake else 0
        self._last_survival = now

    @property
    def done(self) -> list[Note]:
        """What was done when its batch died, and is still to be deleted."""
        return self._journal.done if self._journal else []

    def is_done(self, identifier: str) -> bool:
        """Whether a record was done when its batch died."""
        return identifier in self._done

    def note_deleted(self) -> None:
        """What was done when its batch died needs no noting any more."""
        if self._journal is not None:
            self._journal.done = []

    def forget(self, identifiers: Iterable[str]) -> None:
        """These are done."""
        for name in identifiers:
            self._known.pop(name, None)


def open_suspects(settings: Settings) -> Suspects:
    """The suspects of a sandbox; kept in its /tmp where this is a Lambda function."""
    if not settings.function_name:
        return Suspects(None)
    try:
        from pathlib import Path

        return Suspects(Journal(Path(settings.temporary_folder) / JOURNAL_FOLDER))
    except OSError:
        return Suspects(None)
