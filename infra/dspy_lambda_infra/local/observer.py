"""Collects the functions' recent traces and log lines, and serves them to `dspy-lambda trace` and `dspy-lambda logs`.

Its routes are documented in `dspy_lambda_infra.observed`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from dspy_lambda_infra.local.access import refuse_browser, refuse_host
from dspy_lambda_infra.local.recent import Recent
from dspy_lambda_infra.traces.spans import INVOCATION_ID
from dspy_lambda_infra.traces.tree import trace_id

_SHORTEST = 8  # of the ids that `trace` takes
_MAX_SPANS = 20_000
_MAX_LINES = 20_000
# Of each: lines and spans with payloads may have 100 KB.
_MAX_BYTES = 100 * 2**20
_MAX_BODY_BYTES = 64 * 2**20
_IDENTIFIERS = (INVOCATION_ID, "messaging.message.id", "dspy_lambda.message_id")


@dataclass(frozen=True, slots=True)
class _Span:
    """A received span; as text, which takes a fifth of the memory.

    Attributes:
        names: the request id or message ids that the span itself carries.
    """

    trace_id: str
    span_id: str
    parent_id: str
    names: frozenset[str]
    is_invocation: bool
    resource: str
    text: str

    def document(self) -> dict[str, Any]:
        """Return the OTLP span with its resource."""
        document: dict[str, Any] = {**json.loads(self.text), "resource": json.loads(self.resource)}
        return document


class Observer:
    """An HTTP server on loopback; holds at most 20,000 spans and 20,000 lines, and 100 MB of each.

    Args:
        project: the project's folder, by which others recognize it.
    """

    def __init__(self, project: Path) -> None:
        self._project = str(project.resolve())
        self._spans: Recent[_Span] = Recent(_MAX_SPANS, _MAX_BYTES)
        self._lines: Recent[tuple[float, bytes]] = Recent(_MAX_LINES, _MAX_BYTES)
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def start(self) -> str:
        """Listen on loopback and return the address."""
        app = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[self._refuse_others])
        app.router.add_get("/", self._about)
        app.router.add_post("/v1/traces", self._receive)
        app.router.add_get("/traces", self._recent)
        app.router.add_get("/traces/{id}", self._trace)
        app.router.add_get("/lines", self._send_lines)
        # Otherwise a follower that left would stay until the next line.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]
        return f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Stop listening, and end the answers that follow."""
        if self._runner is not None:
            await self._runner.cleanup()

    def add_line(self, line: str) -> None:
        """Keep a line of a function's log, if it is a JSON object."""
        if line.startswith("{") and _is_json(line):
            text = line.encode(errors="replace") + b"\n"
            self._lines.add((time.time(), text), len(text))

    @web.middleware
    async def _refuse_others(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse requests that a web page could send: there may be prompts in traces."""
        reason = refuse_host(request.headers.getall("Host", []), self._port) or refuse_browser(request.headers)
        if reason is None:
            return await handler(request)
        return web.json_response({"message": reason}, status=403)

    async def _about(self, _: web.Request) -> web.Response:
        return web.json_response({"project": self._project})

    async def _receive(self, request: web.Request) -> web.Response:
        """https://opentelemetry.io/docs/specs/otlp/#otlphttp-request"""
        if request.content_type != "application/json":
            return web.json_response({"message": "only OTLP in JSON"}, status=415)
        try:
            spans = list(_read(json.loads(await request.read())))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return web.json_response({"message": "not an ExportTraceServiceRequest"}, status=400)
        for span in spans:
            self._spans.add(span, len(span.text))
        return web.json_response({})

    async def _recent(self, request: web.Request) -> web.Response:
        try:
            limit = int(request.query.get("limit", "20"))
        except ValueError:
            return web.json_response({"message": "limit: not a number"}, status=400)
        invocations = (span for span in reversed(self._spans) if span.is_invocation)
        return _spans_response(islice(invocations, min(max(limit, 0), _MAX_SPANS)))

    async def _trace(self, request: web.Request) -> web.Response:
        name = request.match_info["id"]
        wanted = trace_id(name)
        whole = [span for span in self._spans if span.trace_id == wanted]
        spans = whole or list(_within(self._spans, name))
        return _spans_response(spans) if spans else web.json_response({"message": f"no trace of {name}"}, status=404)

    async def _send_lines(self, request: web.Request) -> web.StreamResponse:
        try:
            since = float(request.query.get("since", "0"))
        except ValueError:
            return web.json_response({"message": "since: not a number"}, status=400)
        headers = {"Content-Type": "application/x-ndjson"}
        if request.query.get("follow") != "true":
            return web.Response(body=b"".join(line for at, line in self._lines if at >= since), headers=headers)
        answer = web.StreamResponse(headers=headers)
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):  # the follower left
            async for at, line in self._lines.follow():
                if at >= since:
                    await answer.write(line)
        return answer


def _spans_response(spans: Iterable[_Span]) -> web.Response:
    """Answer with each span once: an export that timed out may have arrived, and is sent again."""
    once = {(span.trace_id, span.span_id): span for span in spans}
    return web.json_response({"spans": [span.document() for span in once.values()]})


def _within(spans: Iterable[_Span], name: str) -> Iterator[_Span]:
    """Yield the spans that carry a request id or message id, and those within them.

    A caller may give many invocations the same trace. Parents arrive before their children.
    """
    inside: set[str] = set()
    for span in spans:
        if span.parent_id in inside or any(_is_meant(name, one) for one in span.names):
            inside.add(span.span_id)
            yield span


def _is_meant(name: str, identifier: str) -> bool:
    """Whether an id, or at least its first 8 characters, is given."""
    return name == identifier or (len(name) >= _SHORTEST and identifier.startswith(name))


def _read(document: Any) -> Iterator[_Span]:
    """Yield the spans of an ExportTraceServiceRequest."""
    for group in document["resourceSpans"]:
        resource = json.dumps(group.get("resource", {}))
        for scope in group.get("scopeSpans", []):
            for span in scope.get("spans", []):
                yield _span(span, resource)


def _span(span: dict[str, Any], resource: str) -> _Span:
    named = {one["key"]: one["value"].get("stringValue", "") for one in span.get("attributes", [])}
    span_id, parent_id = span["spanId"], span.get("parentSpanId", "")
    if not (isinstance(span_id, str) and isinstance(parent_id, str)):
        raise TypeError  # every later answer would fail on it
    return _Span(
        trace_id=span["traceId"].lower(),
        span_id=span_id,
        parent_id=parent_id,
        names=frozenset(named[key] for key in _IDENTIFIERS if key in named),
        is_invocation=INVOCATION_ID in named,
        resource=resource,
        text=json.dumps(span),
    )


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
