"""Amazon Bedrock's embedding models, by InvokeModel with the function's own credentials.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-embed.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dspy.utils.exceptions import LMNotConfiguredError
from pydantic_core import to_json

from dspy_lambda.dspy_patches.http_client import Answer, Request
from dspy_lambda.dspy_patches.lm15 import BEDROCK_CHAT, utc_now
from dspy_lambda.models.bedrock.credentials import RoleCredentials
from dspy_lambda.models.bedrock.errors import error_of
from dspy_lambda.models.bedrock.regions import address
from dspy_lambda.models.bedrock.signing import authorized, model_path
from dspy_lambda.models.embeddings.hosted import HostedModel, Vectors, first_of, parsed
from dspy_lambda.settings import API_BASE

_role = RoleCredentials(BEDROCK_CHAT)
_TOKENS = "x-amzn-bedrock-input-token-count"


class _BedrockModel(HostedModel):
    provider = "bedrock"

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        super().__init__(name, options)
        self.region = options.get("aws_region_name") or first_of("AWS_REGION", "AWS_DEFAULT_REGION")

    def request(self, texts: list[str]) -> Request:
        region = self.region
        if not region:
            raise LMNotConfiguredError(
                "No region for Bedrock's embeddings: set AWS_REGION, or pass aws_region_name to dspy.Embedder.",
                model=self.name,
                provider=self.provider,
            )
        gateway = first_of(API_BASE)
        url = (gateway or address("converse", region)).rstrip("/") + model_path(self.name, "invoke")
        headers = [("content-type", "application/json"), ("accept", "application/json")]
        body = to_json(self.body(texts))
        headers = authorized(url, headers, body, _role(), region=region, service="bedrock", now=utc_now)
        return Request(url, dict(headers), body, self.options.get("timeout"))

    def is_ready(self) -> bool:
        return _role.is_ready()

    def error(self, answer: Answer) -> Exception:
        error: Exception = error_of(answer.status, answer.headers, answer.body, model=self.name)
        return error

    def body(self, texts: list[str]) -> dict[str, Any]:
        """Return the model's own parameters."""
        raise NotImplementedError


class TitanModel(_BedrockModel):
    """Amazon Titan Text Embeddings: one text per request."""

    most_texts = 1

    def body(self, texts: list[str]) -> dict[str, Any]:
        return {"inputText": texts[0], **self.set_options("dimensions", "normalize")}

    def read(self, answer: Answer) -> Vectors:
        document = parsed(answer)
        return Vectors([document["embedding"]], document.get("inputTextTokenCount"))


class CohereModel(_BedrockModel):
    """Cohere Embed: 96 texts per request."""

    most_texts = 96

    def body(self, texts: list[str]) -> dict[str, Any]:
        body = {"texts": texts, "input_type": "search_document"}  # required; the default is LiteLLM's
        if (dimensions := self.options.get("dimensions")) is not None:  # Embed 4
            body["output_dimension"] = dimensions
        return body | self.set_options("input_type", "truncate")

    def read(self, answer: Answer) -> Vectors:
        found = parsed(answer)["embeddings"]
        vectors = found["float"] if isinstance(found, dict) else found  # Embed 4 may group them by type
        tokens = answer.header(_TOKENS) or ""
        return Vectors(vectors, int(tokens) if tokens.isdecimal() else None)


def bedrock_model(model_id: str, options: Mapping[str, Any]) -> HostedModel:
    """Return the model with this id, which `served.is_served` knows."""
    return CohereModel(model_id, options) if "cohere." in model_id else TitanModel(model_id, options)
