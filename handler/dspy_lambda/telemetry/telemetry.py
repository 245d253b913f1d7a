"""The environment's one Logger and one metrics serializer."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics

from dspy_lambda.call import CALL, UNKNOWN, Call
from dspy_lambda.invocation import Invocation
from dspy_lambda.settings import Settings
from dspy_lambda.telemetry.describe import describe
from dspy_lambda.telemetry.exceptions import Exceptions
from dspy_lambda.telemetry.lines import NULL, to_json
from dspy_lambda.telemetry.metrics import Values, answer_metrics, metrics
from dspy_lambda.telemetry.printed import Printed, redirect
from dspy_lambda.telemetry.records import about, record
from dspy_lambda.telemetry.units import UNITS
from dspy_lambda.usage import Answer


class Stream(Protocol):
    """Where lines go."""

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...


# What they log may quote inputs, answers and keys.
_LIBRARIES = (
    *("dspy", "lm15", "LiteLLM", "litellm", "openai", "anthropic", "httpx", "httpcore", "urllib3", "boto3", "botocore"),
    *("mangum", "asyncio", "fastapi", "concurrent.futures", "google.genai", "google_genai"),
)


_FIELDS = frozenset(logging.makeLogRecord({}).__dict__)


class _Wordless(logging.Filter):
    """Libraries' log lines keep their level and place, and lose their text: DSPy's quote inputs and answers."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name in record.__dict__.keys() - _FIELDS:  # of `extra`
            del record.__dict__[name]
        if record.exc_info and record.exc_info[1] is not None:
            record.__dict__.update(describe(record.exc_info[1]))
            record.exc_info = record.exc_text = None
        record.msg, record.args = f"{record.name}, line {record.lineno}", ()
        return True


class _LineHandler(logging.Handler):
    """Writes a record as one line, without the lock of `logging.Handler`.

    That one is held while a record is formatted: a program whose argument's `__str__` never returns would keep every
    other thread from logging, the one that answers at the deadline included.

    Args:
        ids: the fields of a line that tell which call it belongs to.
    """

    def __init__(self, output: Stream, ids: Callable[[], dict[str, Any]]) -> None:
        super().__init__()
        self._output = output
        self._ids = ids

    def handle(self, record: logging.LogRecord) -> bool:
        if not self.filter(record):
            return False
        try:
            for name, value in {"logger": record.name, **self._ids()}.items():
                record.__dict__.setdefault(name, value)
            self._output.write(self._format(record) + "\n")
            self._output.flush()
        except Exception:
            return False
        return True

    def _format(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except Exception:  # its text and its arguments do not fit together, or an argument's own code fails
            record.msg, record.args = f"a message that cannot be formatted: {record.name}, line {record.lineno}", ()
            return self.format(record)


class Telemetry:
    """Writes JSON lines through Powertools Logger and metrics as EMF. One per execution environment.

    Attributes:
        current: the invocation under way, where there is one at a time: it is that of threads without a context.
        exceptions: what is told of exceptions.
    """

    def __init__(self, service: str, settings: Settings, output: Stream) -> None:
        self.service = settings.service_name or service
        self.namespace = settings.metrics_namespace
        self.current: Invocation | None = None
        self.exceptions = Exceptions(settings.exception_texts)
        self._handler = _LineHandler(output, self.ids)
        # `location` would cost a walk of the stack per line to say that this file wrote it. Of times, Lambda reads
        # RFC 3339 alone: with others each line counts as INFO.
        # https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-logformat.html
        self.logger = Logger(
            service=self.service,
            location=None,
            logger_handler=self._handler,
            json_serializer=to_json,
            use_rfc3339=True,
            utc=True,
        )
        self._output = output
        self._printed: list[Printed] = []
        self._held: tuple[int, list[str]] | None = None
        # Python 3.12+: a name such as Task-7 in every line tells nobody anything.
        logging.logAsyncioTasks = False  # type: ignore[attr-defined,unused-ignore]
        self.log_private = settings.log_private
        self._adopt_library_loggers()

    def _adopt_library_loggers(self) -> None:
        """Warnings of DSPy and the web stack become JSON lines like all others; DSPy's own handler writes text."""
        handler = _LineHandler(self._output, self.ids)
        handler.setFormatter(self._handler.formatter)
        if not self.log_private:
            handler.addFilter(_Wordless())
        for name in _LIBRARIES:
            library = logging.getLogger(name)
            library.handlers = [handler]
            library.propagate = False
            library.setLevel(logging.WARNING)

    @contextmanager
    def take_over(self) -> Iterator[None]:
        """Make JSON lines of whatever the process's code logs or prints, each with its program and request id.

        What is printed to standard output is INFO, to standard error WARNING. If the block fails, the streams are put
        back for whoever reports that.
        """
        handler = _LineHandler(self._output, self.ids)
        handler.setFormatter(self._handler.formatter)
        root, streams = logging.getLogger(), (sys.stdout, sys.stderr)
        root.handlers = [handler]
        root.setLevel(self.logger.log_level)
        logging.getLogger(self.service).propagate = False  # or its lines would come twice
        for descriptor, name, level in ((1, "stdout", "INFO"), (2, "stderr", "WARNING")):
            self._printed.append(Printed(descriptor, partial(self.log_here, level, fields={}), self._write_object))
            redirect(name, self._printed[-1])
        try:
            yield
        except BaseException:
            sys.stdout, sys.stderr = streams
            raise

    def finish_printed(self, call: Call | None = None) -> None:
        """Write what was printed without a line end so far: by one call, or by all and whatever else runs."""
        for printed in self._printed:
            printed.finish(call)

    def ids(self) -> dict[str, Any]:
        """The program and the request that this thread or task works for; empty where nobody knows."""
        call = CALL.get()
        if call is not None:
            return {"program": call.program, **call.ids()}
        current = self.current
        return {} if current is None else current.ids()

    def log_here(self, level: str, message: str, fields: Mapping[str, Any]) -> None:
        """Write one line with the program and the request that this thread or task works for."""
        self.log(level, message, self.ids() | dict(fields))

    def opened(self, invocation: Invocation) -> None:
        """Lines of threads without a context are this invocation's."""
        if invocation.source != "serve":  # which runs many at once
            self.current = invocation

    def closed(self, invocation: Invocation) -> None:
        """Write an invocation's metrics."""
        self.current = None
        for program, values in metrics(invocation):
            self.emit(program, values)

    def log(self, level: str, message: str, fields: Mapping[str, Any]) -> None:
        """Write one line through Powertools' formatter.

        Past the logging module: its locks, which a program can hold, and its walk of the stack are not needed here.
        """
        number = logging.getLevelName(level)
        if number < self.logger.log_level:
            return
        known = {key: NULL if value is None else value for key, value in fields.items()}
        # As an argument: Powertools reads a message that is JSON, and one that is nested too deeply fails there.
        record = logging.LogRecord(self.service, number, "", 0, "%s", (message,), None)
        record.__dict__.update(known)
        self._write(self._handler.format(record) + "\n")

    def settled(self, call: Call, cause: BaseException | None) -> None:
        """Write the log record of one call."""
        why = self.exceptions.reason(call.error) if cause is None else self.exceptions.fields(cause)
        self.log("ERROR" if call.failed else "INFO", "program call", record(call) | why)

    def ended(self, call: Call) -> None:
        """Write what a call printed without a line end."""
        self.finish_printed(call)

    def unforeseen(self, invocation: Invocation, error: BaseException) -> None:
        """Log what no call could catch, by kind and place."""
        self.log("ERROR", "unforeseen error", invocation.ids() | self.exceptions.fields(error))

    def answered_late(self, call: Call, answer: Answer) -> None:
        """An answer that came after its call had been settled: its record, and its tokens and cost as metrics."""
        self.log("INFO", "late model call", about(call) | answer.fields())
        if not answer.abandoned:
            self.emit(call.program, {"LateAnswers": [1], **answer_metrics(answer)})

    def answered_outside(self, answer: Answer) -> None:
        """An answer that no call has asked for, in the same way: with the program where only one runs."""
        fields = {"program": UNKNOWN, **self.ids()}
        self.log("INFO", "model call outside of a call", fields | answer.fields())
        if not answer.abandoned:
            self.emit(fields["program"], answer_metrics(answer))

    def emit(self, program: str, values: Values) -> None:
        """One EMF blob. Not `Metrics`: that shares state between all its instances, so concurrent calls would mix."""
        metrics = EphemeralMetrics(namespace=self.namespace, service=self.service)
        metrics.add_dimension("program", program)
        named = {name: {"Unit": UNITS[name], "Value": numbers} for name, numbers in values.items()}
        self._write(json.dumps(metrics.serialize_metric_set(metrics=named)) + "\n")

    def _write_object(self, line: dict[str, Any]) -> None:
        self._write(to_json(self.ids() | line) + "\n")

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
