"""Collect the metrics of one invocation in as few EMF blobs as possible."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dspy_lambda.call import UNKNOWN, Call
from dspy_lambda.invocation import Invocation
from dspy_lambda.usage import Answer

# EMF: "Arrays of metric values cannot exceed 100 elements".
# https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
MAX_VALUES = 100
Values = dict[str, list[float]]  # by name


def metrics(invocation: Invocation) -> Iterator[tuple[str, Values]]:
    """Yield each blob's program and values."""
    finished: dict[str, list[Call]] = {}
    for call in list(invocation.calls.values()):
        if call.settled:
            finished.setdefault(call.program, []).append(call)
    extra = {program: None for _, program in invocation.counts}
    programs = list(finished | invocation.records_failed | extra) or ([UNKNOWN] if invocation.cold_start else [])
    for position, program in enumerate(programs):
        calls = finished.get(program, [])
        for start in range(0, max(len(calls), 1), MAX_VALUES):
            values = _values(calls[start : start + MAX_VALUES])
            if start == 0:
                values |= _once(invocation, program, position == 0)
            yield program, values


def _once(invocation: Invocation, program: str, is_first: bool) -> Values:
    """Return the metrics that only a program's first blob has."""
    values: Values = {}
    if invocation.source == "sqs":
        values["RecordsFailed"] = [invocation.records_failed[program]]
    if is_first and invocation.cold_start:
        values["ColdStart"] = [1]
    for (name, counted), number in invocation.counts.items():
        if counted == program:
            values[name] = [number]
    return values


def answer_metrics(answer: Answer) -> Values:
    """Return the metrics of an answer that is not counted in any call."""
    values: Values = {
        "LMCalls": [1],
        "InputTokens": [answer.input_tokens],
        "OutputTokens": [answer.output_tokens],
    }
    if answer.cost_usd is None:
        values["UnpricedCalls"] = [1]
    else:
        values["CostUSD"] = [round(answer.cost_usd, 10)]
    return values


def _values(calls: list[Call]) -> Values:
    """Return the metrics of some calls: counts as sums, and measurements as one value per call, for percentiles."""
    if not calls:
        return {}
    values: Values = {
        "Calls": [len(calls)],
        "Errors": [sum(call.failed for call in calls)],
        "RateLimited": [sum(call.outcome == "rate_limited" for call in calls)],
        "LMCalls": [sum(call.usage.lm_calls for call in calls)],
        "Duration": [round(call.duration_ms, 3) for call in calls],
        "InputTokens": [call.usage.input_tokens for call in calls],
        "OutputTokens": [call.usage.output_tokens for call in calls],
    }
    if costs := _known(call.usage.cost_usd for call in calls):
        values["CostUSD"] = costs
    if fallbacks := sum(call.usage.fallbacks for call in calls):
        values["Fallbacks"] = [fallbacks]
    if retries := sum(call.usage.retries for call in calls):
        values["Retries"] = [retries]
    if unpriced := sum(call.usage.unpriced for call in calls):
        values["UnpricedCalls"] = [unpriced]
    if ages := [call.record_age_ms for call in calls if call.record_age_ms is not None]:
        values["RecordAge"] = list[float](ages)
    return values


def _known(costs: Iterable[float | None]) -> list[float]:
    return [round(cost, 10) for cost in costs if cost is not None]
