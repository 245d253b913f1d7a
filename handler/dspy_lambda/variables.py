"""Read a setting's variable: one rule for each kind, and an empty variable counts as not set."""

from __future__ import annotations

from collections.abc import Mapping

from dspy_lambda.errors import ConfigError

_MAX_DIGITS = 15  # enough for any duration or size, and a float represents as many exactly
_ON, _OFF = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def flag(variables: Mapping[str, str], name: str, default: bool = False) -> bool:
    """Read a switch.

    Raises:
        ConfigError: The value is not one of the words for on or off.
    """
    word = variables.get(name, "").strip().lower()
    if word in _ON:
        return True
    if word and word not in _OFF:
        raise ConfigError(f"{name}: must be true or false (or 1, 0, yes, no, on, off), not {word[:40]!r}.")
    return default if not word else False


def whole_number(variables: Mapping[str, str], name: str, default: int | None) -> int | None:
    """Read a whole number without a sign and with at most 15 digits.

    Raises:
        ConfigError: The value is anything else.
    """
    text = variables.get(name)
    if not text:
        return default
    if not text.isdecimal() or len(text) > _MAX_DIGITS:
        raise ConfigError(f"{name}: must be a whole number, not {text[:40]!r}.")
    return int(text)


def choice(variables: Mapping[str, str], name: str, default: str, words: tuple[str, ...]) -> str:
    """Read one of several words.

    Raises:
        ConfigError: The value is another word.
    """
    word = variables.get(name, "").strip().lower() or default
    if word not in words:
        raise ConfigError(f"{name}: must be one of {', '.join(words)}, not {word[:40]!r}.")
    return word
