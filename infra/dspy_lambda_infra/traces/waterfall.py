"""Draws a call's tree: a line for each span, with its bar on a common time axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from dspy_lambda_infra.terminal import Terminal, columns, cut, pad, printable, wrap
from dspy_lambda_infra.traces.details import details, payloads
from dspy_lambda_infra.traces.spans import Span
from dspy_lambda_infra.traces.tree import Node, trees

_TIME = 9  # "59,999 ms", or "1,234.5 s"
_LEAST_BAR, _BAR, _MOST_BAR = 4, 16, 40
_LEAST_DETAILS = 30
_MAX_NAME = 200


@dataclass(frozen=True)
class _Signs:
    """The characters to draw with."""

    fork: str
    last: str
    line: str
    bar: str
    open_end: str
    parallel: str
    cut: str


_BOXES = _Signs("├─ ", "└─ ", "│  ", "█", "▒", "∥ ", "…")
_ASCII = _Signs("|- ", "`- ", "|  ", "=", "~", "& ", "~")


@dataclass(frozen=True)
class _Row:
    tree: str  # the lines before the name
    below: str  # the lines before what is shown below it
    node: Node


def waterfall(spans: Sequence[Span], terminal: Terminal, *, with_payloads: bool = False) -> Iterator[str]:
    """Yield the lines for one call's spans.

    A mark before a name (∥, or &) shows that another step of the same parent ran at the same time. A span without an
    end is drawn until the last end that is known.
    """
    roots = trees(spans)
    signs = _BOXES if terminal.unicode else _ASCII
    rows = [row for root in roots for row in _rows(root, "", "", signs)]
    begin = min(span.start_ns for span in spans)
    end = max(max(span.end_ns, span.start_ns) for span in spans)
    canvas = _Canvas(terminal, signs, rows, begin, end)
    yield from _title(roots, begin, end, len(rows), terminal)
    for row in rows:
        yield from canvas.lines(row)
        if with_payloads:
            yield from _payload_lines(row, terminal)


def _title(roots: list[Node], begin: int, end: int, count: int, terminal: Terminal) -> Iterator[str]:
    first = roots[0].span
    parts = [f"trace {printable(first.trace_id[:_MAX_NAME])}"]
    if request := first.attributes.get("faas.invocation_id"):
        parts.append(f"request {printable(str(request)[:_MAX_NAME])}")
    if function := first.resource.get("faas.name"):
        parts.append(printable(str(function)[:_MAX_NAME]))
    parts += [_clock(begin), milliseconds(end - begin), f"{count:,} span{'s' if count != 1 else ''}"]
    for line in _joined(parts, terminal.width, "  "):
        yield terminal.color(line, "bold")


def _rows(node: Node, tree: str, below: str, signs: _Signs) -> Iterator[_Row]:
    """Yield a node's row and those within it; deep trees need no recursion."""
    waiting = [(node, tree, below)]
    while waiting:
        node, tree, below = waiting.pop()
        yield _Row(tree, below + (signs.line if node.children else "   "), node)
        last = len(node.children) - 1
        children = [
            (
                child,
                below + (signs.last if number == last else signs.fork),
                below + ("   " if number == last else signs.line),
            )
            for number, child in enumerate(node.children)
        ]
        waiting += reversed(children)


class _Canvas:
    """The columns: name, bar, start, duration, details."""

    def __init__(self, terminal: Terminal, signs: _Signs, rows: list[_Row], begin: int, end: int) -> None:
        self._terminal = terminal
        self._signs = signs
        self._begin = begin
        self._length = max(end - begin, 1)
        names = max(columns(row.tree + self._name(row.node)) for row in rows)
        width = terminal.width
        self._names = min(names, max(int(width * 0.4), 16), width - 2 * _TIME - 3 * 2 - _LEAST_BAR)
        rest = width - self._names - 2 * _TIME - 4 * 2  # for bar and details
        # Beside the bars if there is room, otherwise below.
        self._beside = rest >= _BAR + _LEAST_DETAILS
        self._bar = min(_MOST_BAR, rest * 2 // 5 if self._beside else rest + 2)
        self._details = rest - self._bar if self._beside else width
        self._indent = " " * (self._names + self._bar + 2 * _TIME + 4 * 2)

    def _name(self, node: Node) -> str:
        mark = self._signs.parallel if node.is_parallel else ""
        return mark + printable(node.span.name[:_MAX_NAME])

    def lines(self, row: _Row) -> Iterator[str]:
        """Yield a span's line, and further ones if its details do not fit."""
        span = row.node.span
        name = pad(cut(row.tree + self._name(row.node), self._names, self._signs.cut), self._names)
        times = f"{milliseconds(span.start_ns - self._begin):>{_TIME}}  {_duration(span):>{_TIME}}"
        bar = self._terminal.color(self._draw(span), _color(span))
        texts = list(details(span))
        if self._beside:
            first, *more = _joined(texts, self._details) or [""]
            yield f"{name}  {bar}  {times}  {first}".rstrip()
            below = pad(cut(row.below, self._names, ""), len(self._indent))
        else:
            yield f"{name}  {bar}  {times}"
            below = f"{cut(row.below, self._names, '')}  "
            more = _joined(texts, max(self._details - len(below), _BAR))
        yield from (f"{below}{text}" for text in more)

    def _draw(self, span: Span) -> str:
        """Return the bar, at least one character long."""
        end = span.end_ns or self._begin + self._length
        first = min((span.start_ns - self._begin) * self._bar // self._length, self._bar - 1)
        last = max(-(-(end - self._begin) * self._bar // self._length), first + 1)
        sign = self._signs.open_end if span.is_unfinished else self._signs.bar
        return pad(" " * first + sign * (min(last, self._bar) - first), self._bar)


def _joined(texts: list[str], width: int, between: str = ", ") -> list[str]:
    """Return lines with as many texts as fit in each."""
    lines: list[str] = []
    for text in texts:
        if lines and columns(lines[-1] + between + text) <= width:
            lines[-1] += between + text
        else:
            lines += wrap(text, width)
    return lines


def _payload_lines(row: _Row, terminal: Terminal) -> Iterator[str]:
    indent = cut(row.below, terminal.width // 3, "")
    for title, lines in payloads(row.node.span):
        yield terminal.color(f"{indent}{title}", "dim")
        for line in lines:
            for part in wrap(line, terminal.width - columns(indent) - 2):
                yield f"{indent}  {part}".rstrip()


def _color(span: Span) -> str:
    return "red" if span.error else "yellow" if span.is_unfinished else "green"


def _duration(span: Span) -> str:
    return milliseconds(span.end_ns - span.start_ns) if span.end_ns else "?"


def milliseconds(nanoseconds: int) -> str:
    """Return a duration as milliseconds, or seconds from one minute on."""
    value = nanoseconds / 1e6
    if abs(value) >= 60_000:
        return f"{value / 1000:,.1f} s"
    return f"{value:,.0f} ms" if abs(value) >= 10 or not value else f"{value:.2g} ms"


def _clock(nanoseconds: int) -> str:
    try:
        return datetime.fromtimestamp(nanoseconds / 1e9).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "-"
