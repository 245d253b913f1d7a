"""Collect the metrics of each model from the LM spans of one invocation."""

from __future__ import annotations

from collections.abc import Iterator

from dspy_lambda.call import UNKNOWN
from dspy_lambda.telemetry.metrics import MAX_VALUES, Values
from dspy_lambda.telemetry.traces.spans import CHAT, TEXT_COMPLETION, Span, Trace

# Each model of a program is up to 10 custom metrics of 0.30 USD a month; a program may make an LM for each customer.
MAX_MODELS = 20
OTHER = "other"
# "A dimension value ... must contain only ASCII characters, must include at least one non-whitespace character, and
# cannot start with a colon"; EMF's schema allows names of 255 characters.
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_Dimension.html
_MAX_LENGTH = 255
_EACH = {
    "TimeToFirstToken": "dspy_lambda.time_to_first_token_ms",
    "ModelInputTokens": "gen_ai.usage.input_tokens",
    "ModelOutputTokens": "gen_ai.usage.output_tokens",
    "ModelCostUSD": "dspy_lambda.cost_usd",
}


class ModelNames:
    """The models that have metrics: the first 20 of an environment; further ones are together `other`."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __call__(self, model: str) -> str:
        """Return the value of the dimension `model`."""
        name = model.encode("ascii", "replace").decode().strip().lstrip(":")[:_MAX_LENGTH] or UNKNOWN
        if name not in self._known:
            if len(self._known) >= MAX_MODELS:
                return OTHER
            self._known.add(name)
        return name


def model_metrics(trace: Trace, names: ModelNames) -> Iterator[tuple[str, str, Values]]:
    """Yield each blob's program, model and values."""
    calls: dict[tuple[str, str], list[Span]] = {}
    fallbacks: dict[tuple[str, str], int] = {}
    for span in trace.spans:
        if span.attributes.get("gen_ai.operation.name") not in (CHAT, TEXT_COMPLETION):
            continue
        program = span.program or UNKNOWN
        calls.setdefault((program, names(_model(span))), []).append(span)
        if failed := span.attributes.get("dspy_lambda.fallback_from"):
            key = program, names(str(failed))
            fallbacks[key] = fallbacks.get(key, 0) + 1
    for program, model in calls | fallbacks:
        found = calls.get((program, model), [])
        for start in range(0, max(len(found), 1), MAX_VALUES):
            values = _values(found[start : start + MAX_VALUES])
            if start == 0 and (number := fallbacks.get((program, model))):
                values["ModelFallbacks"] = [number]
            yield program, model, values


def _values(calls: list[Span]) -> Values:
    """Return the metrics of some LM calls: counts as sums, and measurements as one value per call."""
    if not calls:
        return {}
    values: Values = {"ModelCalls": [len(calls)], "ModelErrors": [sum(span.error is not None for span in calls)]}
    answered = [span for span in calls if span.error is None and not span.attributes.get("dspy_lambda.cache_hit")]
    measured = {
        "ModelLatency": [round((span.end_ns - span.start_ns) / 1e6, 3) for span in answered if span.end_ns],
        **{name: [span.attributes[key] for span in calls if key in span.attributes] for name, key in _EACH.items()},
        "ModelRetries": _sum(span.attributes.get("dspy_lambda.retries", 0) for span in calls),
        "ModelCacheHits": _sum(bool(span.attributes.get("dspy_lambda.cache_hit")) for span in calls),
    }
    return values | {name: numbers for name, numbers in measured.items() if numbers}


def _sum(numbers: Iterator[int]) -> list[float]:
    """Return the sum as a metric's only value; nothing if it is 0."""
    total = sum(numbers)
    return [total] if total else []


def _model(span: Span) -> str:
    """Return the alias, or the model of an LM that a program created itself."""
    return str(span.attributes.get("dspy_lambda.alias") or span.attributes.get("gen_ai.request.model") or UNKNOWN)
