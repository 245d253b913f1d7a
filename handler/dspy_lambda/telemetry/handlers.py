"""Logging handlers that write records as JSON lines, and the filter for libraries' messages."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from dspy_lambda.telemetry.describe import describe


class Stream(Protocol):
    """The output that lines are written to."""

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...


# Their log messages may quote inputs, answers and keys.
LIBRARIES = (
    *("dspy", "lm15", "LiteLLM", "litellm", "openai", "anthropic", "httpx", "httpcore", "urllib3", "boto3", "botocore"),
    *("mangum", "asyncio", "fastapi", "concurrent.futures", "google.genai", "google_genai"),
)


_FIELDS = frozenset(logging.makeLogRecord({}).__dict__)


class RedactMessages(logging.Filter):
    """Removes the text of libraries' log lines, and keeps level and place: DSPy's messages quote inputs and answers."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name in record.__dict__.keys() - _FIELDS:  # of `extra`
            del record.__dict__[name]
        if record.exc_info and record.exc_info[1] is not None:
            record.__dict__.update(describe(record.exc_info[1]))
            record.exc_info = record.exc_text = None
        record.msg, record.args = f"{record.name}, line {record.lineno}", ()
        return True


class LineHandler(logging.Handler):
    """Writes each record as one line, without the lock of `logging.Handler`.

    `logging.Handler` holds its lock while it formats a record: an argument whose `__str__` never returns would keep
    every other thread from logging, including the one that answers at the deadline.

    Args:
        write: writes or holds a line, given its level.
        ids: returns the fields that say which call a line belongs to.
    """

    def __init__(self, write: Callable[[int, str], None], ids: Callable[[], dict[str, Any]]) -> None:
        super().__init__()
        self._write = write
        self._ids = ids

    def handle(self, record: logging.LogRecord) -> bool:
        if not self.filter(record):
            return False
        try:
            for name, value in {"logger": record.name, **self._ids()}.items():
                record.__dict__.setdefault(name, value)
            self._write(record.levelno, self._format(record) + "\n")
        except Exception:
            return False
        return True

    def _format(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except Exception:  # the arguments do not match the message, or an argument's own code fails
            record.msg, record.args = f"a message that cannot be formatted: {record.name}, line {record.lineno}", ()
            return self.format(record)
