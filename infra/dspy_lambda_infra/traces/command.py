"""`dspy-lambda trace`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dspy_lambda_infra.logs.sources import hint_at_idle_stdin, stdin_is_piped
from dspy_lambda_infra.terminal import printable, terminal, write_any_text
from dspy_lambda_infra.traces.sources import CloudWatchSource, FileSource, LocalSource, Source
from dspy_lambda_infra.traces.spans import INVOCATION_ID, Span
from dspy_lambda_infra.traces.waterfall import waterfall
from dspy_lambda_infra.unavailable import Unavailable

_POLL_SECONDS = 1.0
_MOST_SHOWN = 10_000


@dataclass(frozen=True)
class Options:
    """What to read and how to show it.

    Attributes:
        file: a file of OTLP in JSON, - for standard input, None to choose.
        since: seconds since the epoch, for CloudWatch.
        payloads: whether to show inputs, outputs and messages.
        as_json: whether to print one line of JSON for each call.
    """

    project: Path
    file: str | None = None
    stack: str | None = None
    region: str | None = None
    since: float | None = None
    payloads: bool = False
    as_json: bool = False


def run_trace(options: Options, name: str | None, *, follow: bool = False) -> int:
    """Print the trees of one call: the one with that id, by default the most recent one.

    Args:
        follow: whether to print the tree of each call that ends from now on, until Ctrl-C.

    Returns:
        0; 1 if there is no such call or the source cannot be read; 130 after Ctrl-C.

    Raises:
        ConfigError: a file cannot be read.
    """
    write_any_text()
    try:
        source = _source(options)
        if follow:
            _follow(source, options)
        found = source.find(name) if name is not None else _last(source)
    except KeyboardInterrupt:
        return 130
    except Unavailable as error:
        print(f"dspy-lambda: {error}", file=sys.stderr)
        return 1
    if not found:
        print(f"dspy-lambda: {_not_found(source, name)}", file=sys.stderr)
        return 1
    _show(found, options)
    return 0


def _source(options: Options) -> Source:
    if options.stack is not None:
        return CloudWatchSource(options.stack, options.region, options.since)
    if options.file is not None and options.file != "-":
        return FileSource(Path(options.file))
    if options.file == "-" or stdin_is_piped():
        hint_at_idle_stdin(sys.stdin.buffer)
        return FileSource(None, sys.stdin.buffer)
    return LocalSource(options.project)


def _last(source: Source) -> list[Span]:
    recent = source.recent()
    return source.find(str(recent[-1].attributes[INVOCATION_ID])) if recent else []


def _follow(source: Source, options: Options, pause: Callable[[float], None] = time.sleep) -> None:
    """Print each new call. One is printed when its number of spans has not grown since the last look."""
    shown = dict.fromkeys(span.span_id for span in source.recent())
    sizes: dict[str, int] = {}
    print(f"waiting for calls: {source.where}", file=sys.stderr, flush=True)
    while True:
        pause(_POLL_SECONDS)
        for first in source.recent():
            if first.span_id in shown:
                continue
            found = source.find(str(first.attributes[INVOCATION_ID]))
            if found and sizes.get(first.span_id) == len(found):
                shown[first.span_id] = None
                del sizes[first.span_id]
                _show(found, options)
                print(flush=True)
            else:
                sizes[first.span_id] = len(found)
        while len(shown) > _MOST_SHOWN:
            del shown[next(iter(shown))]


def _show(found: Sequence[Span], options: Options) -> None:
    if options.as_json:
        print(json.dumps({"spans": [span.document() for span in found]}))
        return
    for line in waterfall(found, terminal(), with_payloads=options.payloads):
        print(line)


def _not_found(source: Source, name: str | None) -> str:
    return (
        f"no trace{'' if name is None else f' of {printable(name)}'} in {source.where}. Traces may be off "
        "(telemetry.traces in dspy.config.yaml), this call may not have been sampled (telemetry.sample; failed and "
        "slow calls are always kept), it may still be running, or its spans are still on their way: try again in a "
        "few seconds. `dspy-lambda logs --request ID` shows a call's log record without traces."
    )
