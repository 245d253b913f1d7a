"""Spans of one invocation, collected while it runs; what happens to them is decided when it ends.

Names and attributes follow OpenTelemetry's semantic conventions 1.41.0, https://github.com/open-telemetry/
semantic-conventions/tree/v1.41.0/docs/gen-ai ("Development": later versions may rename them), where these name
something; what they do not name begins with `dspy_lambda.`.
"""

from __future__ import annotations

import os
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from dspy_lambda.introspection import class_name

if TYPE_CHECKING:
    from dspy_lambda.usage import Answer

SEMANTIC_CONVENTIONS = "https://opentelemetry.io/schemas/1.41.0"
# Of one invocation: a batch of 10,000 records would otherwise keep some 40 MB until it ends.
MAX_SPANS = 10_000

# https://opentelemetry.io/docs/specs/otel/trace/api/#spankind, as OTLP numbers them.
INTERNAL, SERVER, CLIENT, CONSUMER = 1, 2, 3, 5
# `gen_ai.operation.name` of an LM call.
CHAT, TEXT_COMPLETION = "chat", "text_completion"
# `Span.error` of what has no useful class of its own.
_ERROR_WORDS = {"CancelledError": "canceled"}


class Span:
    """One timed step. Not thread-safe, and not meant to be: each belongs to the task or thread that runs the step.

    Attributes:
        trace: the trace that it belongs to.
        parent_id: the 16 hexadecimal digits of its parent's id; None for the first span of a trace.
        start_ns, end_ns: nanoseconds since the epoch; `end_ns` is 0 while it runs.
        attributes: by name; a value is a str, bool, int, float or a list of one of these.
        error: the failure's class name, or a shorter word for it; None if it did not fail.
        links: trace id and span id of spans that caused this one, such as an SQS message's sender.
        payload: inputs, outputs or messages that rules may still change or remove, by attribute; None for nothing.
        program: the program whose call it belongs to; None above its calls.
        call_id: the id of that call's span.
        attempts: start, end and error of each attempt of an LM call.
        answers: input tokens, output tokens, cost in USD (None if unknown) and whether the cache answered, for each
            answer of an LM call or embedding; several threads may add to it.
    """

    __slots__ = (
        "answers",
        "attempts",
        "attributes",
        "call_id",
        "end_ns",
        "error",
        "kind",
        "links",
        "name",
        "parent_id",
        "payload",
        "program",
        "span_id",
        "start_ns",
        "trace",
    )

    def __init__(
        self, trace: Trace, name: str, kind: int, parent_id: str | None, attributes: dict[str, Any], start_ns: int = 0
    ) -> None:
        self.trace = trace
        self.span_id = os.urandom(8).hex()  # as fast as `random`, and unlike it never the same in two forks or restores
        self.parent_id = parent_id
        self.name = name
        self.kind = kind
        self.attributes = attributes
        self.error: str | None = None
        self.links: tuple[tuple[str, str], ...] = ()
        self.payload: dict[str, Any] | None = None
        self.program: str | None = None
        self.call_id: str | None = None
        self.attempts: list[tuple[int, int, str | None]] = []
        self.answers: list[tuple[int, int, float | None, bool]] = []
        self.end_ns = 0
        self.start_ns = start_ns or time.time_ns()

    def child(self, name: str, kind: int, attributes: dict[str, Any], start_ns: int = 0) -> Span:
        """Start a span within this one."""
        span = self.trace.start(name, kind, self.span_id, attributes, start_ns)
        span.program, span.call_id = self.program, self.call_id
        return span

    def note(self, answer: Answer) -> None:
        """Count an answer of the LM call or embedding that this span times."""
        if self.kind == CLIENT:
            self.answers.append((answer.input_tokens, answer.output_tokens, answer.cost_usd, answer.cache_hit))

    def end(self, error: str | None = None, end_ns: int = 0) -> None:
        """End the span; a later call changes nothing. An abandoned one was ended with its invocation."""
        if not self.end_ns:
            self.error = error or self.error
            # The wall clock may be set back meanwhile.
            self.end_ns = max(end_ns or time.time_ns(), self.start_ns)


class Trace:
    """The spans of one invocation, and where it comes from.

    Attributes:
        trace_id: 32 hexadecimal digits.
        parent_id: the caller's span, 16 hexadecimal digits; None if this invocation starts the trace.
        sampled: the caller's decision to keep the trace or not; None if it made none.
        hands_on_sampled: what services called from here are told to decide.
        spans: in order of their start.
        left_out: the number of spans above the maximum.
        closed: whether the invocation has ended: spans that end later are not changed.
        collects: whether spans keep their payloads until rules decide what of them is written.
        root: the invocation's span.
        offset_ns: the wall clock minus the monotonic one.
        records: the span of a call's SQS record, by the call's span id.
        senders: the trace and span that sent each SQS record, by message id.
    """

    __slots__ = (
        "closed",
        "collects",
        "hands_on_sampled",
        "left_out",
        "offset_ns",
        "parent_id",
        "records",
        "root",
        "sampled",
        "senders",
        "spans",
        "trace_id",
        "tracestate",
    )
    root: Span

    def __init__(
        self,
        trace_id: str | None = None,
        parent_id: str | None = None,
        sampled: bool | None = None,
        tracestate: str = "",
    ) -> None:
        self.trace_id = trace_id or new_trace_id()
        self.parent_id = parent_id
        self.sampled = sampled
        self.tracestate = tracestate
        self.hands_on_sampled = sampled is not False
        self.spans: list[Span] = []
        self.left_out = 0
        self.closed = False
        self.collects = False
        self.offset_ns = 0
        self.records: dict[str, Span] = {}
        self.senders: dict[str, tuple[str, str]] = {}

    def start(self, name: str, kind: int, parent_id: str | None, attributes: dict[str, Any], start_ns: int = 0) -> Span:
        """Start a span."""
        span = Span(self, name, kind, parent_id, attributes, start_ns)
        if self.closed or len(self.spans) >= MAX_SPANS:
            self.left_out += 1
        else:
            self.spans.append(span)
        return span


def new_trace_id() -> str:
    """Return a trace id that X-Ray also accepts: the first 8 digits are seconds since the epoch.

    https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sendingdata.html#xray-api-traceids
    """
    return f"{int(time.time()) & 0xFFFFFFFF:08x}{os.urandom(12).hex()}"


# The span that this task or thread works for. A new task and a thread with the call's context begin with their
# creator's, so steps side by side have the same parent.
SPAN: ContextVar[Span | None] = ContextVar("dspy_lambda_span", default=None)


def leave(span: Span, parent: Span | None) -> None:
    """Make the parent the current span again, after a step that this context or another one has begun.

    A generator that a program keeps ends its step whenever it is closed, perhaps in a later call, whose span must stay.
    """
    current = SPAN.get()
    if current is not None and current.trace is span.trace and current.call_id == span.call_id:
        SPAN.set(parent)


def note(answer: Answer) -> None:
    """Count an answer on the span of the LM call or embedding that this thread or task makes, if there is one."""
    if (span := SPAN.get()) is not None:
        span.note(answer)


def error_word(error: BaseException) -> str:
    """Return the low-cardinality word for a failure: its class's name."""
    name = class_name(type(error))
    return _ERROR_WORDS.get(name, name)


def span_ids() -> dict[str, str]:
    """Return the log fields of the span that this thread or task works for; empty if there is none."""
    span = SPAN.get()
    return {} if span is None else {"trace_id": span.trace.trace_id, "span_id": span.span_id}
