"""`dspy-lambda logs`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.logs import sources
from dspy_lambda_infra.logs.selection import Selection
from dspy_lambda_infra.logs.view import Options, View
from dspy_lambda_infra.progress import progress
from dspy_lambda_infra.terminal import write_any_text
from dspy_lambda_infra.unavailable import Unavailable


def run_logs(options: Options, selection: Selection) -> int:
    """Read log lines and show calls and totals. Return 0; 1 if the source cannot be read; 130 after Ctrl-C.

    Ctrl-C ends reading: what was read until then is summed and reported all the same.

    Raises:
        ConfigError: a file cannot be read or written.
    """
    if options.html:
        _check_writable(options.html)
    write_any_text()
    view = View(options, selection)
    status = 0
    try:
        for line in _lines(options, selection):
            if view.add(line):
                break
    except KeyboardInterrupt:
        status = 130
    except Unavailable as error:
        print(f"dspy-lambda: {error}", file=sys.stderr)
        status = 1
        if not view.totals.all.calls:
            return status
    view.finish()
    return status


def _lines(options: Options, selection: Selection) -> Iterator[bytes]:
    follow, since = options.follow, selection.since
    if options.stack is not None:
        progress(f"reading the logs of the stack {options.stack} ...")
        return sources.from_cloudwatch(
            options.stack,
            options.region,
            follow=follow,
            since=since,
            until=selection.until,
            all_lines=options.own_lines,
        )
    if options.source is not None and options.source != "-":
        return sources.from_file(Path(options.source), follow=follow)
    if options.source == "-" or sources.stdin_is_piped():
        progress("reading lines from standard input ...")
        sources.hint_at_idle_stdin(sys.stdin.buffer)
        return sources.split(sys.stdin.buffer)
    return sources.from_local(options.project, follow=follow, since=since)


def _check_writable(path: Path) -> None:
    """Fail before a million lines have been read, not after."""
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}.") from None
