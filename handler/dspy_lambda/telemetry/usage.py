"""What the LM calls of one program call used: tokens, cost, cache hits."""

from __future__ import annotations

import threading
from typing import Any

import dspy

from dspy_lambda.dspy_patches import receive_history

SETTING = "dspy_lambda_usage"


class Usage:
    """Totals of the LM calls that were answered within one program call.

    `cost_usd` is None once any answer's cost is unknown: a sum that leaves one out is no bill.
    """

    def __init__(self) -> None:
        self.lm_calls = 0
        self.cache_hits = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.cost_usd: float | None = 0.0
        self._lock = threading.Lock()  # one program call may run LM calls in threads (dspy.Parallel)

    def add(self, entry: dict[str, Any]) -> None:
        """Count one answered LM call from its DSPy history entry."""
        usage = entry["usage"]
        with self._lock:
            self.lm_calls += 1
            if not usage and _reports_usage(entry["response"]):
                # A cache hit: DSPy empties `usage`, leaves `cost` at what the first call had cost, and keeps the
                # answer, in which the provider's own figures still stand.
                self.cache_hits += 1
                return
            self.input_tokens += usage.get("prompt_tokens") or 0
            self.output_tokens += usage.get("completion_tokens") or 0
            cost = entry["cost"] if usage else None
            self.cost_usd = None if cost is None or self.cost_usd is None else self.cost_usd + cost


def _reports_usage(response: Any) -> bool:
    usage = response.get("usage") if isinstance(response, dict) else getattr(response, "usage", None)
    if usage is None:
        return False
    figures = (
        usage if isinstance(usage, dict) else {k: getattr(usage, k, None) for k in ("input_tokens", "prompt_tokens")}
    )
    return any(isinstance(figure, int) for figure in figures.values())


def install() -> None:
    """Count the answers of LMs that a program made itself for the call that is running."""
    receive_history(_update_history)


def _update_history(_lm: dspy.BaseLM, entry: dict[str, Any]) -> None:
    usage = dspy.settings.get(SETTING)
    if usage is not None:
        usage.add(entry)
