"""Convert request bodies to inputs, and results to outputs: JSON in and JSON out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from dspy_lambda.errors import InvalidInput, OutputTooLarge, ProgramFailed
from dspy_lambda.introspection import class_name
from dspy_lambda.programs.content import has_marker, plain

MAX_BODY_BYTES = 6_000_000
_MAX_GROWTH = 6
# Fields that dspy.ReAct, CodeAct, RLM and ReActV2 add to the outputs. They hold tools' results, of any class.
_STEPS = ("trajectory", "history")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class AnswerLimit:
    """The maximum size of outputs in a response.

    Attributes:
        bytes: the response limit of Lambda or the load balancer, minus what surrounds the outputs.
        as_text: whether the outputs are a JSON string within the response, as an HTTP body is.
    """

    bytes: int
    as_text: bool


def read_json(body: bytes | str) -> Any:
    """Parse the JSON body of a request or record.

    Raises:
        InvalidInput: 413 if the body is over 6,000,000 bytes; 400 if it is empty, not JSON, nested over 200 levels or
            has an integer of over 4,300 digits (the parser's limits); 422 if it has half of a surrogate pair.
    """
    if isinstance(body, str):
        try:
            body = body.encode()
        except UnicodeEncodeError:
            raise _half_a_pair() from None
    if len(body) > MAX_BODY_BYTES:
        raise InvalidInput(f"The body is over {MAX_BODY_BYTES:,} bytes.", status=413)
    if not body.strip():
        raise InvalidInput("The body is empty; send a JSON object.", status=400)
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        if _has_half_a_pair(body):
            raise _half_a_pair() from None
        raise InvalidInput(f"The body is not JSON that can be read: {error}.", status=400) from None


def read_value(value: Any) -> Any:
    """Check a value that the runtime client has already parsed, by the same rules as a body.

    Raises:
        InvalidInput: As for `read_json`.
    """
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"The inputs cannot be read: {type(error).__name__}.", status=400) from None
    return read_json(text)


def _has_half_a_pair(body: bytes) -> bool:
    # The strict parser reports half of a surrogate pair as invalid JSON; the standard library accepts it.
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        pass
    return False


def _half_a_pair() -> InvalidInput:
    return InvalidInput("The text contains half of a surrogate pair, which cannot be sent to a model.")


def to_outputs(result: Any, limit: AnswerLimit | None = None, field: str = "result") -> bytes:
    """Serialize a program's result to a JSON object; NaN and infinities become null.

    Args:
        limit: the maximum size in the response.
        field: the name for a result that is not an object.

    Raises:
        OutputTooLarge: The outputs exceed the limit.
        ProgramFailed: The result contains something that JSON cannot represent or that cannot be parsed again.
    """
    if isinstance(result, Iterator | AsyncIterator | Awaitable):
        # Not consumed here: the rest of the program would run outside its LMs and context.
        if isinstance(result, Coroutine):
            result.close()
        raise _not_json(class_name(type(result)))
    text = _encode(result.toDict() if hasattr(result, "toDict") else result, field)
    if has_marker(text):
        text = _encode(plain(result), field)
    if limit is not None:
        check_size(text, limit)
    return text


def _encode(result: Any, field: str) -> bytes:
    unknown: list[str] = []
    try:
        try:
            text = _to_json(result, unknown)
        except (UnicodeEncodeError, PydanticSerializationError):
            unknown.clear()
            text = _to_json(_sendable(result), unknown)
        if not text.startswith(b"{"):
            text = b"{%s:%s}" % (to_json(field), text)
        from_json(text)  # refuse what cannot be parsed again, such as an integer of over 4,300 digits
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise _not_json(*unknown[:1]) from error
    return text


def _not_json(what: str = "a number too large, too deeply nested, a cycle, or its serializer raised") -> ProgramFailed:
    return ProgramFailed(
        f"JSON cannot represent the program's result ({what}); "
        "return a Prediction, a dict, a pydantic model or plain values."
    )


def check_size(text: bytes, limit: AnswerLimit) -> None:
    """Refuse outputs that exceed the response limit: when Lambda rejects a response, the environment ends.

    The size on the wire counts: as an HTTP body every quote is escaped again, and the runtime client of Python 3.11
    escapes all non-ASCII characters. Neither turns one byte into more than six, so only outputs over a sixth of the
    limit are measured exactly.

    Raises:
        OutputTooLarge: The outputs are too large; the message has both sizes.
    """
    if len(text) * _MAX_GROWTH <= limit.bytes:
        return
    value = text.decode() if limit.as_text else from_json(text)
    wire = json.dumps(value, ensure_ascii=_escapes_all())
    size = len(wire) if wire.isascii() else len(wire.encode())
    if size > limit.bytes:
        raise OutputTooLarge(f"The outputs take {size:,} bytes in the response; the limit is {limit.bytes:,}.")


@cache
def _escapes_all() -> bool:
    """Source: awslambdaric 4.2.2, lambda_runtime_marshaller.py."""
    version = os.environ.get("AWS_EXECUTION_ENV", "").removeprefix("AWS_Lambda_python3.")
    return not (version.isdecimal() and int(version) >= 12)


def _to_json(value: Any, unknown: list[str]) -> bytes:
    """Serialize to JSON, and add the name of a class that JSON cannot represent to `unknown`."""

    def to_dict(item: Any) -> Any:
        """Convert a nested Prediction."""
        if hasattr(item, "toDict"):
            return item.toDict()
        unknown.append(class_name(type(item)))
        raise TypeError

    # By field name, not by alias, as `Prediction.toDict` writes nested models.
    return to_json(value, by_alias=False, inf_nan_mode="null", bytes_mode="base64", fallback=to_dict)


def _sendable(value: Any) -> Any:
    """Replace what a model or a tool returned and JSON cannot represent.

    A model's answer may contain half of a surrogate pair: the runtime client encodes the response outside its error
    handling, so the error would end the execution environment. A tool of an agent may return an object, which was not
    declared as an output and must not fail a call that is already paid for.
    """
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {
            _sendable(key) if isinstance(key, str) else key: _sendable(_as_texts(item) if key in _STEPS else item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_sendable(item) for item in value]
    return _sendable(value.toDict()) if hasattr(value, "toDict") else value


def _as_texts(value: Any) -> Any:
    """Convert what JSON cannot represent to text, as the model saw it."""
    if isinstance(value, dict):
        return {key if isinstance(key, str | int) else _text(key): _as_texts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_texts(item) for item in value]
    try:
        _to_json(value, [])
    except UnicodeEncodeError:
        return value
    except Exception:
        return _text(value)
    return value


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception:
        return class_name(type(value))
