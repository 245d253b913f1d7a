"""The environment's one Logger and one metrics serializer."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, TextIO

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics

from dspy_lambda.telemetry import usage
from dspy_lambda.telemetry.calls import Call, describe
from dspy_lambda.telemetry.invocation import Invocation


class _Null:
    """Written as null. Powertools' formatter leaves out keys whose value is None, and a record has all its fields."""


_NULL = _Null()
_LIBRARIES = ("dspy", "mangum", "asyncio", "fastapi")


class _Wordless(logging.Filter):
    """Libraries' log lines keep their level and place, and lose their text: DSPy's quote inputs and answers."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1]:
            record.__dict__.update(describe(record.exc_info[1]))
            record.exc_info = record.exc_text = None
        record.msg, record.args = f"{record.name}, line {record.lineno}", ()
        return True


class Telemetry:
    """Writes JSON lines through Powertools Logger and metrics as EMF. One per execution environment."""

    def __init__(self, service: str, variables: Mapping[str, str], output: TextIO) -> None:
        self.service = variables.get("POWERTOOLS_SERVICE_NAME") or service
        self.namespace = variables.get("POWERTOOLS_METRICS_NAMESPACE") or "DSPy"
        # `location` would cost a walk of the stack per line to say that this file wrote it.
        self.logger = Logger(service=self.service, location=None, stream=output, json_default=_json_default)
        self._output = output
        # Python 3.12+: a name such as Task-7 in every line tells nobody anything.
        logging.logAsyncioTasks = False  # type: ignore[attr-defined,unused-ignore]
        self._cold = True
        self._log_private = variables.get("DSPY_LAMBDA_LOG_PRIVATE", "").lower() == "true"
        usage.install()
        self._adopt_library_loggers()

    def _adopt_library_loggers(self) -> None:
        """Warnings of DSPy and the web stack become JSON lines like all others; DSPy's own handler writes text."""
        own = self.logger.handlers[0]
        handler = logging.StreamHandler(self._output)
        handler.setFormatter(own.formatter)
        if not self._log_private:
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

    def write(self, call: Call, cause: dict[str, Any]) -> None:
        """The log record of one call."""
        log = self.logger.error if call.failed else self.logger.info
        record = {key: _NULL if value is None else value for key, value in call.record().items()}
        log("program call", extra=record | cause)

    def emit(self, program: str, values: dict[str, tuple[str, list[float]]]) -> None:
        """One EMF blob. Not `Metrics`: that shares state between all its instances, so concurrent calls would mix."""
        metrics = EphemeralMetrics(namespace=self.namespace, service=self.service)
        metrics.add_dimension("program", program)
        named = {name: {"Unit": unit, "Value": numbers} for name, (unit, numbers) in values.items()}
        self._output.write(json.dumps(metrics.serialize_metric_set(metrics=named)) + "\n")
        self._output.flush()


def _json_default(value: object) -> str | None:
    return None if value is _NULL else str(value)
