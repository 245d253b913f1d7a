"""DSPy's content types (Image, Audio, File, Document, Citations) as plain JSON, and what callers may put into them.

DSPy writes such a value into a prompt as text between two markers, and turns what it finds between them into content
parts: its serializers write the same text, and a caller's text could contain it.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import socket
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args, get_type_hints
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel

MARKER = "<<CUSTOM-TYPE-START-IDENTIFIER>>"
_BYTES = MARKER.encode()
_LOCAL_NAMES = (".internal", ".local", ".localhost", ".localdomain")
_AS_CLIENTS_DO = {0x3002: ".", 0xFF61: ".", 0xAD: None}  # ideographic full stops, and a hyphen that is not shown
_HOST = re.compile(r"[\w.:-]+")
# IPv6 addresses that end with an IPv4 one: compatible and translated ones, and those of NAT64.
_HOLD_IPV4 = tuple(map(ipaddress.IPv6Network, ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96")))

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
    """Whether an input contains DSPy's marker; it would add images or files to any program's prompt."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str | bytes):
            if _marks(item):
                return True
        else:
            if isinstance(item, Mapping):
                waiting.extend(item)
            waiting.extend(part for _, part in _parts(item))
    return False


def _marks(text: str | bytes) -> bool:
    return MARKER in text if isinstance(text, str) else _BYTES in text


def _parts(value: Any) -> Iterable[tuple[str | int, Any]]:
    """Return what an input is made of, with the keys, positions or names of its parts; nothing for plain values."""
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, list | tuple | set | frozenset):
        return enumerate(value)
    if isinstance(value, BaseModel):
        return vars(value).items()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return ()


def holds_image(hint: Any, seen: set[Any] | None = None) -> bool:
    """Whether values of a hint may be or contain a `dspy.Image` or a `dspy.File`.

    Args:
        seen: classes and aliases that were already looked into.
    """
    from dspy import File, Image

    seen = set() if seen is None else seen
    inner: Iterable[Any] = get_args(hint)
    if hasattr(hint, "__value__"):  # `type X = ...`, of Python's own class or of typing_extensions'
        inner = (hint.__value__,)
    elif isinstance(hint, type) and (issubclass(hint, BaseModel) or hasattr(hint, "__annotations__")):
        if issubclass(hint, Image | File):
            return True
        inner = _field_hints(hint)
    else:
        return any(holds_image(argument, seen) for argument in inner)
    # The hints of pydantic's own classes, such as SecretStr, lead to its schemas, whose every path would take forever.
    if hint in seen or hint.__module__.startswith("pydantic."):
        return False
    seen.add(hint)
    return any(holds_image(argument, seen) for argument in inner)


def _field_hints(kind: type) -> Iterable[Any]:
    """Return the hints of a model's, a dataclass's, a TypedDict's or a NamedTuple's fields."""
    if issubclass(kind, BaseModel):
        return [field.annotation for field in kind.model_fields.values()]
    try:
        return get_type_hints(kind).values()
    except Exception:  # a name that is imported for the type checker only
        return ()


def marker_errors(value: Any, location: tuple[str | int, ...] = ()) -> Errors:
    """Yield an error for each text of an input that contains DSPy's marker."""
    if isinstance(value, str | bytes):
        if _marks(value):
            yield {"loc": [*location], "msg": "Input should not contain DSPy's content marker", "type": "value_error"}
        return
    for key, item in _parts(value):
        if isinstance(value, Mapping):
            yield from marker_errors(key, location)
        yield from marker_errors(item, (*location, key))


def address_errors(value: Any, location: tuple[str | int, ...]) -> Errors:
    """Yield an error for each image or file by an address inside this network, which only the function could reach.

    A provider fetches an image by its URL, but LiteLLM fetches it itself for some providers.

    Args:
        value: a validated input.
    """
    from dspy import File, Image

    if isinstance(value, File):
        for name in ("file_data", "file_id"):  # LiteLLM downloads either
            text = getattr(value, name)
            if text and "://" in text and not _is_for_callers(text.strip()):
                message = "Input should not be a private address"
                yield {"loc": [*location, name], "msg": message, "type": "value_error"}
    if isinstance(value, Image) and not _is_for_callers(value.url):
        message = "Input should be a data URI or a URL with a public address"
        yield {"loc": [*location], "msg": message, "type": "value_error"}
    for key, item in _parts(value):
        yield from address_errors(item, (*location, key))


def _is_for_callers(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # As HTTP clients read a host: some take full-width characters and a backslash, and decode what is encoded.
        host = unicodedata.normalize("NFKC", unquote(parts.hostname or "")).translate(_AS_CLIENTS_DO).rstrip(".")
    except ValueError:
        return False
    if parts.scheme not in ("http", "https"):
        return parts.scheme == "data"
    if "\\" in parts.netloc or not _HOST.fullmatch(host):
        return False
    address = _ip_address(host)
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and any(address in network for network in _HOLD_IPV4):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        address = inner or address
    if address is not None:
        return address.is_global and not address.is_multicast
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
