"""Formats a function's log for people: JSON lines become short lines on a terminal; pipes and files get JSON."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from dspy_lambda.call import UNKNOWN
from dspy_lambda.errors import INVALID_INPUTS, InvalidInput

_FRAMES = 4
_HANDLER = re.compile(r"dspy_lambda/|<frozen |importlib/")
# The runtime client logs this before each failed init, but no managed runtime update can be the cause here.
_RUNTIME_UPDATE = "LAMBDA_WARNING: Unhandled exception."
_INSTALLED = re.compile(r"\S*/site-packages/")
# Fields that identify a request or carry no information on one machine.
_LEFT_OUT = {
    *("level", "message", "timestamp", "service", "location", "logger", "program"),
    *("xray_trace_id", "function_request_id", "correlation_id", "message_id", "exception_name", "exception", "stack"),
    *("stream", "trace_id", "span_id"),
}


def log_to(stream: TextIO) -> Callable[[str, str], None]:
    """Return a `log` callback that writes to that stream: readable lines on a terminal, otherwise unchanged lines."""
    if not stream.isatty():
        return lambda _, line: print(line, file=stream, flush=True)

    def write(function: str, line: str) -> None:
        for text in readable(function, line):
            print(text, file=stream, flush=True)

    return write


class Terminal:
    """The log stream of a handler in this process: writes readable lines to a terminal.

    Args:
        stream: the terminal.
        name: the name to show for lines that do not name their program.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._log = log_to(stream)
        self._name = name

    def write(self, text: str, /) -> int:
        for line in text.splitlines():
            self._log(self._name, line)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def readable(function: str, line: str) -> Iterator[str]:
    """Yield the lines to show for one log line: none for metrics, which repeat the call's line."""
    name = function.removesuffix("Function")
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    texts = _entry(name, entry) if isinstance(entry, dict) else [f"{name}  {line}"]
    lines = [part for text in texts for part in text.splitlines()]
    yield from (f"{'' if number else time.strftime('%H:%M:%S'):<8} {text}" for number, text in enumerate(lines))


def _entry(name: str, entry: dict[str, Any]) -> Iterator[str]:
    if "_aws" in entry or str(entry.get("message", "")).startswith(_RUNTIME_UPDATE):
        return
    if str(entry.get("type", "")).startswith("platform."):
        yield from _platform(name, entry)
    elif "errorType" in entry:  # logged by the runtime client
        # For a failed call, its own line shows the rest.
        first, _, _ = str(entry.get("errorMessage") or "").partition("\n")
        yield f"{name}  {entry['errorType']}: {first}"
        yield from _frames(entry.get("stackTrace"))
    elif entry.get("message") == "program call":
        yield _call(name, entry)
        yield from _exception(entry)
    elif entry.get("message") != "environment ready":  # `ready` and the call's line show the same
        more = [f"{key}={_plain(value)}" for key, value in entry.items() if key not in _LEFT_OUT]
        yield "  ".join([str(entry.get("program", name)), _message(entry), *more])
        yield from _exception(entry)


def _message(entry: dict[str, Any]) -> str:
    level, message = entry.get("level", "INFO"), _plain(entry.get("message", ""))
    return message if level == "INFO" else f"{level}: {message}"


def _platform(name: str, entry: dict[str, Any]) -> Iterator[str]:
    """Yield what only Lambda's own line shows."""
    record = entry["record"]
    if "initDurationMs" in record["metrics"]:
        yield f"{name}  (cold start: {record['metrics']['initDurationMs'] / 1000:.1f} s)"
    kind = str(record.get("errorType", ""))
    if kind.startswith(("Runtime.", "Sandbox.", "Function.")):
        yield f"{name}  {kind}: {record['errorMessage']}"


def _call(name: str, entry: dict[str, Any]) -> str:
    program = name if entry["program"] == UNKNOWN else entry["program"]
    if entry["outcome"] == InvalidInput.outcome and "exception" in entry:
        return f"{program}  {entry['outcome']}: {entry['exception'].removeprefix(INVALID_INPUTS)}"
    parts = [f"{program}  {entry['outcome']} {entry['duration_ms']:.0f} ms"]
    if calls := entry.get("lm_calls"):
        parts += [f"{calls} LM call{'s' if calls > 1 else ''}"]
        parts += [f"{entry['input_tokens']}+{entry['output_tokens']} tokens"]
        parts += [f"{entry['cost_usd']:.6f} USD"] if entry.get("cost_usd") is not None else []
    return ", ".join(parts)


def _exception(entry: dict[str, Any]) -> Iterator[str]:
    if "exception_name" in entry:
        text = ": ".join(filter(None, [entry["exception_name"], entry.get("exception")]))
        yield "  " + text.replace("\n", "\n  ")
        yield from _frames(entry.get("stack"))


def _frames(stack: Any) -> Iterator[str]:
    """Yield the last frames, preferably of the project's code and not of the handler around it."""
    frames = [" ".join(str(frame).split()) for frame in stack or []]
    for frame in [frame for frame in frames if not _HANDLER.search(frame)][-_FRAMES:]:
        yield f"    {_INSTALLED.sub('', frame)}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def answer_to(stream: TextIO, payload: bytes) -> None:
    """Print a function's answer: indented and without the handler's stack on a terminal, otherwise unchanged."""
    text = payload.decode(errors="replace")
    if stream.isatty():
        value = json.loads(text)
        if isinstance(value, dict) and "errorType" in value:
            value.pop("stackTrace", None)
        text = json.dumps(value, indent=2, ensure_ascii=False)
    print(text, file=stream)
