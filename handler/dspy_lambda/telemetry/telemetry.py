"""The environment's one Logger and one metrics serializer."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics

from dspy_lambda.settings import flag
from dspy_lambda.telemetry import usage
from dspy_lambda.telemetry.calls import Call
from dspy_lambda.telemetry.describe import describe
from dspy_lambda.telemetry.invocation import Invocation


class Stream(Protocol):
    """Where lines go."""

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...


class _Null:
    """Written as null. Powertools' formatter leaves out keys whose value is None, and a record has all its fields."""


_NULL = _Null()
_LIBRARIES = ("dspy", "mangum", "asyncio", "fastapi", "concurrent.futures")


class _Wordless(logging.Filter):
    """Libraries' log lines keep their level and place, and lose their text: DSPy's quote inputs and answers."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            record.__dict__.update(describe(record.exc_info[1]))
            record.exc_info = record.exc_text = None
        record.msg, record.args = f"{record.name}, line {record.lineno}", ()
        return True


class _LineHandler(logging.Handler):
    """Writes a record as one line, without the lock of `logging.Handler`.

    That one is held while a record is formatted: a program whose argument's `__str__` never returns would keep every
    other thread from logging, the one that answers at the deadline included.
    """

    def __init__(self, output: Stream) -> None:
        super().__init__()
        self._output = output

    def handle(self, record: logging.LogRecord) -> bool:
        if not self.filter(record):
            return False
        try:
            self._output.write(self.format(record) + "\n")
            self._output.flush()
        except Exception:
            return False
        return True


class Telemetry:
    """Writes JSON lines through Powertools Logger and metrics as EMF. One per execution environment."""

    def __init__(self, service: str, variables: Mapping[str, str], output: Stream) -> None:
        self.service = variables.get("POWERTOOLS_SERVICE_NAME") or service
        self.namespace = variables.get("POWERTOOLS_METRICS_NAMESPACE") or "DSPy"
        self._handler = _LineHandler(output)
        # `location` would cost a walk of the stack per line to say that this file wrote it.
        self.logger = Logger(
            service=self.service, location=None, logger_handler=self._handler, json_default=_json_default
        )
        self._output = output
        self._held: tuple[int, list[str]] | None = None
        # Python 3.12+: a name such as Task-7 in every line tells nobody anything.
        logging.logAsyncioTasks = False  # type: ignore[attr-defined,unused-ignore]
        self._cold = True
        self.log_private = flag(variables, "DSPY_LAMBDA_LOG_PRIVATE")
        usage.install()
        self._adopt_library_loggers()

    def _adopt_library_loggers(self) -> None:
        """Warnings of DSPy and the web stack become JSON lines like all others; DSPy's own handler writes text."""
        handler = _LineHandler(self._output)
        handler.setFormatter(self._handler.formatter)
        if not self.log_private:
            handler.addFilter(_Wordless())
        for name in _LIBRARIES:
            library = logging.getLogger(name)
            library.handlers = [handler]
            library.propagate = False
            library.setLevel(logging.WARNING)

    def invocation(self, source: str, **about: Any) -> Invocation:
        """A new invocation; the environment's first one is its cold start."""
        cold, self._cold = self._cold, False
        return Invocation(self, source, cold_start=cold, **about)

    def log(self, level: str, message: str, fields: Mapping[str, Any]) -> None:
        """Write one line through Powertools' formatter.

        Past the logging module: its locks, which a program can hold, and its walk of the stack are not needed here.
        """
        number = logging.getLevelName(level)
        if number < self.logger.log_level:
            return
        known = {key: _NULL if value is None else value for key, value in fields.items()}
        record = logging.LogRecord(self.service, number, "", 0, message, (), None)
        record.__dict__.update(known)
        self._write(self._handler.format(record) + "\n")

    def write(self, call: Call, cause: dict[str, Any]) -> None:
        """The log record of one call."""
        self.log("ERROR" if call.failed else "INFO", "program call", call.record() | cause)

    def write_late(self, program: str, about: dict[str, Any], answer: usage.Answer) -> None:
        """An answer that came after its call had been settled: its record, and its tokens and cost as metrics."""
        self.log("INFO", "late model call", about | answer.fields())
        if answer.abandoned:
            return
        values: dict[str, tuple[str, list[float]]] = {
            "LateAnswers": ("Count", [1]),
            "LMCalls": ("Count", [1]),
            "InputTokens": ("Count", [answer.input_tokens]),
            "OutputTokens": ("Count", [answer.output_tokens]),
        }
        if answer.cost_usd is not None:
            values["CostUSD"] = ("None", [round(answer.cost_usd, 10)])
        self.emit(program, values)

    def emit(self, program: str, values: dict[str, tuple[str, list[float]]]) -> None:
        """One EMF blob. Not `Metrics`: that shares state between all its instances, so concurrent calls would mix."""
        metrics = EphemeralMetrics(namespace=self.namespace, service=self.service)
        metrics.add_dimension("program", program)
        named = {name: {"Unit": unit, "Value": numbers} for name, (unit, numbers) in values.items()}
        self._write(json.dumps(metrics.serialize_metric_set(metrics=named)) + "\n")

    @contextmanager
    def held_together(self) -> Iterator[None]:
        """Write this thread's lines at the end of the block, at once.

        Each write gives up the interpreter's lock: with a hundred busy threads, getting it back may take 0.5 s.
        """
        lines: list[str] = []
        self._held = threading.get_ident(), lines
        try:
            yield
        finally:
            self._held = None
            self._output.write("".join(lines))
            self._output.flush()

    def _write(self, line: str) -> None:
        held = self._held
        if held is not None and held[0] == threading.get_ident():
            held[1].append(line)
            return
        try:
            self._output.write(line)
            self._output.flush()
        except (OSError, ValueError):
            pass  # nobody reads it any more; a call does not fail for that


def _json_default(value: object) -> str | None:
    return None if value is _NULL else str(value)
