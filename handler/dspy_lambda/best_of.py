"""`dspy.Refine` and `dspy.BestOfN`, where many calls share one process and records are lost if they count as done."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

from dspy.predict import best_of_n, refine

from dspy_lambda.provider_bounds import Patch
from dspy_lambda.telemetry.calls import CALL


def keep_apart(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` of both: on a copy for each call, and failed where the model failed every attempt.

    DSPy counts the failures that it tolerates down in the module itself: what one call used up, all later ones lack.
    And it returns None where all attempts failed within that count, which an outage's record would be done with.
    """

    def run(self: Any, **inputs: Any) -> Any:
        call = CALL.get()
        before = None if call is None else call.lm_error
        found = forward(copy.copy(self), **inputs)
        if found is None and call is not None and call.lm_error is not None and call.lm_error is not before:
            raise call.lm_error
        return found

    return run


def log_failed_attempts() -> None:
    """Let DSPy log what it prints of a failed attempt: an exception's text, held to the rule for texts of DSPy's."""
    for module in (best_of_n, refine):
        module.print = logging.getLogger(module.__name__).warning


PATCHES = (
    (
        Patch("dspy.predict.best_of_n", "BestOfN.forward", "self kwargs", keep_apart),
        Patch("dspy.predict.refine", "Refine.forward", "self kwargs", keep_apart),
    ),
)
