"""How a setting's variable is read: each kind by one rule, and an empty one counts as not set."""

from __future__ import annotations

from collections.abc import Mapping

from dspy_lambda.errors import ConfigError

_MOST_DIGITS = 15  # more than any duration or size has; a float holds so many exactly
_ON, _OFF = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def flag(variables: Mapping[str, str], name: str, default: bool = False) -> bool:
    """A switch.

    Raises:
        ConfigError: it is set to none of the words that switch on or off.
    """
    word = variables.get(name, "").strip().lower()
    if word in _ON:
        return True
    if word and word not in _OFF:
        raise ConfigError(f"{name}: must be true or false (or 1, 0, yes, no, on, off), not {word[:40]!r}.")
    return default if not word else False


def whole_number(variables: Mapping[str, str], name: str, default: int | None) -> int | None:
    """A number without a fraction or a sign, of at most 15 digits.

    Raises:
        ConfigError: it is set to anything else.
    """
    text = variables.get(name)
    if not text:
        return default
    if not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise ConfigError(f"{name}: must be a whole number, not {text[:40]!r}.")
    return int(text)


def choice(variables: Mapping[str, str], name: str, default: str, words: tuple[str, ...]) -> str:
    """One of some words.

    Raises:
        ConfigError: it is set to another word.
    """
    word = variables.get(name, "").strip().lower() or default
    if word not in words:
        raise ConfigError(f"{name}: must be one of {', '.join(words)}, not {word[:40]!r}.")
    return word
