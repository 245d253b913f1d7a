"""OpenAI's Responses.

https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from collections.abc import Iterable

from dspy_lambda_infra.model_server.failures import Failure
from dspy_lambda_infra.model_server.wires.wire import (
    Document,
    Wire,
    content,
    function,
    json_schema,
    named,
    reasoning,
    tool_calls,
    words,
)


def _read(body: Document) -> Document:
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    messages = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    for item in items:
        if item.get("type") == "function_call_output":
            messages.append({"role": "tool", "content": item["output"]})
        elif item.get("content") and item.get("type", "message") == "message":
            messages.append({**item, "role": _role(item)})
    read: Document = {**body, "messages": messages}
    if tools := body.get("tools"):
        read["tools"] = [function(tool["name"], tool["parameters"]) for tool in tools if tool["type"] == "function"]
    if isinstance(choice := body.get("tool_choice"), dict):
        read["tool_choice"] = named(choice["name"])
    form = (body.get("text") or {}).get("format") or {}
    if form.get("type") == "json_schema":
        read["response_format"] = json_schema(form["schema"])
    read["reasoning_effort"] = (body.get("reasoning") or {}).get("effort")
    return read


def _role(message: Document) -> str:
    # Some clients send "developer" where chat completions use "system".
    return "system" if message.get("role") == "developer" else str(message.get("role"))


def _output(document: Document) -> Iterable[Document]:
    if thought := reasoning(document):
        yield {"id": "rs_embedded", "type": "reasoning", "summary": [{"type": "summary_text", "text": thought}]}
    if text := content(document):
        part = {"type": "output_text", "text": text, "annotations": []}
        message = {"id": "msg_embedded", "type": "message", "role": "assistant", "status": "completed"}
        yield {**message, "content": [part]}
    for call in tool_calls(document):
        name = {"call_id": call["id"], "name": call["name"], "arguments": call["arguments"]}
        yield {"id": f"fc_{call['id']}", "type": "function_call", "status": "completed", **name}


def _write(document: Document) -> Document:
    usage = document["usage"]
    counted = {
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": usage["completion_tokens"],
        "total_tokens": usage["total_tokens"],
    }
    reason = {"length": "max_output_tokens"}.get(finish := document["choices"][0]["finish_reason"], finish)
    whole = finish in ("stop", "tool_calls")
    return {
        "id": "resp_embedded",
        "object": "response",
        "created_at": 0,
        "status": "completed" if whole else "incomplete",
        "incomplete_details": None if whole else {"reason": reason},
        "model": document["model"],
        "output": list(_output(document)),
        "usage": counted,
    }


def _events(document: Document) -> Iterable[Document]:
    whole = _write(document)
    yield {"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}}
    for index, item in enumerate(whole["output"]):
        place = {"output_index": index, "item_id": item["id"]}
        yield {"type": "response.output_item.added", "output_index": index, "item": {**item, **_empty(item)}}
        if item["type"] == "message":
            for word in words(content(document)):
                yield {"type": "response.output_text.delta", **place, "content_index": 0, "delta": word}
        if item["type"] == "function_call":
            yield {"type": "response.function_call_arguments.delta", **place, "delta": item["arguments"]}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{whole['status']}", "response": whole}


def _empty(item: Document) -> Document:
    """Return an item's fields as they are before its first delta."""
    empty: dict[str, Document] = {"message": {"content": []}, "function_call": {"arguments": ""}}
    return empty.get(item["type"], {})


def _stream_error(failure: Failure) -> Document:
    return {"type": "error", "code": failure.code, "message": failure.message, "param": None}


RESPONSES = Wire("/v1/responses", _read, _write, _events, stream_error=_stream_error)
