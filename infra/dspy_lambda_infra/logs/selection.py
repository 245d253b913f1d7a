"""Which calls to show, as the command's options say."""

from __future__ import annotations

from dataclasses import dataclass

from dspy_lambda_infra.logs.records import SUCCESS, Record


@dataclass(frozen=True)
class Selection:
    """Criteria that a record must all meet.

    Attributes:
        since, until: seconds since the epoch; None for no limit. Records without a time meet neither.
        failed: only calls whose outcome is not success.
        slow: only calls that took at least that many seconds.
        request: a request id, message id, correlation id or trace id.
    """

    since: float | None = None
    until: float | None = None
    program: str | None = None
    model: str | None = None
    failed: bool = False
    slow: float | None = None
    request: str | None = None

    def has(self, record: Record) -> bool:
        """Whether a record meets the criteria."""
        return (
            (self.since is None or record.at >= self.since)
            and (self.until is None or record.at < self.until)
            and (self.program is None or record.program == self.program)
            and (self.model is None or record.model == self.model)
            and (self.request is None or self._is_of_request(record))
            and (not self.failed or record.outcome not in (SUCCESS, ""))
            and (self.slow is None or (record.duration_ms is not None and record.duration_ms >= self.slow * 1000))
        )

    def _is_of_request(self, record: Record) -> bool:
        # X-Ray's header: Root=1-...;Parent=...;Sampled=1
        return self.request in record.ids or f"Root={self.request};" in f"{record.ids[-1]};"
