"""Spans of what a program does: its modules, LM calls with each attempt, embeddings and tools.

DSPy's public callbacks would do, but each call that they wrap costs 60 us of CPU, because DSPy binds the arguments
with `inspect.getcallargs` and makes a UUID: 0.3 ms for one ChainOfThought (DSPy 3.4.1). These patches cost a tenth.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from dspy_lambda.dspy_patches.first_token import FIRST_TOKEN
from dspy_lambda.dspy_patches.insides import EXECUTION, HTTP
from dspy_lambda.dspy_patches.patch import Function, Name, Patch, apply_patches
from dspy_lambda.telemetry.traces.context import headers_of
from dspy_lambda.telemetry.traces.lm_spans import end_lm, start_embedding, start_lm
from dspy_lambda.telemetry.traces.spans import CLIENT, INTERNAL, SPAN, Span, error_word, leave

Start = Callable[[Span, Any, tuple[Any, ...], dict[str, Any]], Span | None]
End = Callable[[Span, Any], None]


def _begin(start: Start, instance: Any, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Span | None, Any]:
    parent = SPAN.get()
    if parent is None or parent.trace.closed:
        return None, parent
    span = None
    with suppress(Exception):  # from code of the instance's own, such as a property; its call must not fail for that
        span = start(parent, instance, args, options)
    if span is not None:
        SPAN.set(span)
    return span, parent


def _spanned(start: Start, end: End, original: Function) -> Function:
    def run(self: Any, *args: Any, **options: Any) -> Any:
        span, parent = _begin(start, self, args, options)
        if span is None:
            return original(self, *args, **options)
        try:
            result = original(self, *args, **options)
        except BaseException as error:
            span.end(error_word(error))
            _describe(span, None, end)
            raise
        finally:
            leave(span, parent)
        _describe(span, result, end)
        span.end()
        return result

    return run


def _spanned_on_loop(start: Start, end: End, original: Callable[..., Awaitable[Any]]) -> Function:
    async def run(self: Any, *args: Any, **options: Any) -> Any:
        span, parent = _begin(start, self, args, options)
        if span is None:
            return await original(self, *args, **options)
        try:
            result = await original(self, *args, **options)
        except BaseException as error:
            span.end(error_word(error))
            _describe(span, None, end)
            raise
        finally:
            leave(span, parent)
        _describe(span, result, end)
        span.end()
        return result

    return run


def _describe(span: Span, result: Any, end: End) -> None:
    with suppress(Exception):  # the call must not fail for that
        end(span, result)


# Modules and tools.


def _start_module(parent: Span, module: Any, _: tuple[Any, ...], options: dict[str, Any]) -> Span | None:
    name = type(module).__name__
    if parent.attributes.get("gen_ai.workflow.name") == name:
        return None  # the program itself, which has its call's span
    span = parent.child(name, INTERNAL, {"dspy_lambda.module": name})
    if parent.trace.collects:
        span.payload = {"dspy_lambda.inputs": options}
    return span


def _start_tool(parent: Span, tool: Any, _: tuple[Any, ...], options: dict[str, Any]) -> Span:
    name = str(getattr(tool, "name", None) or "tool")
    about = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name}
    span = parent.child(f"execute_tool {name}", INTERNAL, about)
    if parent.trace.collects:
        span.payload = {"dspy_lambda.inputs": options}
    return span


def _end_step(span: Span, result: Any) -> None:
    if span.payload is not None and span.error is None:
        span.payload["dspy_lambda.outputs"] = result


# Attempts of an LM call.


def _attempted(attempt: Function) -> Function:
    """Wrap `execution._attempt`: note when each one began and ended, and how it failed."""

    def noted(lm: Any, *args: Any) -> Any:
        span, start_ns, error = SPAN.get(), time.time_ns(), None
        try:
            return attempt(lm, *args)
        except BaseException as raised:
            error = error_word(raised)
            raise
        finally:
            if span is not None:
                span.attempts.append((start_ns, time.time_ns(), error))

    return noted


def _attempted_on_loop(attempt: Callable[..., Awaitable[Any]]) -> Function:
    """Wrap `execution._aattempt`."""

    async def noted(lm: Any, *args: Any) -> Any:
        span, start_ns, error = SPAN.get(), time.time_ns(), None
        try:
            return await attempt(lm, *args)
        except BaseException as raised:
            error = error_word(raised)
            raise
        finally:
            if span is not None:
                span.attempts.append((start_ns, time.time_ns(), error))

    return noted


# Providers.


def _continued(request: Any) -> Any:
    """Return a request with the headers that continue the LM call's span; a signature does not cover them."""
    span = SPAN.get()
    if span is None or span.kind != CLIENT:
        return request
    return replace(request, headers=[*request.headers, *headers_of(span).items()])


def _handed_on(send: Function) -> Function:
    def sent(self: Any, conn: Any, request: Any, parsed: Any, **options: Any) -> Any:
        return send(self, conn, _continued(request), parsed, **options)

    return sent


def _handed_on_on_loop(send: Callable[..., Awaitable[Any]]) -> Function:
    async def sent(self: Any, conn: Any, request: Any, parsed: Any, **options: Any) -> Any:
        return await send(self, conn, _continued(request), parsed, **options)

    return sent


_CALL, _CALLS = "self args kwargs", "self prompt messages kwargs"
_SEND = "self conn request parsed proxy write_timeout"
_ATTEMPT = "lm call backend request provider state results"
_EMBED = "self inputs batch_size caching kwargs"


def _both(module: str, kind: str, parameters: str, start: Start, end: End) -> tuple[Name, Name]:
    return (
        Name(module, f"{kind}.__call__", parameters, wrap=partial(_spanned, start, end)),
        Name(module, f"{kind}.acall", parameters, is_async=True, wrap=partial(_spanned_on_loop, start, end)),
    )


MODULE_SPANS = Patch(
    "spans of modules",
    "a trace that shows which module of a program took its time",
    _both("dspy.primitives.module", "Module", _CALL, _start_module, _end_step),
)
LM_SPANS = Patch(
    "spans of LM calls",
    "a trace that shows each model call with its tokens and cost, and metrics for each model",
    _both("dspy.clients.base_lm", "BaseLM", _CALLS, start_lm, end_lm),
)
EMBEDDING_SPANS = Patch(
    "spans of embeddings",
    "a trace that shows the tokens and cost of embeddings",
    _both("dspy.clients.embedding", "Embedder", _EMBED, start_embedding, end_lm),
)
TOOL_SPANS = Patch(
    "spans of tools",
    "a trace that shows each call of a tool",
    _both("dspy.adapters.types.tool", "Tool", "self kwargs", _start_tool, _end_step),
)
ATTEMPT_SPANS = Patch(
    "spans of attempts",
    "a trace that shows each retry and its reason",
    (
        Name(EXECUTION, "_attempt", _ATTEMPT, wrap=_attempted),
        Name(EXECUTION, "_aattempt", _ATTEMPT, is_async=True, wrap=_attempted_on_loop),
    ),
)
HANDED_ON = Patch(
    "the trace context in requests to providers",
    "gateways and self-hosted models that continue the trace",
    (
        Name(f"{HTTP}._sync", "StdlibTransport._send_request", _SEND, wrap=_handed_on),
        Name(f"{HTTP}._async", "StdlibAsyncTransport._send_request", _SEND, is_async=True, wrap=_handed_on_on_loop),
    ),
)
PATCHES = (MODULE_SPANS, LM_SPANS, EMBEDDING_SPANS, TOOL_SPANS, ATTEMPT_SPANS, FIRST_TOKEN, HANDED_ON)


def patch_spans() -> dict[str, str]:
    """Make spans of what programs do, in this process, from now on.

    Returns:
        The patches that were left out, each with the change in DSPy that prevented it.
    """
    return apply_patches(PATCHES)
