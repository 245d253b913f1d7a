"""Which hosted embedding models this package requests itself: by the model's name and the options, without a request.

`build` asks the same question, to leave LiteLLM out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_ALL = {"timeout", "num_retries"}
_OPENAI = {*_ALL, "api_key", "api_base", "base_url", "dimensions", "encoding_format", "user"}
_BEDROCK = {*_ALL, "aws_region_name", "dimensions", "normalize", "input_type", "truncate"}
# LiteLLM takes OpenAI's own models without a provider, too.
_OPENAI_MODEL = re.compile(r"openai/.+|text-embedding-(3-small|3-large|ada-002)")
# Also by a region's inference profile, such as us.cohere.embed-v4:0.
_BEDROCK_MODEL = re.compile(r"bedrock/([a-z-]{2,6}\.)?(amazon\.titan-embed-text|cohere\.embed)-.+")


def is_served(model: Any, options: Mapping[str, Any]) -> bool:
    """Whether an embedder's model is requested natively with these options; all others need LiteLLM."""
    if not isinstance(model, str):
        return False
    known = _OPENAI if _OPENAI_MODEL.fullmatch(model) else _BEDROCK if _BEDROCK_MODEL.fullmatch(model) else None
    # Numbers in base64 would need to be decoded; no one has asked for them.
    return known is not None and known >= options.keys() and options.get("encoding_format", "float") == "float"
