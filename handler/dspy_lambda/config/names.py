"""Detect keys that were pasted into a config where a name belongs."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

_LONG_NAME = 20  # characters of the shortest key; shorter names are not checked


def _no_key(name: str) -> str:
    if _is_key(name):
        raise ValueError("looks like a key; write the name of the variable that holds it, such as OPENAI_API_KEY")
    return name


def _is_key(name: str) -> bool:
    if len(name) < _LONG_NAME:
        return False
    from dspy_lambda.key_shapes import is_key_for_name

    return is_key_for_name(name)


def shown(name: str) -> str:
    """Return a name from the config for use in messages, or `...` if it looks like a key."""
    return "..." if _is_key(name) else name


# Not a key pasted into the wrong place, which would end up in messages, variables and ARNs.
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"), AfterValidator(_no_key)]
