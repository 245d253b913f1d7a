"""The trace of each invocation: its first spans, and what is kept of it when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dspy_lambda.call import UNKNOWN
from dspy_lambda.telemetry.traces.callers import caller_of, senders_of
from dspy_lambda.telemetry.traces.context import Incoming, from_headers
from dspy_lambda.telemetry.traces.spans import CONSUMER, INTERNAL, SERVER, Span, Trace, error_word

if TYPE_CHECKING:
    from dspy_lambda.call import Call
    from dspy_lambda.config import Config
    from dspy_lambda.config.telemetry import Telemetry as Rules
    from dspy_lambda.invocation import Invocation

# https://opentelemetry.io/docs/specs/semconv/faas/faas-spans/#faas-trigger
_TRIGGERS = {"sqs": "pubsub", "direct": "other"}
# Required of spans of messages, with their type, if there is one.
# https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/messaging/messaging-spans.md
_PROCESS = {
    "messaging.system": "aws_sqs",
    "messaging.operation.name": "process",
    "messaging.operation.type": "process",
}
# A trace id's last 56 bits are random, in W3C's and in X-Ray's. https://www.w3.org/TR/trace-context-2/#random-trace-id-flag
_RANDOM_DIGITS = 14
_NOT_FAILED = ("success", "invalid_input")


class Tracer:
    """Collects the spans of each invocation, and passes on those of traces that are kept.

    Args:
        config: its `telemetry` sections say what is kept.
        program: the one program that this environment serves, if there is only one.
        export: receives the spans of each kept trace; None if spans are collected for metrics alone. Must not block.
        take_dropped: returns the number of spans that could not be exported since it was last called.
        keeps_all: whether to keep every trace, whatever the config says.

    Attributes:
        collects: whether spans keep inputs and outputs for the programs' payload rules.
    """

    def __init__(
        self,
        config: Config,
        export: Callable[[list[Span]], None] | None,
        take_dropped: Callable[[], int] = int,
        *,
        program: str | None = None,
        keeps_all: bool = False,
    ) -> None:
        self.collects = False
        self._config = config
        self._program = program
        self._export = export
        self._take_dropped = take_dropped
        self._keeps_all = keeps_all

    def begin(self, invocation: Invocation, event: Any, context: Any, environ: Mapping[str, str]) -> None:
        """Start an invocation's trace, which continues its caller's."""
        self._begin(invocation, caller_of(event, context, environ), event)

    def begin_request(self, invocation: Invocation, headers: Mapping[str, str]) -> None:
        """Start the trace of a request to `serve`."""
        self._begin(invocation, from_headers(headers), None)

    def _begin(self, invocation: Invocation, caller: Incoming | None, event: Any) -> None:
        trace = Trace(*(caller or ()))
        source = invocation.source
        attributes: dict[str, Any] = {
            "faas.invocation_id": invocation.request_id,
            "faas.trigger": _TRIGGERS.get(source, "http"),
            "faas.coldstart": invocation.cold_start,
            "dspy_lambda.source": source,
        }
        if invocation.correlation_id:
            attributes["dspy_lambda.correlation_id"] = invocation.correlation_id
        kind = CONSUMER if source == "sqs" else SERVER
        rules = self._config.lambda_.function(self._program or "").telemetry
        decided = self._decided(trace, rules)
        trace.hands_on_sampled = _is_sampled(trace, rules) if decided is None else decided
        trace.offset_ns = time.time_ns() - time.monotonic_ns()
        name = "process batch" if source == "sqs" else "invoke"
        trace.root = trace.start(name, kind, trace.parent_id, attributes, _wall(trace, invocation.started))
        if source == "sqs":
            attributes |= _PROCESS
            trace.senders = senders_of(event)
        trace.collects = self.collects
        invocation.trace = trace

    def start_call(self, call: Call) -> None:
        """Start the span of a call whose program is about to run; within it, that of its record."""
        trace = call.invocation.trace
        if trace is None or call.span is not None:
            return
        started = _wall(trace, call.started)
        record = None if call.message_id is None else self._record(trace, call, started)
        parent = record or trace.root
        about = {"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": call.program}
        call.span = parent.child(f"invoke_workflow {call.program}", INTERNAL, about, started)
        call.span.program, call.span.call_id = call.program, call.span.span_id
        if record is not None:
            trace.records[call.span.span_id] = record

    def _record(self, trace: Trace, call: Call, started: int) -> Span:
        about = _PROCESS | {"messaging.message.id": call.message_id or ""}
        span = trace.root.child("process record", CONSUMER, about, started)
        if sender := trace.senders.get(call.message_id or ""):
            span.links = (sender,)
        return span

    def settle(self, call: Call, cause: BaseException | None) -> None:
        """End a call's span with its outcome; a call that never ran gets one, too.

        Args:
            cause: the exception to name for an error of the program or its model.
        """
        self.start_call(call)
        span, usage = call.span, call.usage
        if span is None:
            return
        trace, attributes = span.trace, span.attributes
        attributes |= {
            "dspy_lambda.outcome": call.outcome,
            "dspy_lambda.input_tokens": usage.input_tokens,
            "dspy_lambda.output_tokens": usage.output_tokens,
            "dspy_lambda.lm_calls": usage.lm_calls,
            "dspy_lambda.cache_hits": usage.cache_hits,
        }
        if call.model is not None:
            attributes["dspy_lambda.model"] = call.model
        if usage.cost_usd is not None:
            attributes["dspy_lambda.cost_usd"] = round(usage.cost_usd, 10)
        if trace.collects:
            span.payload = {"dspy_lambda.inputs": call.inputs, "dspy_lambda.outputs": call.result}
        failed = call.error if cause is None else cause
        error = None if failed is None else error_word(failed)
        span.end(error, _wall(trace, call.started) + int(call.duration_ms * 1e6))
        if call.message_id is not None:
            attributes["dspy_lambda.message_id"] = call.message_id
            trace.records[span.span_id].end(error, span.end_ns)

    def finish(self, invocation: Invocation) -> Trace | None:
        """End an invocation's trace, and export it if it is kept; return it for metrics."""
        trace = invocation.trace
        if trace is None:
            return None
        now = time.time_ns()
        calls = list(invocation.calls.values())
        failed = next((call for call in calls if call.error is not None and call.outcome not in _NOT_FAILED), None)
        root = trace.root
        if len(calls) == 1 and root.kind == SERVER:
            root.name = f"POST /{calls[0].program}" if invocation.source != "direct" else f"invoke {calls[0].program}"
        root.end(None if failed is None or failed.span is None else failed.span.error, now)
        for span in list(trace.spans):
            if not span.end_ns:
                span.end("unfinished", now)
        trace.closed = True
        if self._export is not None and self._is_kept(invocation, trace, failed is not None):
            self._export(trace.spans)
        else:
            for span in trace.spans:  # a thread that outlives its call may keep one, and with it all others
                span.payload = None
        if dropped := trace.left_out + self._take_dropped():
            programs = {call.program for call in calls}
            invocation.counts["DroppedSpans", programs.pop() if len(programs) == 1 else UNKNOWN] += dropped
        return trace

    def _is_kept(self, invocation: Invocation, trace: Trace, failed: bool) -> bool:
        if not invocation.calls:  # a health check, or a page that is not there
            return False
        programs = {call.program for call in invocation.calls.values()}
        program = next(iter(programs)) if len(programs) == 1 else ""
        function = self._config.lambda_.function(program)
        if function.telemetry.traces == "none" and not self._keeps_all:  # another program's are exported
            return False
        if (decided := self._decided(trace, function.telemetry)) is not None:
            return decided
        is_slow = (trace.root.end_ns - trace.root.start_ns) / 1e9 >= function.slow_seconds
        return failed or is_slow or _is_sampled(trace, function.telemetry)

    def _decided(self, trace: Trace, rules: Rules) -> bool | None:
        """Return what was decided before the invocation began; None if nothing was."""
        if self._keeps_all:
            return True
        return trace.sampled if rules.incoming == "respect" else None


def _is_sampled(trace: Trace, rules: Rules) -> bool:
    """Decide by the ratio: the same for all services that the trace passes through."""
    return bool(int(trace.trace_id[-_RANDOM_DIGITS:], 16) < rules.sample * 16**_RANDOM_DIGITS)


def _wall(trace: Trace, monotonic: float) -> int:
    """Convert seconds of `time.monotonic()` to nanoseconds since the epoch, by the clocks at the trace's beginning."""
    return int(monotonic * 1e9) + trace.offset_ns
