"""Note when the first part of a streamed answer arrives, on the span of its LM call.

Imported, and `FIRST_TOKEN` applied, only where traces or the metrics of models are on.
"""

from __future__ import annotations

import time

from dspy_lambda.dspy_patches.insides import EXECUTION
from dspy_lambda.dspy_patches.patch import Function, Name, Patch
from dspy_lambda.telemetry.traces.spans import CLIENT, SPAN

ATTRIBUTE = "dspy_lambda.time_to_first_token_ms"


def _noted(stream_emitted: Function) -> Function:
    """Wrap `stream_emitted`, which DSPy calls for each part that it passes on to a program's stream."""

    def emitted() -> None:
        stream_emitted()
        span = SPAN.get()
        if span is not None and span.kind == CLIENT and ATTRIBUTE not in span.attributes:
            span.attributes[ATTRIBUTE] = round((time.time_ns() - span.start_ns) / 1e6, 3)

    return emitted


FIRST_TOKEN = Patch(
    "the time to the first token",
    "the metric TimeToFirstToken; without it, it is absent",
    (
        Name(EXECUTION, "stream_emitted", "", wrap=_noted),
        Name("dspy.clients.lm", "stream_emitted", "", wrap=_noted),  # LMs of programs, and LiteLLM
    ),
)
