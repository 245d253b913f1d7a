"""Shows calls as lines come in, then the totals."""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dspy_lambda_infra.logs.calls import CallTable, cells
from dspy_lambda_infra.logs.histogram import histogram
from dspy_lambda_infra.logs.own_lines import OwnLines
from dspy_lambda_infra.logs.records import Record, Unreadable, entry, payloads, read
from dspy_lambda_infra.logs.report import Report
from dspy_lambda_infra.logs.selection import Selection
from dspy_lambda_infra.logs.summary import summary
from dspy_lambda_infra.logs.totals import Totals
from dspy_lambda_infra.payloads import payload_lines
from dspy_lambda_infra.terminal import Terminal, printable, terminal

_DEFAULT_ROWS = 50
# A record with its line, and its call's own entries with their lines.
_Own = list[tuple[dict[str, Any], bytes]]


@dataclass(frozen=True)
class Options:
    """What to read and how to show it.

    Attributes:
        source: a file, - for standard input, None to choose.
        stack: a deployed stack; takes the place of `source`.
        follow: whether to wait for new lines.
        limit: the number of last calls to show, or with `follow` to wait for; None for the default.
        own_lines: whether to show what the programs printed and logged.
        payloads: whether to show the inputs and outputs that records have.
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
    payloads: bool = False
    as_json: bool = False
    html: Path | None = None


class View:
    """Counts and shows lines as they come; ends with the totals.

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
        self._last: deque[tuple[Record, bytes, _Own]] = deque(maxlen=rows)
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

    def _show(self, record: Record, line: bytes, own: _Own) -> None:
        if self._options.as_json:
            if self._options.follow or self._options.limit is None:
                self._write(line, own)
            else:
                self._last.append((record, line, own))
        elif self._scrolling:
            print(self._scrolling.row(record))
            self._print_below(line, own)
            sys.stdout.flush()
        elif self._last.maxlen:
            self._last.append((record, line if self._options.payloads else b"", own))

    def _write(self, line: bytes, own: _Own) -> None:
        out = sys.stdout.buffer
        for text in [*(text for _, text in own), line]:
            out.write(text.rstrip(b"\n") + b"\n")
        if self._options.follow:
            out.flush()

    def _print_below(self, line: bytes, own: _Own) -> None:
        """Print a call's own lines and payloads."""
        texts = []
        for found, _ in own:
            level, message = str(found.get("level", "INFO")), str(found.get("message", ""))
            texts.append(printable(message if level == "INFO" else f"{level}: {message}"))
        if self._options.payloads:
            for name, value in payloads(entry(line) or {}):
                texts += [f"{name}:", *(f"  {text}" for text in payload_lines(value))]
        for text in texts:
            print(f"    {self._terminal.color(text, 'dim')}")

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
        table = CallTable(self._terminal, [cells(record) for record, *_ in self._last])
        print(table.header())
        for record, line, own in self._last:
            print(table.row(record))
            self._print_below(line, own)
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
