"""OpenAI's embeddings and servers that speak its protocol.

https://platform.openai.com/docs/api-reference/embeddings/create
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspy.utils.exceptions import LMNotConfiguredError
from pydantic_core import to_json

from dspy_lambda.dspy_patches.http_client import Answer, Request
from dspy_lambda.models.embeddings.hosted import HostedModel, Vectors, first_of, parsed
from dspy_lambda.settings import API_BASE

_BASE = "https://api.openai.com/v1"


class OpenAIModel(HostedModel):
    """`api_base` may be any server that speaks the protocol; one on this machine or network may need no key."""

    provider = "openai"
    most_texts = 2048

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        own = options.get("api_base") or options.get("base_url") or first_of("OPENAI_BASE_URL", "OPENAI_API_BASE")
        key = options.get("api_key") or first_of("OPENAI_API_KEY")
        super().__init__(name, {**options, "api_key": key})
        self._key = key
        self._base = first_of(API_BASE) or own or _BASE

    def request(self, texts: list[str]) -> Request:
        if not self._key and self._base == _BASE:
            raise LMNotConfiguredError(
                "No key for OpenAI's embeddings: set OPENAI_API_KEY, or pass api_key to dspy.Embedder.",
                model=self.name,
                provider=self.provider,
            )
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        body = {"model": self.name, "input": texts, "encoding_format": "float"}
        body |= self.set_options("dimensions", "user")
        return Request(f"{self._base.rstrip('/')}/embeddings", headers, to_json(body), self.options.get("timeout"))

    def read(self, answer: Answer) -> Vectors:
        document = parsed(answer)
        entries = sorted(document["data"], key=lambda entry: entry.get("index", 0))  # stable, without indexes too
        usage = document.get("usage") or {}
        return Vectors([entry["embedding"] for entry in entries], usage.get("prompt_tokens"))
