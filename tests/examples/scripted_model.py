"""A model whose answers a test writes: an HTTP server that speaks chat completions."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Fields = dict[str, Any]
Script = Callable[["Prompt"], Fields | int]


class Prompt:
    """One request: its model, and the input fields of its last message."""

    def __init__(self, body: Fields) -> None:
        self.model: str = body["model"]
        content = body["messages"][-1]["content"]
        text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        parts = re.split(r"\[\[ ## (\w+) ## \]\]\n", text.partition("\n\nRespond with ")[0])[1:]
        self.inputs = {name: value.strip() for name, value in zip(parts[::2], parts[1::2], strict=True)}


class ScriptedModel:
    """Answers each request with what `script` returns for it: the output fields, or the HTTP status of an error.

    Attributes:
        prompts: the requests so far.
    """

    def __init__(self) -> None:
        self.script: Script = lambda _: 500
        self.prompts: list[Prompt] = []
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                status, answer = model.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def answer(self, body: Fields) -> tuple[int, bytes]:
        prompt = Prompt(body)
        self.prompts.append(prompt)
        fields = self.script(prompt)
        if isinstance(fields, int):
            return fields, b'{"error": {"message": "scripted", "type": "scripted", "code": "scripted"}}'
        texts = [
            f"[[ ## {name} ## ]]\n{value if isinstance(value, str) else json.dumps(value)}"
            for name, value in fields.items()
        ]
        message = {"role": "assistant", "content": "\n\n".join([*texts, "[[ ## completed ## ]]"])}
        choices = [{"index": 0, "finish_reason": "stop", "message": message}]
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": prompt.model}
        return 200, json.dumps({**answer, "choices": choices, "usage": usage}).encode()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
