"""OpenAI's embeddings, and those of Titan and Cohere through Bedrock's InvokeModel.

https://platform.openai.com/docs/api-reference/embeddings/create
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-embed.html
"""

from __future__ import annotations

import base64
import struct
from typing import Any

from dspy_lambda_infra.model_server.wires.wire import Document, Wire

_COHERE_MOST_TEXTS = 96
_TITAN_DIMENSIONS = (256, 512, 1024)


def _read(body: Document) -> Document:
    given = body["input"]
    texts = [given] if isinstance(given, str) else given
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError("input must be a text or a list of texts")
    return {**body, "texts": texts, "dimensions": body.get("dimensions") or 1536}


def _write(document: Document) -> Document:
    packed = document["request"].get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if packed else vector}
        for index, vector in enumerate(document["vectors"])
    ]
    tokens = document["usage"]["prompt_tokens"]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": document["model"], "usage": usage}


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _read_invoke(body: Document) -> Document:
    model = body["model"].rpartition("/")[2]
    if "titan-embed-text" in model:
        dimensions = body.get("dimensions", 1024)
        if dimensions not in _TITAN_DIMENSIONS:
            raise ValueError(f"Malformed input request: dimensions must be one of {_TITAN_DIMENSIONS}")
        return {**body, "texts": [body["inputText"]], "dimensions": dimensions}
    if "cohere.embed-" in model:
        if not 0 < len(body["texts"]) <= _COHERE_MOST_TEXTS:
            raise ValueError(f"Malformed input request: texts must have 1 to {_COHERE_MOST_TEXTS} items")
        if "input_type" not in body:
            raise ValueError("Malformed input request: required key [input_type] not found")
        return {**body, "dimensions": body.get("output_dimension", 1024)}
    raise ValueError("The provided model identifier is invalid.")


def _write_invoke(document: Document) -> Document:
    return _write_titan(document) if "inputText" in document["request"] else _write_cohere(document)


def _write_titan(document: Document) -> Document:
    (vector,) = document["vectors"]
    return {
        "embedding": vector,
        "embeddingsByType": {"float": vector},
        "inputTextTokenCount": document["usage"]["prompt_tokens"],
    }


def _write_cohere(document: Document) -> Document:
    asked = document["request"]
    by_type = bool(asked.get("embedding_types"))
    vectors: Any = {"float": document["vectors"]} if by_type else document["vectors"]
    kind = "embeddings_by_type" if by_type else "embeddings_floats"
    return {"id": "embedded", "texts": asked["texts"], "embeddings": vectors, "response_type": kind}


EMBEDDINGS = Wire("/v1/embeddings", _read, _write, streams=lambda _: False)
INVOKE = Wire(
    "/model/{model}/invoke",
    _read_invoke,
    _write_invoke,
    error=lambda failure: {"message": failure.message},
    streams=lambda _: False,
    service="bedrock",
    native=True,
)
