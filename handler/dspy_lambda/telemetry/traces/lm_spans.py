"""Spans of LM calls and embeddings: which model, how many tokens, what it cost, and each attempt."""

from __future__ import annotations

from typing import Any

from dspy_lambda.models.bedrock.doors import route
from dspy_lambda.telemetry.traces.spans import CHAT, CLIENT, INTERNAL, TEXT_COMPLETION, Span

# By DSPy's prefix of a model string. https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/
# docs/registry/attributes/gen-ai.md#gen-ai-provider-name; other prefixes are used as they are.
_PROVIDERS = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}


def start_lm(parent: Span, lm: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Span:
    """Start the span of one LM call, which may take several attempts."""
    held = lm.kwargs if type(getattr(lm, "kwargs", None)) is dict else {}
    operation = TEXT_COMPLETION if getattr(lm, "model_type", None) == "text" else CHAT
    span = _start(parent, lm, operation)
    attributes = span.attributes
    for name in ("temperature", "max_tokens"):
        value = options.get(name, held.get(name))
        if type(value) is int or type(value) is float:
            attributes[f"gen_ai.request.{name}"] = value
    if type(failed := getattr(lm, "fell_back", None)) is tuple:
        attributes["dspy_lambda.fallback_from"], attributes["dspy_lambda.fallback_reason"] = failed
    if parent.trace.collects:
        prompt = args[0] if args else options.get("prompt")
        span.payload = {"gen_ai.input.messages": options.get("messages") or prompt}
    return span


def start_embedding(parent: Span, embedder: Any, _: tuple[Any, ...], __: dict[str, Any]) -> Span | None:
    """Start the span of embeddings from a hosted model; None for a function of the program's own."""
    return _start(parent, embedder, "embeddings") if isinstance(embedder.model, str) else None


def _start(parent: Span, lm: Any, operation: str) -> Span:
    found = getattr(lm, "model", None)
    whole = found if type(found) is str else "unknown"
    provider, model = _names(whole)
    attributes: dict[str, Any] = {"gen_ai.operation.name": operation, "gen_ai.request.model": model}
    if provider:
        attributes["gen_ai.provider.name"] = provider
    if type(alias := getattr(lm, "alias", None)) is str:
        attributes["dspy_lambda.alias"] = alias
    return parent.child(f"{operation} {model}", CLIENT, attributes)


def _names(model: str) -> tuple[str, str]:
    """Return a model's provider, as the conventions name it, and its name there."""
    if (door := route(model)) is not None:
        return "aws.bedrock", door.model_id
    provider, _, name = model.partition("/")
    return (_PROVIDERS.get(provider, provider), name) if name else ("", model)


def end_lm(span: Span, result: Any) -> None:
    """Add up what was answered, and make spans of the attempts if there were several or the only one failed."""
    attributes = span.attributes
    if span.answers:
        inputs, outputs, costs, hits = zip(*span.answers, strict=True)
        attributes["gen_ai.usage.input_tokens"] = sum(inputs)
        attributes["gen_ai.usage.output_tokens"] = sum(outputs)
        if None not in costs:
            attributes["dspy_lambda.cost_usd"] = round(sum(costs), 10)
        attributes["dspy_lambda.cache_hit"] = all(hits)
    attempts = span.attempts
    attributes["dspy_lambda.attempts"] = len(attempts)
    attributes["dspy_lambda.retries"] = sum(error is not None for _, _, error in attempts[:-1])
    if len(attempts) > 1 or (attempts and attempts[0][2]):
        _add_attempts(span)
    if span.payload is not None and span.error is None:
        span.payload["gen_ai.output.messages"] = result


def _add_attempts(span: Span) -> None:
    reason: str | None = None
    for number, (start_ns, end_ns, error) in enumerate(span.attempts, 1):
        about: dict[str, Any] = {"dspy_lambda.retry_reason": reason} if reason else {}
        span.child(f"attempt {number}", INTERNAL, about, start_ns).end(error, end_ns)
        reason = error
