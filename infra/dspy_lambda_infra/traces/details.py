"""What a span's attributes say, in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dspy_lambda_infra.payloads import payload_lines
from dspy_lambda_infra.terminal import printable
from dspy_lambda_infra.traces.spans import Span

PAYLOADS = ("dspy_lambda.inputs", "gen_ai.input.messages", "gen_ai.output.messages", "dspy_lambda.outputs")
_WORDS = {
    "unfinished": "unfinished: still running when its invocation ended",
    "rate_limited": "rate limited",
    "model_error": "the model failed",
    "deadline": "out of time",
    "program_error": "the program failed",
    "invalid_input": "invalid inputs",
    "overloaded": "overloaded",
    "timeout": "timed out",
}
_MAX_WORD = 200


def details(span: Span) -> Iterator[str]:
    """Yield short texts, the most important first: failure, tokens, cost, model, attempts, fallback."""
    get = span.attributes.get
    if span.error is not None:
        yield f"failed: {words(span.error)}" if span.error != "unfinished" else words(span.error)
    elif not span.end_ns:
        yield "unfinished: it has no end"
    outcome = get("dspy_lambda.outcome")
    if outcome not in (None, "success", span.error):
        yield words(outcome)
    yield from _figures(span)
    if (alias := get("dspy_lambda.alias") or get("dspy_lambda.model")) is not None:
        yield f"model {_text(alias)}"
    if _number(get("dspy_lambda.attempts")) > 1:
        yield f"{get('dspy_lambda.attempts')} attempts"
    if (reason := get("dspy_lambda.retry_reason")) is not None:
        yield f"after {words(reason)}"
    if (former := get("dspy_lambda.fallback_from")) is not None:
        yield f"instead of {_text(former)}: {words(get('dspy_lambda.fallback_reason') or 'it failed')}"
    if (waited := get("dspy_lambda.time_to_first_token_ms")) is not None:
        yield f"first token after {_number(waited):,.0f} ms"
    if get("faas.coldstart") is True:
        yield "cold start"


def _figures(span: Span) -> Iterator[str]:
    get = span.attributes.get
    answer, asked = get("gen_ai.usage.output_tokens"), get("gen_ai.usage.input_tokens")
    if answer is None and asked is None:
        answer, asked = get("dspy_lambda.output_tokens"), get("dspy_lambda.input_tokens")
    if answer is not None or asked is not None:
        yield f"{_number(asked):,.0f}+{_number(answer):,.0f} tokens"
        cost = get("dspy_lambda.cost_usd")
        yield "cost unknown" if cost is None else f"{_number(cost):.6f} USD"
    if get("dspy_lambda.cache_hit") is True:
        yield "from the cache"
    elif _number(get("dspy_lambda.cache_hits")):
        yield f"{get('dspy_lambda.cache_hits')} from the cache"


def payloads(span: Span) -> Iterator[tuple[str, list[str]]]:
    """Yield the payloads that a span has, or their sizes: a title and printable lines."""
    for key in PAYLOADS:
        if key in span.attributes:
            yield key, payload_lines(span.attributes[key])
        elif (size := span.attributes.get(f"{key}.bytes")) is not None:
            yield key, [f"{_number(size):,.0f} bytes"]


def words(reason: Any) -> str:
    """Return a reason such as `rate_limited` in words."""
    text = str(reason)
    return _WORDS.get(text, _text(text.replace("_", " ")))


def _text(value: Any) -> str:
    return printable(str(value)[:_MAX_WORD])


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) and abs(value) < 1e15 else 0
