"""JSON in and JSON out: request bodies to inputs, results to outputs."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json, to_jsonable_python

from handler.errors import InvalidInput

MAX_BODY_BYTES = 6_000_000
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_BAD_JSON = "The body is not JSON that can be read"


def read_json(body: bytes | str) -> Any:
    """The JSON value of a request or record body.

    Raises:
        InvalidInput: 413 over 6,000,000 bytes; 400 where it is empty, not JSON, nested over 200 levels or holds
            an integer of over 4,300 digits (the parser's limits); 422 where it holds a lone surrogate.
    """
    if isinstance(body, str):
        try:
            body = body.encode()
        except UnicodeEncodeError:
            raise _lone_surrogate() from None
    if len(body) > MAX_BODY_BYTES:
        raise InvalidInput(f"The body is over {MAX_BODY_BYTES:,} bytes.", status=413)
    if not body.strip():
        raise InvalidInput("The body is empty; send a JSON object.", status=400)
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        if _SURROGATE_ESCAPE.search(body) and _is_lenient_json(body):
            raise _lone_surrogate() from None
        raise InvalidInput(f"{_BAD_JSON}: {error}.", status=400) from None


def _is_lenient_json(body: bytes) -> bool:
    # The strict parser reports a lone surrogate as broken JSON; the standard library's takes it.
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _lone_surrogate() -> InvalidInput:
    return InvalidInput("The text holds half of a surrogate pair, which no model can be sent.")


def check_text(inputs: dict[str, Any]) -> None:
    """Refuse what only a direct invocation can bring: text that is not Unicode, or endless nesting."""
    try:
        json.dumps(inputs, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise _lone_surrogate() from None
    except RecursionError:
        raise InvalidInput("The inputs are nested too deeply.", status=400) from None


def to_outputs(result: Any) -> dict[str, Any]:
    """A program's result as a JSON object; NaN and infinities become null.

    Raises:
        PydanticSerializationError: the result holds something that JSON cannot.
    """
    if hasattr(result, "toDict"):
        result = result.toDict()
    try:
        outputs = _jsonable(result)
    except (UnicodeEncodeError, PydanticSerializationError):
        # The runtime client encodes the answer as UTF-8 outside of its own error handling: half a surrogate pair in a
        # model's answer would end the execution environment.
        outputs = _jsonable(_without_surrogates(result))
    return outputs if isinstance(outputs, dict) else {"result": outputs}


def _jsonable(value: Any) -> Any:
    plain = to_jsonable_python(value, inf_nan_mode="null", bytes_mode="base64")
    to_json(plain)  # refuses what cannot be encoded, which the line above lets through
    return plain


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    return value
