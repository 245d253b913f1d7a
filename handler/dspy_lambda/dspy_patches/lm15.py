"""What the engine for Amazon Bedrock uses of lm15, DSPy's native engine, beyond the public names in `dspy.lm15`.

Imported with the first model on Bedrock, by the patch `ENGINE`, which is left out if a name is missing.
"""

from dspy._vendor.lm15.access import BEDROCK_CHAT
from dspy._vendor.lm15.adaptation import adapt, is_planning, nearest_effort
from dspy._vendor.lm15.cloud.chains import ChainContext, CredentialSource, resolve
from dspy._vendor.lm15.cloud.hosts import utc_now
from dspy._vendor.lm15.cloud.sigv4 import sign
from dspy._vendor.lm15.credentials import AwsCredentials, BearerToken
from dspy._vendor.lm15.providers.anthropic import anthropic_adaptive_class
from dspy._vendor.lm15.providers.async_base import AsyncBaseProviderLM
from dspy._vendor.lm15.providers.base import (
    BaseProviderLM,
    HttpResponse,
    _attach_error_metadata,
    resolve_credential_value,
)
from dspy._vendor.lm15.providers.common import (
    EFFORT_THINKING_BUDGETS,
    data_part_text,
    media_base64,
    parts_to_text,
)
from dspy._vendor.lm15.transports import TransportError as NetworkError
from dspy._vendor.lm15.transports import TransportRequest

attach_error_metadata = _attach_error_metadata

__all__ = [
    "BEDROCK_CHAT",
    "EFFORT_THINKING_BUDGETS",
    "AsyncBaseProviderLM",
    "AwsCredentials",
    "BaseProviderLM",
    "BearerToken",
    "ChainContext",
    "CredentialSource",
    "HttpResponse",
    "NetworkError",
    "TransportRequest",
    "adapt",
    "anthropic_adaptive_class",
    "attach_error_metadata",
    "data_part_text",
    "is_planning",
    "media_base64",
    "nearest_effort",
    "parts_to_text",
    "resolve",
    "resolve_credential_value",
    "sign",
    "utc_now",
]
