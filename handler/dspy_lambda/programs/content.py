"""DSPy's content types (Image, Audio, File, Document, Citations) as plain JSON, and what callers may put into them.

DSPy writes such a value into a prompt as text between two markers, and turns what it finds between them into content
parts: its serializers write the same text, and a caller's text could contain it.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Mapping
from typing import Any, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel

MARKER = "<<CUSTOM-TYPE-START-IDENTIFIER>>"
_BYTES = MARKER.encode()
_LOCAL_NAMES = (".internal", ".local", ".localhost", ".localdomain")

Errors = Iterator[dict[str, Any]]


def has_marker(outputs: bytes) -> bool:
    """Whether serialized outputs contain a content type as DSPy's serializers write it."""
    return _BYTES in outputs


def plain(value: Any) -> Any:
    """Convert a result to what JSON can represent, with the fields of content types instead of their text."""
    if isinstance(value, BaseModel):
        return _fields(value) if _is_written_with_marker(value) else value
    if hasattr(value, "toDict"):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return value


def _fields(model: BaseModel) -> dict[str, Any]:
    kind = type(model)
    shown = [name for name, field in kind.model_fields.items() if not field.exclude]
    return {name: plain(getattr(model, name)) for name in (*shown, *kind.model_computed_fields)}


def _is_written_with_marker(model: BaseModel) -> bool:
    try:
        return MARKER in model.model_dump_json()
    except Exception:  # it may hold what only `payload` can serialize
        return False


def contains_marker(value: Any) -> bool:
    """Whether a parsed JSON value contains DSPy's marker; it would add images or files to any program's prompt."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if MARKER in item:
                return True
        elif isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return False


def holds_image(hint: Any, within: tuple[Any, ...] = ()) -> bool:
    """Whether values of a hint may be or contain a `dspy.Image`."""
    from dspy import Image

    if isinstance(hint, type) and issubclass(hint, BaseModel):
        if issubclass(hint, Image) or hint in within:
            return issubclass(hint, Image)
        return any(holds_image(field.annotation, (*within, hint)) for field in hint.model_fields.values())
    return any(holds_image(argument, within) for argument in get_args(hint))


def marker_errors(value: Any, location: tuple[str | int, ...] = ()) -> Errors:
    """Yield an error for each text of a parsed JSON value that contains DSPy's marker."""
    if isinstance(value, str):
        if MARKER in value:
            yield {"loc": [*location], "msg": "Input should not contain DSPy's content marker", "type": "value_error"}
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from marker_errors(key, location)
            yield from marker_errors(item, (*location, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from marker_errors(item, (*location, index))


def address_errors(value: Any, location: tuple[str | int, ...]) -> Errors:
    """Yield an error for each image by an address inside this network, which only the function could reach.

    A provider fetches an image by its URL, but LiteLLM fetches it itself for some providers.

    Args:
        value: a validated input.
    """
    if isinstance(value, BaseModel):
        url = getattr(value, "url", None)
        if type(value).__name__ == "Image" and isinstance(url, str) and not _is_for_callers(url):
            message = "Input should be a data URI or a URL with a public address"
            yield {"loc": [*location], "msg": message, "type": "value_error"}
        for name in type(value).model_fields:
            yield from address_errors(getattr(value, name), (*location, name))
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from address_errors(item, (*location, key))
    elif isinstance(value, list | tuple | set | frozenset):
        for index, item in enumerate(value):
            yield from address_errors(item, (*location, index))


def _is_for_callers(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return False
    if parts.scheme not in ("http", "https"):
        return parts.scheme in ("data", "gs")
    address = _ip_address(host)
    if address is not None:
        mapped = getattr(address, "ipv4_mapped", None)
        return (mapped or address).is_global
    return "." in host and not host.lower().endswith(_LOCAL_NAMES)


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))  # also 127.1, 0x7f000001 and 2130706433
    except (OSError, ValueError):
        return None
