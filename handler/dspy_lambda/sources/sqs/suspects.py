"""Decide which records may end their process or block its loop, and how many of them to run at once.

A record that kills its process (`os._exit`, native code, memory) fails the batch's other records, too: all come back,
and could be killed by it again. Nothing in a message says that this is why it came back: an ordinary retry also has a
receive count of 2, and running all retries one by one would serialize the queue after each outage. Therefore:

- A record that was running when a process died or the loop was blocked is a suspect, remembered by its identifier in
  this sandbox: it runs last and alone. One that was running alone when this happened runs after all others.
- A record that came back for an unknown reason starts after new records. Such records run one at a time until a whole
  batch's worth of them has survived within a minute of each other, which means that they come from an outage. After a
  death, fewer records than a batch come back without the one that killed it, and much later.
- Done records are deleted from the queue before the next suspect starts.
- A record that was running alone when this happened three times is not run again here once it has been received
  `MAX_RUNS` times. Elsewhere the queue's own `max_receive_count` ends it, which is higher because it also counts
  outages. Once is not enough: an innocent record may be running when the process ends for another reason.
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
# Records run one at a time only if that fits in this share of the time left.
_TIME_SHARE = 0.5
_WAKE_SECONDS = 60.0


class Suspects:
    """What one execution environment knows about records that it has seen before.

    Args:
        journal: keeps this knowledge beyond the process; None if that is not possible.

    Attributes:
        died_with: the identifiers of the records that were running when the previous process died.
    """

    def __init__(self, journal: Journal | None) -> None:
        self._journal = journal
        self._known = journal.load() if journal else {}  # by identifier: how often it was running alone
        self._survivors = 0
        self._last_survival = 0.0
        self._is_kept = True
        self.died_with = journal.died_with if journal else []
        self._done = {note["messageId"] for note in self.done}
        if self.died_with:
            self.suspect(self.died_with, alone=len(self.died_with) == 1)
            self._keep()  # the journal's own note is gone, and this process may die before its first batch ends

    def suspect(self, identifiers: Iterable[str], *, alone: bool) -> None:
        """Note records that were running when the process died or the loop was blocked; `alone` if only one was."""
        names = [name for name in identifiers if name]
        for name in names:
            # Moved to the end, so that the oldest are forgotten first.
            self._known[name] = self._known.pop(name, 0) + alone
        while len(self._known) > _MOST:
            del self._known[next(iter(self._known))]
        self._is_kept = self._is_kept and not names

    def begin(self, records: list[Record]) -> Callable[[int, str], None] | None:
        """Note a batch in the journal, and return a function to note a record's state by its position."""
        if self._journal is None:
            return None
        return self._journal.begin([record.raw for record in records])

    def end(self) -> None:
        """Note the end of the batch."""
        if self._journal is not None:
            self._journal.end()
            self._keep()  # now instead of with the next batch: the process may be replaced in between

    def _keep(self) -> None:
        if self._journal is not None and not self._is_kept:
            self._journal.keep(self._known)
            self._is_kept = True

    def split(self, groups: list[list[Record]]) -> tuple[list[list[Record]], list[list[Record]]]:
        """Split groups into those to start at once and those to start afterwards, the most suspect last."""
        ranked = [(max(self._rank(record) for record in group), group) for group in groups]
        behind = [(rank, group) for rank, group in ranked if rank]
        if len(groups) < 2 or not behind:
            return groups, []
        random.shuffle(behind)  # otherwise the same record always waits for the same other one
        behind.sort(key=lambda item: item[0])
        return [group for rank, group in ranked if not rank], [group for _, group in behind]

    def _rank(self, record: Record) -> int:
        """Return 0 for a new record, 1 if it came back, 2 for a suspect, 3 for a suspect that was running alone."""
        known = self._known.get(record.identifier)
        if known is not None:
            return 3 if known else 2
        return 1 if record.receive_count > 1 else 0

    def is_fatal(self, record: Record) -> bool:
        """Whether a record has used up its runs and is known to end the process that runs it."""
        return self._known.get(record.identifier, 0) >= _FATAL and record.receive_count > MAX_RUNS

    def number_to_start(
        self, waiting: list[list[Record]], batch_size: int, usual: float | None, left: float | None
    ) -> int:
        """Return how many waiting groups to start now: one, except for groups that came back for an unknown reason.

        Args:
            batch_size: the maximum number of records that come back after one death.
            usual: seconds that a call of the program takes, if known.
            left: seconds until the deadline.
        """
        unknown = sum(1 for group in waiting if max(self._rank(record) for record in group) == 1)
        wanted = unknown if self._survivors >= batch_size else 1
        if unknown and usual is not None and left is not None:
            # Records that are not started in time come back, too, and use up receives for nothing.
            wanted = max(wanted, math.ceil(len(waiting) * usual / max(left * _TIME_SHARE, 0.001)))
        return max(1, min(wanted, unknown))

    def survived(self, came_back: int, records: int) -> None:
        """Note that the process has survived a batch."""
        now = time.monotonic()
        is_wake = came_back * 2 > records
        if not is_wake or now - self._last_survival > _WAKE_SECONDS:
            self._survivors = 0
        self._survivors += came_back if is_wake else 0
        self._last_survival = now

    @property
    def done(self) -> list[Note]:
        """The records that were done when their batch died, and must still be deleted."""
        return self._journal.done if self._journal else []

    def is_done(self, identifier: str) -> bool:
        """Whether a record was done when its batch died."""
        return identifier in self._done

    def note_deleted(self) -> None:
        """Note that the done records of a batch that died have been deleted."""
        if self._journal is not None:
            self._journal.done = []

    def forget(self, identifiers: Iterable[str]) -> None:
        """Forget suspects that are done."""
        for name in identifiers:
            self._known.pop(name, None)


def open_suspects(settings: Settings) -> Suspects:
    """Create the suspects of a sandbox; on Lambda they are kept in its /tmp."""
    if not settings.function_name:
        return Suspects(None)
    try:
        from pathlib import Path

        return Suspects(Journal(Path(settings.temporary_folder) / JOURNAL_FOLDER))
    except OSError:
        return Suspects(None)
