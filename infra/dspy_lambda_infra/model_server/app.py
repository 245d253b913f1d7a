"""The model server's state and handlers."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import uuid
from collections import deque
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from aiohttp import web

from dspy_lambda_infra.model_server import event_stream
from dspy_lambda_infra.model_server.behavior import Behavior
from dspy_lambda_infra.model_server.completions import complete, embed
from dspy_lambda_infra.model_server.counts import Counts
from dspy_lambda_infra.model_server.failures import FAILURES, STREAM, Failure, find_failure
from dspy_lambda_infra.model_server.sending import close, reset, send
from dspy_lambda_infra.model_server.signatures import Received, refuse
from dspy_lambda_infra.model_server.wires import WIRES
from dspy_lambda_infra.model_server.wires.wire import Document, Wire

_RATES = ("error", "rate_limit", "unauthorized", "malformed", "drop", "hang", "reset")
_WHOLE = ("answer", "malformed", "length", "content_filter")  # fates whose answers are counted
_PAGE = "<html><head><title>Gateway</title></head><body><h1>This is no model.</h1></body></html>"
# As in Bedrock's own answers; clients cut it off.
_ERROR_NAMESPACE = ":http://internal.amazon.com/coral/com.amazon.bedrock/"


class ModelApp:
    """The server's state and handlers."""

    def __init__(self, behavior: Behavior) -> None:
        self.behavior = behavior
        self.wires = {path: wire for wire in WIRES for path in _paths(wire)}
        self.reset()

    def reset(self) -> None:
        self.random = random.Random(self.behavior.seed)
        self.counts = Counts()
        self._cache: set[str] = set()
        self._per_model = {model: self.behavior.for_model(model) for model in self.behavior.models}
        self._script = deque(self.behavior.failures)
        self._scripts = {model: deque(own.failures) for model, own in self._per_model.items()}

    def application(self) -> web.Application:
        app = web.Application(client_max_size=64 * 2**20)
        for path in self.wires:
            app.router.add_post(path, self.complete)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/stats", self.stats)
        app.router.add_post("/behavior", self.change)
        return app

    async def stats(self, _: web.Request) -> web.Response:
        return web.json_response(self.counts.fields())

    async def change(self, request: web.Request) -> web.Response:
        self.behavior = Behavior(**await request.json())
        self.reset()
        return web.json_response(dataclasses.asdict(self.behavior))

    async def models(self, request: web.Request) -> web.Response:
        self._connected(request)
        if refused := self._refuse(request, b"", "", self.behavior):
            return self._error(request, refused, native=True)
        return web.json_response({"object": "list", "data": []})

    def _connected(self, request: web.Request) -> None:
        if request.transport is not None:
            self.counts.connections.add(request.transport.get_extra_info("peername"))

    async def complete(self, request: web.Request) -> web.StreamResponse:
        counts = self.counts
        counts.begin(request.headers.get("traceparent"))
        self._connected(request)
        try:
            return await self._complete(request, counts)
        finally:
            counts.in_flight -= 1

    async def _complete(self, request: web.Request, counts: Counts) -> web.StreamResponse:
        wire = self._wire(request)
        data = await request.read()
        try:
            asked = {**json.loads(data), **request.match_info}
            body = wire.read(asked)
            model = body["model"]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            invalid = Failure(400, "invalid_request_error", "ValidationException", f"{type(error).__name__}: {error}")
            return self._error(request, invalid)
        counts.ask(model)
        behavior = self._per_model.get(model, self.behavior)
        if refused := self._refuse(request, data, wire.service, behavior):
            return self._error(request, refused, native=True)
        fate = self._fate(model)
        if fate == "hang":
            await asyncio.sleep(600)
        if behavior.delay_seconds:
            await asyncio.sleep(behavior.delay_seconds)
        if not wire.service and behavior.key and request.headers.get("Authorization") != f"Bearer {behavior.key}":
            return self._error(request, FAILURES["unauthorized"])
        stream = wire.streams(asked)
        if early := self._fail(request, fate, behavior, stream=stream):
            return early
        document = self._document(body, fate, behavior)
        response = await self._answer(request, document, fate, behavior, stream=stream)
        if response is None:  # the client is gone
            return web.Response()
        if fate in _WHOLE:
            counts.answer(model, document["usage"])
        return response

    def _wire(self, request: web.Request) -> Wire:
        resource = request.match_info.route.resource
        assert resource is not None
        return self.wires[resource.canonical]

    def _document(self, body: Document, fate: str, behavior: Behavior) -> Document:
        if "texts" in body:
            return embed(body)
        fault = fate if fate in ("malformed", "length", "content_filter") else None
        return complete(body, samples=behavior.samples, fault=fault, cache=self._cache)

    def _refuse(self, request: web.Request, data: bytes, service: str, behavior: Behavior) -> Failure | None:
        """Return the error for a request whose signature is wrong, or missing where Bedrock requires one."""
        if not service and request.headers.get("Authorization", "").startswith("AWS4-HMAC-SHA256"):
            service = "bedrock-mantle"  # its host has OpenAI's paths
        if not service or not behavior.verify_signatures:
            return None
        headers = {name.lower(): ",".join(request.headers.getall(name)) for name in request.headers}
        received = Received(request.method, request.raw_path, headers, data)
        return refuse(received, service, behavior, _now(behavior))

    def _fail(self, request: web.Request, fate: str, behavior: Behavior, *, stream: bool) -> web.Response | None:
        """Return the answer of a fate that is an error before any answer; None if there is to be an answer."""
        if fate == "drop":
            close(request)
            return web.Response()
        if fate == "reset":
            reset(request)
            return web.Response()
        if fate in ("html", "html_error"):
            return web.Response(text=_PAGE, content_type="text/html", status=502 if fate == "html_error" else 200)
        if fate == "error_body":
            return web.json_response(self._wire(request).error(FAILURES["error"]))
        failure = find_failure(fate)
        if failure is None or (stream and fate.startswith(STREAM)):
            return None
        return self._error(request, failure, after=behavior.retry_after_seconds)

    def _error(
        self, request: web.Request, failure: Failure, *, after: float | None = None, native: bool = False
    ) -> web.Response:
        """Return an error answer.

        Args:
            after: the Retry-After header, in seconds.
            native: whether the error has Bedrock's own form on every path: those of signatures.
        """
        wire = self.wires.get(getattr(request.match_info.route.resource, "canonical", ""))
        headers = {}
        if native or (wire and wire.native):
            failure = dataclasses.replace(FAILURES[failure.aws], message=failure.message)
        if native or (wire and wire.service):
            suffix = "" if native else _ERROR_NAMESPACE
            headers = {"x-amzn-ErrorType": f"{failure.aws}{suffix}", "x-amzn-RequestId": str(uuid.uuid4())}
            headers["Date"] = format_datetime(_now(self.behavior), usegmt=True)
        if after is not None and failure.status in (429, 503):
            headers["Retry-After"] = str(after)
        body = {"message": failure.message} if native or wire is None else wire.error(failure)
        return web.json_response(body, status=failure.status, headers=headers)

    async def _answer(
        self, request: web.Request, document: Document, fate: str, behavior: Behavior, *, stream: bool
    ) -> web.StreamResponse | None:
        """Send an answer; return None if it could not be sent completely."""
        wire = self._wire(request)
        if stream:
            data = b"".join(_frames(wire, document, fate))
        else:
            data = json.dumps(wire.write(document)).encode().ljust(behavior.answer_bytes)
        if fate == "truncated":
            data = data[: len(data) // 2]
        headers = {"Content-Type": wire.stream_type if stream else "application/json"}
        if wire.service:
            headers["x-amzn-RequestId"] = str(uuid.uuid4())
        if wire.service and "vectors" in document:  # the only count of tokens that Cohere's answers have
            headers["X-Amzn-Bedrock-Input-Token-Count"] = str(document["usage"]["prompt_tokens"])
        try:
            return await send(request, data, headers, behavior, cut=fate == "cut")
        except ConnectionError:
            return None

    def _fate(self, model: str) -> str:
        behavior = self._per_model.get(model, self.behavior)
        script: deque[Any] = self._scripts.get(model, self._script)
        if script:
            return script.popleft() or "answer"
        if behavior.failure:
            return behavior.failure
        draw = self.random.random()
        for fate in _RATES:
            draw -= getattr(behavior, f"{fate}_rate")
            if draw < 0:
                return fate
        return "answer"


def _paths(wire: Wire) -> list[str]:
    # DSPY_LAMBDA_API_BASE is one URL for all models and ends with /v1; Bedrock's paths may come after it.
    return [wire.path, f"/v1{wire.path}"] if wire.service else [wire.path]


def _now(behavior: Behavior) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=behavior.clock_offset_seconds)


def _frames(wire: Wire, document: Document, fate: str) -> list[bytes]:
    frames = wire.stream(document)
    middle = len(frames) // 2
    if failure := find_failure(fate):
        return [*frames[:middle], wire.frame(wire.stream_error(failure))]
    if fate == "bad_crc" and wire.stream_type == event_stream.CONTENT_TYPE:
        frames[middle] = event_stream.corrupt(frames[middle])
    return frames
