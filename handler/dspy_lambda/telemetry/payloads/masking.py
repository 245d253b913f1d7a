"""The rules of `payloads: masked` and `full`: which fields and texts are replaced before anything is written."""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

from dspy import Example
from pydantic import BaseModel, SecretBytes, SecretStr

from dspy_lambda.introspection import class_name
from dspy_lambda.key_shapes import mask_keys
from dspy_lambda.telemetry.payloads.hidden import MASKED, Hidden, as_text
from dspy_lambda.telemetry.payloads.media import media_of, without_base64
from dspy_lambda.telemetry.payloads.sections import mask_sections

# Credentials of requests: never written, not even by `full`.
CREDENTIALS = (
    *("authorization", "api_key", "session_token", "security_token", "secret_access_key", "aws_access_key_id"),
)
# Names, and ends of names, that `masked` replaces without being told: db_password, clientSecret, set-cookie.
SECRETS = (
    *("password", "passwd", "passphrase", "pwd", "passcode", "secret", "secrets", "token", "credential", "credentials"),
    *("access_key", "secret_key", "private_key", "signing_key", "encryption_key", "cookie", "cookies", "session_id"),
    *("jwt", "otp", "ssn", "social_security_number", "credit_card", "card_number", "cvv", "cvc", "pin_code"),
)
_BEARER = re.compile(r"\b(Bearer\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_BASIC = re.compile(r"\b(Basic\s+)(?=[A-Za-z+/]{0,400}[0-9=])[A-Za-z0-9+/=]{8,}", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"(://[^/\s:@]{0,100}:)[^@\s/]{1,200}(?=@)")
_SIGNS = re.compile(r"[\W_]+")
# Classes whose text is their whole value, by module.
_WRITTEN_AS_TEXT = {"datetime", "decimal", "uuid", "pathlib", "fractions", "ipaddress", "pydantic.networks"}
_MAX_LEVELS = 40
_MAX_VALUES = 10_000
_MAX_NAME_LENGTH = 200
Hook = Callable[[str, Any], Any]


def normalized(name: str) -> str:
    """Return a field's name in the form in which names are compared: api_key, API-KEY and apiKey are the same.

    So are full-width letters, letters with invisible characters between them, and `api:key` or `api_key[]`.
    """
    name = name[:_MAX_NAME_LENGTH]
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name)
    return _SIGNS.sub("", name).casefold()


def _ends(form: str, ends: tuple[str, ...]) -> bool:
    """Whether a normalized name ends so, also with a number (password2) or in plural; max_tokens is no secret."""
    form = form.rstrip("0123456789")
    return form.endswith(ends) or (form.endswith("s") and not form.endswith("tokens") and form[:-1].endswith(ends))


_CREDENTIAL_ENDS = tuple(map(normalized, CREDENTIALS))
_SECRET_ENDS = tuple(map(normalized, (*CREDENTIALS, *SECRETS)))


def is_secret_name(name: str) -> bool:
    """Whether a name is, or ends with, one that `masked` replaces by default."""
    return _ends(normalized(name), _SECRET_ENDS)


class Masks:
    """The rules of one program.

    Args:
        names: fields to mask besides the default ones, at any depth.
        patterns: what to replace in every text.
        hook: called with the name and the value of each field that is not masked by its name; returns the value to
            write. What it replaces is removed from the call's free texts, too.
        masks_secrets: whether to mask fields by the default names; credentials are masked in any case.
    """

    def __init__(
        self,
        names: Iterable[str] = (),
        patterns: Iterable[re.Pattern[str]] = (),
        hook: Hook | None = None,
        *,
        masks_secrets: bool = True,
    ) -> None:
        self._names = frozenset(map(normalized, names))
        self._ends = _SECRET_ENDS if masks_secrets else _CREDENTIAL_ENDS
        self._patterns = tuple(patterns)
        self._hook = hook
        self._known: dict[str, bool] = {}

    def is_masked(self, name: str) -> bool:
        """Whether a field is masked by its name."""
        known = self._known.get(name)
        if known is None:
            form = normalized(name)
            known = form in self._names or _ends(form, self._ends)
            if len(self._known) < _MAX_VALUES:  # callers choose some of them
                self._known[name] = known
        return known

    def fields(self, value: Any, hidden: Hidden) -> Masking:
        """Return the value as plain JSON with masked fields replaced, and note what to remove from texts."""
        return Masking(self, self._hook, hidden, value)

    def note_sections(self, text: str, hidden: Hidden) -> None:
        """Note the values of masked sections, which the rest of the text and other texts may repeat."""
        mask_sections(text, self.is_masked, MASKED, hidden.note)

    def text(self, text: str) -> str:
        """Return a text with masked sections, patterns, keys by their shape and encoded data replaced."""
        text = mask_sections(without_base64(text), self.is_masked, MASKED)
        for pattern in self._patterns:
            text = pattern.sub(MASKED, text)
        return mask_credentials(text)


def mask_credentials(text: str) -> str:
    """Replace what only credentials look like."""
    lower = text.lower()
    if "bearer" in lower:
        text = _BEARER.sub(rf"\1{MASKED}", text)
    if "basic" in lower:
        text = _BASIC.sub(rf"\1{MASKED}", text)
    if "://" in text:
        text = _PASSWORD_IN_URL.sub(rf"\1{MASKED}", text)
    return mask_keys(text, MASKED)


class Masking:
    """One value made plain: only what JSON has, without any code of the value's classes, and with masked fields.

    Attributes:
        value: the result; its texts still have to be masked.
        hook_error: an exception that the hook raised.
    """

    def __init__(self, masks: Masks, hook: Hook | None, hidden: Hidden, value: Any) -> None:
        self._masks = masks
        self._hook = hook
        self._hidden = hidden
        self._left = _MAX_VALUES
        self.hook_error: Exception | None = None
        self.value = self._plain(value, _MAX_LEVELS)

    def _plain(self, value: Any, levels: int) -> Any:
        if value is None or isinstance(value, bool | str):
            return value
        if isinstance(value, int | float):
            return value if value == value and as_text(value) is not None else class_name(type(value))
        if isinstance(value, SecretStr | SecretBytes):
            self._hide(value, levels)
            return MASKED
        self._left -= 1
        if not levels or self._left < 0:
            self._hidden.unsafe = True  # it may hold masked fields
            return "..."
        if (media := media_of(value, levels < _MAX_LEVELS)) is not None:
            return media
        named = named_parts(value)
        if named is not None:
            return {key: self._field(key, item, levels - 1) for key, item in self._within(named)}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._plain(item, levels - 1) for item in self._within(value)]
        return scalar_text(value)

    def _within(self, items: Iterable[Any]) -> Iterable[Any]:
        for item in items:
            if self._left < 0:
                self._hidden.unsafe = True
                return
            self._left -= 1
            yield item

    def _field(self, name: str, value: Any, levels: int) -> Any:
        if self._masks.is_masked(name):
            self._hide(value, levels)
            return None if value is None else MASKED
        if self._hook is not None:
            try:
                shown = self._hook(name, value)
                is_same = shown is value or (type(shown) is type(value) and bool(shown == value))
            except Exception as error:
                self.hook_error = error
                shown, is_same = MASKED, False
            if not is_same:
                self._hide(value, levels)
                value = shown
        return self._plain(value, levels)

    def _hide(self, value: Any, levels: int) -> None:
        """Note each text and number within a masked value."""
        self._left -= 1
        if value is None:
            return
        if isinstance(value, SecretStr | SecretBytes):
            value = value.get_secret_value()
        if isinstance(value, bytes | bytearray):
            value = value.decode("utf-8", "replace")
        if isinstance(value, str):
            self._hidden.add(str.__str__(value))
        elif isinstance(value, bool) or not levels or self._left < 0:
            self._hidden.unsafe = True
        elif isinstance(value, int | float):
            self._hidden.add(as_text(value) or "")
        elif (named := named_parts(value)) is not None:
            for key, item in named:
                if len(key.strip()) > 3:
                    self._hidden.add(key)
                self._hide(item, levels - 1)
        elif isinstance(value, list | tuple | set | frozenset):
            for item in value:
                self._hide(item, levels - 1)
        elif (text := scalar_text(value)).startswith("("):
            self._hidden.unsafe = True
        else:
            self._hidden.add(text)


def named_parts(value: Any) -> list[tuple[str, Any]] | None:
    """Return the fields of an object: of a mapping, a pydantic model, a dataclass or a `dspy.Example`."""
    if isinstance(value, Example):  # and dspy.Prediction
        return [(_name(key), item) for key, item in Example.items(value)]
    if isinstance(value, dict):
        return [(_name(key), item) for key, item in dict.items(value)]
    if isinstance(value, Mapping):
        return [(_name(key), item) for key, item in value.items()]
    if isinstance(value, BaseModel):
        return list({**vars(value), **(value.__pydantic_extra__ or {})}.items())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value)]
    return None


def _name(key: Any) -> str:
    return str.__str__(key) if isinstance(key, str) else scalar_text(key)


def scalar_text(value: Any) -> str:
    """Return the text of a value of Python's own classes; of any other one only its class, in parentheses."""
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, int | float):
        return as_text(value) or f"({class_name(type(value))})"
    if isinstance(value, Enum):
        held = value.value
        return str.__str__(held) if isinstance(held, str) else scalar_text(held)
    if isinstance(value, bytes | bytearray):
        return f"({len(value):,} bytes)"
    if type(value).__module__ in _WRITTEN_AS_TEXT:
        return str(value)
    return f"({class_name(type(value))})"
