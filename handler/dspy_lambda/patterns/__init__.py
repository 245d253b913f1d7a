"""Fan-outs with a limit, a deadline and partial results, and retries: for programs, scripts, tests and notebooks.

    views = await fan_out({"lawyer": lawyer, "engineer": engineer}, question=question)
    views.require(1)
    views.answers["engineer"].opinion

`fan_out` gives the same inputs to several modules, `map_inputs` several inputs to one module, and `retry` calls one
module again after a transient error. Each has a variant for `forward` that ends in `_sync`. `Limits` says how many run
at once, until when, and how often. Within a call of dspy-lambda, all of it ends before the call's deadline.
"""

from __future__ import annotations

from dspy_lambda.patterns.in_threads import fan_out_sync, map_inputs_sync, retry_sync
from dspy_lambda.patterns.limits import Limits
from dspy_lambda.patterns.on_loop import fan_out, map_inputs, retry
from dspy_lambda.patterns.outcomes import Failure, Outcomes, TooFewAnswers

__all__ = [
    "Failure",
    "Limits",
    "Outcomes",
    "TooFewAnswers",
    "fan_out",
    "fan_out_sync",
    "map_inputs",
    "map_inputs_sync",
    "retry",
    "retry_sync",
]
