"""The environment's one Logger and one metrics serializer."""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics

from dspy_lambda.call import CALL, UNKNOWN, Call
from dspy_lambda.invocation import Invocation
from dspy_lambda.settings import TEXTS, Settings
from dspy_lambda.telemetry.exceptions import Exceptions
from dspy_lambda.telemetry.handlers import LIBRARIES, LineHandler, RedactMessages, Stream
from dspy_lambda.telemetry.lines import NULL, MetricLevel, line_to_json, readable, to_json
from dspy_lambda.telemetry.metrics import Values, answer_metrics, metrics
from dspy_lambda.telemetry.printed import Printed, redirect
from dspy_lambda.telemetry.records import about, record
from dspy_lambda.telemetry.units import MODEL_UNITS, UNITS
from dspy_lambda.usage import Answer

if TYPE_CHECKING:
    from dspy_lambda.config.schema import Lambda
    from dspy_lambda.programs.program import Program
    from dspy_lambda.telemetry.debug_lines import DebugLines
    from dspy_lambda.telemetry.export.exporter import Exporter
    from dspy_lambda.telemetry.model_metrics import ModelNames
    from dspy_lambda.telemetry.payloads.rules import Payloads
    from dspy_lambda.telemetry.traces.spans import Trace
    from dspy_lambda.telemetry.traces.tracer import Tracer


class Telemetry:
    """Writes JSON lines through Powertools Logger, and metrics as EMF. One per execution environment.

    Attributes:
        current: the current invocation, if there is only one at a time; lines of threads without a context belong to
            it.
        exceptions: describes exceptions.
        payloads: what is written of each program's calls; programs without any of it are absent.
        tracer: collects spans; None without tracing.
        exporter: sends the spans of kept traces; None without tracing.
        writes_model_metrics: whether to write metrics of each model.
        span_ids: returns the ids of the trace and span that this thread or task works for; `spans.span_ids` with
            tracing on.
    """

    def __init__(self, service: str, settings: Settings, output: Stream) -> None:
        self.service = settings.service_name or service
        self.namespace = settings.metrics_namespace
        self.current: Invocation | None = None
        self.tracer: Tracer | None = None
        self.exporter: Exporter | None = None
        self.writes_model_metrics = False
        # Without the variable, the programs' `telemetry.payloads` decides.
        self.exceptions = Exceptions(settings.exception_texts if settings.variables.get(TEXTS) else None)
        self.payloads: dict[str, Payloads] = {}
        self.span_ids: Callable[[], dict[str, str]] = dict
        self._handler = LineHandler(self._write_or_hold, self.ids)
        # `location` would walk the stack for each line, only to name this file. The level is AWS_LAMBDA_LOG_LEVEL,
        # which Lambda sets from ApplicationLogLevel, else POWERTOOLS_LOG_LEVEL, else INFO.
        # https://docs.aws.amazon.com/powertools/python/latest/core/logger/#aws-lambda-advanced-logging-controls-alc
        with warnings.catch_warnings():
            # Powertools warns, as text on standard error, if POWERTOOLS_LOG_LEVEL is lower; `deploy` warns of it, too.
            warnings.simplefilter("ignore", UserWarning)
            self.logger = Logger(
                service=self.service,
                location=None,
                logger_handler=self._handler,
                json_serializer=line_to_json,
                use_rfc3339=True,
                utc=True,
            )
        self._minimum: int = self.logger.log_level
        self._debug_lines: DebugLines | None = None
        self._holds: Callable[[str], bool] = bool
        self._output = output
        self._model_names: ModelNames | None = None
        self._metric_level = MetricLevel(settings.variables)
        self._printed: list[Printed] = []
        self._held: tuple[int, list[str]] | None = None
        # Python 3.12+: names such as Task-7 are of no use in a line.
        logging.logAsyncioTasks = False  # type: ignore[attr-defined,unused-ignore]
        self.log_private = settings.log_private
        self._adopt_library_loggers()

    def _adopt_library_loggers(self) -> None:
        """Write warnings of DSPy and the web stack as JSON lines, too; DSPy's own handler writes plain text."""
        handler = LineHandler(self._write_or_hold, self.ids)
        handler.setFormatter(self._handler.formatter)
        if not self.log_private:
            handler.addFilter(RedactMessages())
        for name in LIBRARIES:
            library = logging.getLogger(name)
            library.handlers = [handler]
            library.propagate = False
            library.setLevel(logging.WARNING)

    def prepare_payloads(self, config: Lambda, programs: Mapping[str, Program], variables: Mapping[str, str]) -> None:
        """Create the rules for what is written of each program's calls, and of calls without a program.

        Raises:
            ConfigError: A function of `telemetry.mask_with` cannot be imported.
        """
        for name in (*programs, UNKNOWN):
            settings = config.function(name).telemetry
            if settings.payloads != "none":
                from dspy_lambda.telemetry.payloads.start import prepare

                self.payloads[name] = prepare(settings, programs.get(name), self.exceptions, variables, self.log_here)
        if self.tracer is not None and self.exporter is not None:
            self.tracer.collects = bool(self.payloads)

    @contextmanager
    def capture_process_output(self) -> Iterator[None]:
        """Write whatever the process logs or prints as JSON lines, each with its program and request id.

        Standard output is logged as INFO and standard error as WARNING. If the block fails, the streams are restored
        so that the failure can be reported.
        """
        handler = LineHandler(self._write_or_hold, self.ids)
        handler.setFormatter(self._handler.formatter)
        root, streams = logging.getLogger(), (sys.stdout, sys.stderr)
        root.handlers = [handler]
        root.setLevel(self._least)
        own = logging.getLogger(self.service)
        own.propagate = False  # otherwise its lines are written twice
        own.setLevel(self._least)
        for descriptor, name, level in ((1, "stdout", "INFO"), (2, "stderr", "WARNING")):
            self._printed.append(
                Printed(descriptor, partial(self.log_here, level, fields={"stream": name}), self._write_object)
            )
            redirect(name, self._printed[-1])
        try:
            yield
        except BaseException:
            sys.stdout, sys.stderr = streams
            raise

    def hold_debug_lines(self, holds: Callable[[str], bool]) -> None:
        """Write debug lines only of calls that fail.

        Args:
            holds: whether to do so, by the call's program. Debug lines that belong to no call are then not written.
        """
        from dspy_lambda.telemetry.debug_lines import DebugLines  # few functions need it

        self._holds = holds
        self._debug_lines = DebugLines(self._write, self.log)

    @property
    def _least(self) -> int:
        """The lowest level of the lines that are made, written or held."""
        return self._minimum if self._debug_lines is None else min(self._minimum, logging.DEBUG)

    def finish_printed(self, call: Call | None = None) -> None:
        """Write what was printed without a final newline, by one call or (None) by everything."""
        for printed in self._printed:
            printed.finish(call)

    def ids(self) -> dict[str, Any]:
        """Return the program, request and span that this thread or task works for; empty if unknown."""
        call = self._call()
        if call is not None:
            return {"program": call.program, **call.ids(), **self.span_ids()}
        current = self.current
        return {} if current is None else current.ids() | self.span_ids()

    def _call(self) -> Call | None:
        """Return the call that this thread or task works for: the context's, or the current invocation's only one."""
        call, current = CALL.get(), self.current
        if call is None and current is not None and len(calls := list(current.calls.values())) == 1:
            return calls[0]
        return call

    def log_here(self, level: str, message: str, fields: Mapping[str, Any]) -> None:
        """Write one line with the program and the request that this thread or task works for."""
        self.log(level, message, self.ids() | dict(fields))

    def opened(self, invocation: Invocation) -> None:
        """Attribute lines of threads without a context to this invocation."""
        if invocation.source != "serve":  # `serve` runs many at once
            self.current = invocation

    def closed(self, invocation: Invocation) -> None:
        """Write an invocation's metrics, and export its trace."""
        self.current = None
        if self._debug_lines is not None:
            self._debug_lines.close(invocation)
        trace = None if self.tracer is None else self.tracer.finish(invocation)
        for program, values in metrics(invocation):
            self.emit(program, values)
        if trace is not None and self.writes_model_metrics:
            self.emit_models(trace)

    def before_answer(self, context: Any) -> None:
        """Export what waits where nothing can do so after the answer: not on Lambda, where an extension does."""
        if self.exporter is not None:
            from dspy_lambda.telemetry.export.start import before_answer  # loaded with the exporter

            before_answer(self.exporter, context.get_remaining_time_in_millis() / 1000)

    def log(self, level: str, message: str, fields: Mapping[str, Any]) -> None:
        """Write one line through Powertools' formatter.

        Bypasses the logging module, whose locks a program can hold and which walks the stack.
        """
        number = logging.getLevelName(level)
        if number < self._least:
            return
        known = {key: NULL if value is None else value for key, value in fields.items()}
        # Passed as an argument: Powertools parses a message that is JSON, and fails if it is nested too deeply.
        record = logging.LogRecord(self.service, number, "", 0, "%s", (message,), None)
        record.__dict__.update(known)
        self._write_or_hold(number, self._handler.format(record) + "\n")

    def started(self, call: Call) -> None:
        """Start a call's span."""
        if self.tracer is not None:
            self.tracer.start_call(call)

    def settled(self, call: Call, cause: BaseException | None) -> None:
        """Write the log record of one call, and end its span."""
        if self.tracer is not None:
            self.tracer.settle(call)
        level = "ERROR" if call.failed else "INFO"
        if logging.getLevelName(level) >= self._minimum:
            payloads = self.payloads.get(call.program)
            # They take up to several ms, or as long as the project's own masking function, which could hold the answer.
            leaves_out = payloads is not None and self._holds_lines()
            shown = None if payloads is None or leaves_out else payloads.shown(call)
            text = None if shown is None else shown.exception
            why = self.exceptions.reason(call.error, text) if cause is None else self.exceptions.fields(cause, text)
            fields = record(call) | self.span_ids() | why
            if leaves_out and call.inputs is not None:
                fields["payloads_left_out"] = True
            self.log(level, "program call", fields | ({} if shown is None else shown.fields()))
        if self._debug_lines is not None:
            self._debug_lines.settle(call)

    def ended(self, call: Call) -> None:
        """Write what a call printed without a final newline."""
        self.finish_printed(call)

    def unexpected(self, invocation: Invocation, error: BaseException) -> None:
        """Log the kind and place of an exception that no call caught."""
        self.log("ERROR", "unexpected error", invocation.ids() | self.exceptions.fields(error))

    def answered_late(self, call: Call, answer: Answer) -> None:
        """Write the record of an answer that came after its call was settled, and its tokens and cost as metrics."""
        self.log("INFO", "late model call", about(call) | answer.fields())
        if not answer.abandoned:
            self.emit(call.program, {"LateAnswers": [1], **answer_metrics(answer)})

    def answered_outside_calls(self, answer: Answer) -> None:
        """Write the record and metrics of an answer outside any call, with the program if only one is running."""
        fields = {"program": UNKNOWN, **self.ids()}
        self.log("INFO", "model call outside any program call", fields | answer.fields())
        if not answer.abandoned:
            self.emit(fields["program"], answer_metrics(answer))

    def emit(self, program: str, values: Values, model: str | None = None) -> None:
        """Write one EMF blob. `Metrics` shares its state among all instances and would mix concurrent calls."""
        metrics = EphemeralMetrics(namespace=self.namespace, service=self.service)
        metrics.add_dimension("program", program)
        if model is not None:
            metrics.add_dimension("model", model)
        units = UNITS if model is None else MODEL_UNITS
        named = {name: {"Unit": units[name], "Value": numbers} for name, numbers in values.items()}
        blob = {**metrics.serialize_metric_set(metrics=named), **self._metric_level.fields()}
        self._write(json.dumps(blob) + "\n")

    def emit_models(self, trace: Trace) -> None:
        """Write the metrics of each model that an invocation called."""
        from dspy_lambda.telemetry.model_metrics import ModelNames, model_metrics  # few functions need it

        self._model_names = names = self._model_names or ModelNames()
        for program, model, values in model_metrics(trace, names):
            self.emit(program, values, model)

    def _write_object(self, line: dict[str, Any]) -> None:
        own = self._metric_level.fields() if "_aws" in line else {}
        line = self.ids() | readable(line) | own
        level = logging.DEBUG if line.get("level") in ("DEBUG", "TRACE") else logging.INFO
        self._write_or_hold(level, to_json(line) + "\n")

    def _write_or_hold(self, level: int, line: str) -> None:
        """Write a line, or hold it if it is a debug line of a call that may fail."""
        if level >= logging.INFO or self._debug_lines is None:
            self._write(line)
        elif (call := self._call()) is not None and self._holds(call.program):
            self._debug_lines.add(call, line)
        elif call is not None and level >= self._minimum:
            self._write(line)

    @contextmanager
    def held_together(self) -> Iterator[None]:
        """Collect this thread's lines, and write them all at the end of the block.

        Each write releases the interpreter's lock; with a hundred busy threads, getting it back may take 0.5 s.
        """
        lines: list[str] = []
        self._held = threading.get_ident(), lines
        try:
            yield
        finally:
            self._held = None
            self._output.write("".join(lines))
            self._output.flush()

    def _holds_lines(self) -> bool:
        """Whether this thread is within `held_together`: it must answer now."""
        held = self._held
        return held is not None and held[0] == threading.get_ident()

    def _write(self, line: str) -> None:
        held = self._held
        if held is not None and self._holds_lines():
            held[1].append(line)
            return
        try:
            self._output.write(line)
            self._output.flush()
        except (OSError, ValueError):
            pass  # the reader is gone; a call must not fail for that
