"""The wire formats of providers: converts their requests to chat completion requests, and completions to answers."""

from __future__ import annotations

from dspy_lambda_infra.model_server.wires.chat import BEDROCK_CHAT, CHAT
from dspy_lambda_infra.model_server.wires.converse import CONVERSE, CONVERSE_STREAM
from dspy_lambda_infra.model_server.wires.embeddings import EMBEDDINGS, INVOKE
from dspy_lambda_infra.model_server.wires.gemini import GEMINI
from dspy_lambda_infra.model_server.wires.messages import BEDROCK_MESSAGES, MESSAGES
from dspy_lambda_infra.model_server.wires.responses import RESPONSES

WIRES = [
    CHAT,
    BEDROCK_CHAT,
    RESPONSES,
    MESSAGES,
    BEDROCK_MESSAGES,
    GEMINI,
    CONVERSE,
    CONVERSE_STREAM,
    EMBEDDINGS,
    INVOKE,
]
