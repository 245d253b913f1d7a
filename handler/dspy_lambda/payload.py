"""JSON in and JSON out: request bodies to inputs, results to outputs."""

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

MAX_BODY_BYTES = 6_000_000
_MOST_GROWTH = 6
# What dspy.ReAct, CodeAct, RLM and ReActV2 add to the outputs: what their tools returned is in it, of any class.
_STEPS = ("trajectory", "history")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class AnswerLimit:
    """How large outputs may be on their way out.

    Attributes:
        bytes: what Lambda or the load balancer passes on, less what goes around the outputs.
        as_text: whether they travel as a text within the answer's JSON, as an HTTP body does.
    """

    bytes: int
    as_text: bool


def read_json(body: bytes | str) -> Any:
    """The JSON value of a request or record body.

    Raises:
        InvalidInput: 413 over 6,000,000 bytes; 400 where it is empty, not JSON, nested over 200 levels or holds
            an integer of over 4,300 digits (the parser's limits); 422 where it holds half a surrogate pair.
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
    """A value that the runtime client has parsed already, by the same rules as a body.

    Raises:
        InvalidInput: as `read_json` does.
    """
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"The inputs cannot be read: {type(error).__name__}.", status=400) from None
    return read_json(text)


def _has_half_a_pair(body: bytes) -> bool:
    # The strict parser reports half a surrogate pair as broken JSON; the standard library's lets it through.
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        pass
    return False


def _half_a_pair() -> InvalidInput:
    return InvalidInput("The text holds half of a surrogate pair, which no model can be sent.")


def to_outputs(result: Any, limit: AnswerLimit | None = None, field: str = "result") -> bytes:
    """A program's result as the JSON text of an object; NaN and infinities become null.

    Args:
        limit: what the text may come to on its way out.
        field: what a result that is not an object is called.

    Raises:
        OutputTooLarge: it is over the limit.
        ProgramFailed: the result holds something that JSON cannot, or that no parser reads back.
    """
    if isinstance(result, Iterator | AsyncIterator | Awaitable):
        # Not read to its end here: what is left of the program would run past its own LMs and context.
        if isinstance(result, Coroutine):
            result.close()
        raise _not_json(class_name(type(result)))
    if hasattr(result, "toDict"):
        result = result.toDict()
    text = _encode(result, field)
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
        from_json(text)  # what cannot be read back (an integer of over 4,300 digits) is not sent
    except (PydanticSerializationError, ValueError, TypeError, RecursionError) as error:
        raise _not_json(*unknown[:1]) from error
    return text


def _not_json(what: str = "too large a number, too deep, within itself, or its serializer raised") -> ProgramFailed:
    return ProgramFailed(
        f"JSON cannot hold the program's result ({what}); "
        "return a Prediction, a dict, a pydantic model or plain values."
    )


def check_size(text: bytes, limit: AnswerLimit) -> None:
    """Refuse outputs that would not fit through: the runtime client ends with the environment on a refused answer.

    What counts is the size over the wire: within an HTTP answer's JSON every quote is escaped once more, and the
    runtime client of Python 3.11 escapes all that is not ASCII. Neither makes more than six bytes of one, so that only
    what is over a sixth of the limit is looked at twice.

    Raises:
        OutputTooLarge: with both sizes.
    """
    if len(text) * _MOST_GROWTH <= limit.bytes:
        return
    value = text.decode() if limit.as_text else from_json(text)
    wire = json.dumps(value, ensure_ascii=_escapes_all())
    size = len(wire) if wire.isascii() else len(wire.encode())
    if size > limit.bytes:
        raise OutputTooLarge(f"The outputs come to {size:,} bytes on their way out; the limit is {limit.bytes:,}.")


@cache
def _escapes_all() -> bool:
    """Source: awslambdaric 4.2.2, lambda_runtime_marshaller.py."""
    version = os.environ.get("AWS_EXECUTION_ENV", "").removeprefix("AWS_Lambda_python3.")
    return not (version.isdecimal() and int(version) >= 12)


def _to_json(value: Any, unknown: list[str]) -> bytes:
    """Args: unknown: gets the name of the class that JSON has nothing for."""

    def to_dict(item: Any) -> Any:
        """A Prediction within the result."""
        if hasattr(item, "toDict"):
            return item.toDict()
        unknown.append(class_name(type(item)))
        raise TypeError

    # Models by their fields' names, as `Prediction.toDict` writes those within it, whatever their aliases.
    return to_json(value, by_alias=False, inf_nan_mode="null", bytes_mode="base64", fallback=to_dict)


def _sendable(value: Any) -> Any:
    """The value with what a model or a tool put there as JSON can hold it.

    Half a surrogate pair in a model's answer: the runtime client encodes the answer outside of its own error handling,
    so that it would end the execution environment. An object that an agent's tool returned: nobody declared it as an
    output, and the call is paid for.
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
    """The value with what JSON cannot hold as text, as the model saw it."""
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
