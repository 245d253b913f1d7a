"""Bedrock's Converse as a provider of DSPy's native backend, with its connection pools, timeouts and retries.

`dspy.LM("bedrock/ID")` uses it once `register` has run.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from typing import Any

from dspy.clients.model_metadata import model_info
from dspy.lm15 import (
    OpenAIChatCompat,
    ProviderDefinition,
    ProviderError,
    ServerError,
    TransportError,
    register_provider,
)

from dspy_lambda.dspy_patches.insides import bedrock_info
from dspy_lambda.dspy_patches.lm15 import (
    BEDROCK_CHAT,
    AsyncBaseProviderLM,
    BaseProviderLM,
    HttpResponse,
    NetworkError,
    TransportRequest,
    attach_error_metadata,
    is_planning,
    resolve_credential_value,
    utc_now,
)
from dspy_lambda.models.bedrock.converse.answer import response_of
from dspy_lambda.models.bedrock.converse.request import body_of
from dspy_lambda.models.bedrock.converse.stream import ConverseStream
from dspy_lambda.models.bedrock.errors import error_of
from dspy_lambda.models.bedrock.prices import NAMESPACES
from dspy_lambda.models.bedrock.regions import address, arn_region
from dspy_lambda.models.bedrock.signing import authorized, model_path

_NAMESPACES = NAMESPACES["bedrock"]
_SERVICE = "bedrock"
_ACCESS = dataclasses.replace(
    BEDROCK_CHAT,
    provider="bedrock",
    host=dataclasses.replace(BEDROCK_CHAT.host, base_url=address("converse", "{region}")),
)
# What a chat request may contain before it becomes a Converse request.
_COMPAT = OpenAIChatCompat(thinking_format="reasoning_effort", cache_control="openai", json_schema="send")


def register() -> None:
    """Make `bedrock/` a native provider for every `dspy.LM` created from now on; the patch `ENGINE` calls it."""
    definition = ProviderDefinition("bedrock", "openai-chat", ConverseLM, AsyncConverseLM, _ACCESS, compat=_COMPAT)
    register_provider(definition, metadata_namespaces=_NAMESPACES)


@functools.cache
def _takes_schemas(model: str) -> bool:
    info: dict[str, Any] = model_info("bedrock", model, namespaces=_NAMESPACES)
    return info.get("supports_native_structured_output") is True


@functools.cache
def _takes(model: str, capability: str) -> bool:
    """Whether DSPy's catalog does not say, under any of the model's names, that each call with an option would fail."""
    return bedrock_info("bedrock", model, None).get(capability) is not False


class ConverseLM(BaseProviderLM):  # type: ignore[misc]
    """Builds and reads Converse requests, and sends them from threads. lm15 creates it, one for each pool."""

    def __init__(
        self,
        *,
        access: Any = _ACCESS,
        api_key: Any = None,
        base_url: str = "",
        transport: Any = None,
        settings: Any = None,
        adaptations: str = "note",
        clock: Callable[[], datetime] | None = None,
        **_: Any,
    ) -> None:
        self.api_key = api_key
        self.base_url = base_url
        self.transport = transport
        self.adaptations = adaptations
        self.clock = clock
        self._bind_access(access, settings=settings, default_base_url="")

    def build_request(self, request: Any, stream: bool) -> TransportRequest:
        """Return the signed request; without credentials and body if DSPy only checks whether it can be built."""
        model = self.model_of(request)
        body = body_of(
            request,
            model,
            takes_schemas=_takes_schemas(model),
            takes_sampling=_takes(model, "supports_sampling_params"),
            takes_forced_tools="meta.llama" not in model and _takes(model, "supports_forced_tool_use"),
        )
        url = self.base_url.rstrip("/") + model_path(model, "converse-stream" if stream else "converse")
        if is_planning():
            return TransportRequest("POST", url)
        data = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
        headers = [("content-type", "application/json")]
        region = arn_region(model) or self.host_settings["region"]
        credential = resolve_credential_value(self.api_key)
        now = self.clock or utc_now
        signed = authorized(url, headers, data, credential, region=region, service=_SERVICE, now=now)
        return TransportRequest("POST", url, signed, data)

    def parse_response(self, request: Any, response: HttpResponse) -> Any:
        """Return DSPy's native response."""
        model = self.model_of(request)
        try:
            data = json.loads(response.body)
        except (ValueError, RecursionError):
            raise ServerError("bedrock: the answer is not JSON", provider="bedrock") from None
        # Behind some gateways an error has status 200.
        if isinstance(data, dict) and "output" not in data and isinstance(data.get("message"), str):
            raise self._with_login_hint(error_of(response.status, response.headers, response.body, model=model))
        return response_of(data, model)

    def normalize_error(self, status: int, body: str) -> ProviderError:
        """Return the error for an answer of which only the body is known."""
        return self._with_login_hint(error_of(status, [], body.encode()))

    def error(self, response: HttpResponse) -> ProviderError:
        """Return the error for an answer whose status is one."""
        error = error_of(response.status, response.headers, response.body)
        attach_error_metadata(error, response.headers)
        return self._with_login_hint(error)

    _http_error = error  # lm15's name for it

    def model_of(self, request: Any) -> str:
        """Return the id at Bedrock of a request's model."""
        return model_id(self._wire_request(request).model)

    def _stream_raw(self, request: Any, req: TransportRequest | None = None) -> Iterator[Any]:
        self._ensure_transport_open()
        reader = ConverseStream(self.model_of(request))
        try:
            with self.transport.stream(req or self.build_request(request, stream=True)) as response:
                if response.status >= 400:
                    raise self.error(_whole(response, response.read()))
                for chunk in response:
                    yield from reader.feed(chunk)
            yield from reader.close()
        except NetworkError as error:
            raise TransportError(str(error)) from error


class AsyncConverseLM(AsyncBaseProviderLM):  # type: ignore[misc]
    """Sends Converse requests on the loop."""

    def __init__(self, *, transport: Any = None, adaptations: str = "note", **options: Any) -> None:
        self.transport = transport
        self.adaptations = adaptations
        self._inner = ConverseLM(adaptations=adaptations, **options)
        self._mirror_binding()

    async def _stream_raw(self, request: Any, req: TransportRequest | None = None) -> AsyncIterator[Any]:
        inner = self._inner
        reader = ConverseStream(inner.model_of(request))
        built = req or await self._build(inner.build_request, request, stream=True)
        try:
            async with self.transport.stream(built) as response:
                if response.status >= 400:
                    raise inner.error(_whole(response, await response.read()))
                async for chunk in response:
                    for event in reader.feed(chunk):
                        yield event
            for event in reader.close():
                yield event
        except NetworkError as error:
            raise TransportError(str(error)) from error


def model_id(model: str) -> str:
    """Return the id at Bedrock of a model that DSPy calls `ID` or `converse/ID`."""
    return model.removeprefix("converse/")


def _whole(response: Any, body: bytes) -> HttpResponse:
    return HttpResponse(
        status=response.status,
        reason=response.reason,
        headers=response.headers,
        body=body,
        http_version=response.http_version,
        provider="bedrock",
    )
