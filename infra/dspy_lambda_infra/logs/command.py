"""`dspy-lambda logs`."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.logs import sources
from dspy_lambda_infra.logs.calls import HEADER, CallTable, cells
from dspy_lambda_infra.logs.histogram import histogram
from dspy_lambda_infra.logs.own_lines import OwnLines
from dspy_lambda_infra.logs.records import Record, Unreadable, entry, read
from dspy_lambda_infra.logs.report import Report
from dspy_lambda_infra.logs.selection import Selection
from dspy_lambda_infra.logs.summary import summary
from dspy_lambda_infra.logs.totals import Totals
from dspy_lambda_infra.progress import progress
from dspy_lambda_infra.terminal import Terminal, printable, terminal, write_any_text

_DEFAULT_ROWS = 50


@dataclass(frozen=True)
class Options:
    """What to read and how to show it.

    Attributes:
        source: a file, - for standard input, None to choose.
        stack: a deployed stack; takes the place of `source`.
        follow: whether to wait for new lines.
        limit: the number of last calls to show, or with `follow` to wait for; None for the default.
        own_lines: whether to show what the programs printed and logged.
        as_json: whether to write selected lines unchanged, and nothing else.
        html: the file for the report.
    """

    project: Path
    source: str | None = None
    stack: str | None = None
    region: str | None = None
    follow: bool = False
    limit: int | None = None
    own_lines: bool = False
    as_json: bool = False
    html: Path | None = None


def run_logs(options: Options, selection: Selection) -> int:
    """Read log lines and show calls and totals. Return 0; 1 if the source cannot be read; 130 after Ctrl-C.

    Ctrl-C ends reading: what was read until then is summed and reported all the same.

    Raises:
        ConfigError: a file cannot be read or written.
    """
    if options.html:
        _check_writable(options.html)
    write_any_text()
    view = _View(options, selection)
    status = 0
    try:
        for line in _lines(options, selection):
            if view.add(line):
                break
    except KeyboardInterrupt:
        status = 130
    except Exception as error:
        if not _is_unavailable(error):
            raise
        print(f"dspy-lambda: {error}", file=sys.stderr)
        status = 1
        if not view.totals.all.calls:
            return status
    view.finish()
    return status


def _is_unavailable(error: Exception) -> bool:
    if isinstance(error, sources.NotRunning):
        return True
    module = sys.modules.get("dspy_lambda_infra.cloudwatch")  # takes boto3: only imported if it was needed
    return module is not None and isinstance(error, module.CloudWatchUnavailable)


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
        return sources.split(sys.stdin.buffer)
    return sources.from_local(options.project, follow=follow, since=since)


def _check_writable(path: Path) -> None:
    """Fail before a million lines have been read, not after."""
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}.") from None


class _View:
    """Counts and shows lines as they come.

    Attributes:
        totals: of the selected calls.
    """

    def __init__(self, options: Options, selection: Selection) -> None:
        self.totals = Totals()
        self._options = options
        self._selection = selection
        self._terminal: Terminal = terminal()
        self._report = Report() if options.html else None
        self._own = OwnLines()
        self._scrolling = CallTable(self._terminal) if options.follow and not options.as_json else None
        rows = options.limit if options.limit is not None else None if options.as_json else _DEFAULT_ROWS
        self._last: deque[tuple[Record, bytes, list[tuple[dict[str, Any], bytes]]]] = deque(maxlen=rows)
        self._others = self._unreadable = 0
        if self._scrolling:
            print(self._scrolling.header(), flush=True)

    def add(self, line: bytes) -> bool:
        """Add a line; return whether it was the last one to wait for."""
        try:
            record = read(line)
        except Unreadable:
            self._unreadable += 1
            return False
        if record is None:
            self._add_other(line)
            return False
        own = self._own.take(record.ids[0], record.ids[1]) if self._options.own_lines else []
        if not self._selection.has(record):
            return False
        self.totals.add(record)
        if self._report:
            self._report.add(record)
        self._show(record, line, own)
        return self._options.follow and self.totals.all.calls == self._options.limit

    def _add_other(self, line: bytes) -> None:
        found = entry(line) if self._options.own_lines else None
        if not line.isspace() and not (found and self._own.add(found, line)):
            self._others += 1

    def _show(self, record: Record, line: bytes, own: list[tuple[dict[str, Any], bytes]]) -> None:
        if self._options.as_json:
            if self._options.follow or self._options.limit is None:
                self._write(line, own)
            else:
                self._last.append((record, line, own))
        elif self._scrolling:
            print(self._scrolling.row(record), flush=True)
            self._print_own(own)
        elif self._last.maxlen:
            self._last.append((record, line if self._options.as_json else b"", own))

    def _write(self, line: bytes, own: list[tuple[dict[str, Any], bytes]]) -> None:
        out = sys.stdout.buffer
        for text in [*(text for _, text in own), line]:
            out.write(text.rstrip(b"\n") + b"\n")
        if self._options.follow:
            out.flush()

    def _print_own(self, own: list[tuple[dict[str, Any], bytes]]) -> None:
        for found, _ in own:
            level = str(found.get("level", "INFO"))
            text = printable(str(found.get("message", "")))
            extra = "" if level == "INFO" else f"{printable(level)}: "
            print(f"    {self._terminal.color(extra + text, 'dim')}")

    def finish(self) -> None:
        """Show the last calls, the totals and what was skipped, and write the report."""
        with contextlib.suppress(KeyboardInterrupt):
            if self._options.as_json:
                for _, line, own in self._last:
                    self._write(line, own)
                sys.stdout.flush()
            else:
                self._print_calls()
                self._print_totals()
        if self._report and self._options.html:
            self._options.html.write_text(self._report.html(self.totals), encoding="utf-8")
            print(f"wrote {self._options.html}", file=sys.stderr)
        self._print_skipped()

    def _print_calls(self) -> None:
        if self._scrolling or not self._last:
            return
        table = CallTable(self._terminal, [cells(record) for record, *_ in self._last] or [HEADER])
        print(table.header())
        for record, _, own in self._last:
            print(table.row(record))
            self._print_own(own)
        if self.totals.all.calls > len(self._last):
            print(f"... the last {len(self._last):,} of {self.totals.all.calls:,} calls; --limit shows more")

    def _print_totals(self) -> None:
        if not self.totals.all.calls and not self.totals.all.outside:
            print("no calls")
            return
        print()
        for line in summary(self.totals, self._terminal):
            print(line)
        print()
        for line in histogram(self.totals.all.durations, self._terminal):
            print(line)

    def _print_skipped(self) -> None:
        if self._others:
            print(f"skipped {self._others:,} other lines", file=sys.stderr)
        if self._unreadable:
            print(f"skipped {self._unreadable:,} unreadable lines of calls: cut, or changed", file=sys.stderr)
        if self._own.dropped:
            print(f"left out {self._own.dropped:,} of the programs' own lines: too many", file=sys.stderr)
