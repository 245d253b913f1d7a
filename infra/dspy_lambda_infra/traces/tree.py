"""Arranges spans as trees."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from dspy_lambda_infra.traces.spans import Span


@dataclass
class Node:
    """A span with the spans within it, in the order of their start.

    Attributes:
        is_parallel: whether another span of the same parent ran at the same time.
    """

    span: Span
    children: list[Node] = field(default_factory=list)
    is_parallel: bool = False

    def walk(self) -> Iterator[Span]:
        """Yield this span and all within it, parents first."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node.span
            waiting += reversed(node.children)


def trees(spans: Iterable[Span]) -> list[Node]:
    """Return a tree for each span whose parent is not among the spans, in the order of their start.

    Spans that arrived twice count once. One of spans that name each other as parents becomes the first of a tree.
    """
    nodes = {(span.trace_id, span.span_id): Node(span) for span in spans}
    ordered = sorted(nodes.values(), key=lambda node: node.span.start_ns)
    roots = []
    for node in ordered:
        parent = nodes.get((node.span.trace_id, node.span.parent_id))
        if parent is None or parent is node:
            roots.append(node)
        else:
            parent.children.append(node)
    reached = {id(span) for root in roots for span in root.walk()}
    for node in ordered:
        if id(node.span) not in reached:
            for other in ordered:
                other.children = [child for child in other.children if child is not node]
            roots.append(node)
            reached |= {id(span) for span in node.walk()}
    for node in ordered:
        _mark_parallel(node.children)
    return roots


def _mark_parallel(siblings: list[Node]) -> None:
    """Mark those that overlap, in one pass: they are in the order of their start."""
    latest, end = None, 0.0
    for node in siblings:
        if latest is not None and node.span.start_ns < end:
            node.is_parallel = latest.is_parallel = True
        own_end = node.span.end_ns or math.inf
        if own_end > end:
            latest, end = node, own_end


def call(spans: Iterable[Span], name: str) -> list[Span]:
    """Return the spans of one call: those that carry an id, and all within them; the whole trace for a trace id.

    A trace id may also be X-Ray's, 1-...-...; other ids may be cut after the eighth character, as `logs` shows them.
    """
    known = list(spans)
    wanted = trace_id(name)
    if whole := [span for span in known if span.trace_id == wanted]:
        return whole
    for matches in (lambda one: one == name, lambda one: len(name) >= 8 and one.startswith(name)):
        named = {(s.trace_id, s.span_id) for s in known if any(map(matches, s.ids))}
        if named:
            return _within(known, named)
    return []


def _within(spans: list[Span], named: set[tuple[str, str]]) -> list[Span]:
    """Return these spans and their descendants."""
    found: dict[tuple[str, str], Span] = {}
    inside: list[tuple[Node, bool]] = [(node, False) for node in trees(spans)]
    while inside:
        node, within = inside.pop()
        key = node.span.trace_id, node.span.span_id
        within = within or key in named
        if within:
            found[key] = node.span
        inside += [(child, within) for child in node.children]
    return sorted(found.values(), key=lambda span: span.start_ns)


def trace_id(text: str) -> str:
    """Return an OpenTelemetry trace id, also from X-Ray's form 1-5759e988-bd862e3fe1be46a994272793."""
    version, _, rest = text.lower().removeprefix("root=").partition("-")
    return rest.replace("-", "") if version == "1" and len(rest) == 33 else text.lower()
