"""Validate a CallError that a program raised itself, so that its attributes hold what their readers expect."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

from dspy_lambda.introspection import arguments_of, attribute_of, bases_of, is_a, is_plain, namespace_of, plain_text

if TYPE_CHECKING:
    from dspy_lambda.errors import CallError

_FIELDS = ("outcome", "title", "status", "detail", "retry_after", "errors", "temporary")
_DETAIL_LENGTH = 2000
_ERROR_LENGTH = 100_000
_MAX_RETRY_SECONDS = 31 * 86_400


def normalized(error: CallError, kinds: tuple[type[CallError], ...]) -> CallError:
    """Return the error itself if it can be logged and answered safely, else a new one of its kind with its valid parts.

    Args:
        error: a CallError of any class, whose attributes may hold anything.
        kinds: the classes of `dspy_lambda.errors`; the last is the one for program failures.
    """
    base = kinds[-1].__base__
    assert base is not None
    trusted = (*kinds, base, Exception, BaseException, object)
    if is_plain(type(error), trusted, _FIELDS) and _has_sound_values(error, kinds):
        return error
    return _rebuilt(error, kinds)


def wait_seconds(value: Any) -> float | None:
    """Return the value as seconds to wait before a retry if it is a number from 0 to a month, else None."""
    if not is_a(value, int, float) or type(value) is bool:
        return None
    try:
        seconds = float.__float__(value) if is_a(value, float) else int.__float__(value)
    except OverflowError:
        return None
    return seconds if 0 <= seconds <= _MAX_RETRY_SECONDS else None


def _has_sound_values(error: CallError, kinds: tuple[type[CallError], ...]) -> bool:
    if not any(is_a(error, kind) for kind in kinds):
        return False  # a bare CallError has neither outcome nor status
    texts = (error.outcome, error.title, error.detail)
    if any(type(text) is not str for text in texts) or error.outcome not in {kind.outcome for kind in kinds}:
        return False
    if any(len(text) > _DETAIL_LENGTH for text in texts):
        return False  # it could exceed Lambda's response limit
    arguments = arguments_of(error)  # shown by `str` and `repr`
    if not (_is_status(error.status) and _are_flat(error.errors) and all(_is_scalar(value) for value in arguments)):
        return False
    wait = error.retry_after
    if not (wait is None or (_is_scalar(wait) and wait_seconds(wait) is not None)):
        return False
    return is_json([*texts, *arguments, error.errors]) and len(json.dumps([*arguments, error.errors])) < _ERROR_LENGTH


def _rebuilt(error: CallError, kinds: tuple[type[CallError], ...]) -> CallError:
    kind = next((kind for kind in kinds if is_a(error, kind)), kinds[-1])
    detail, status = attribute_of(error, "detail"), _status_of(error)
    return kind(
        plain_text(detail, _DETAIL_LENGTH) if is_a(detail, str) else kind.detail,
        status=status if _is_status(status) else None,
        retry_after=wait_seconds(attribute_of(error, "retry_after")),
    )


def _status_of(error: CallError) -> Any:
    """Return the status that the error or one of its classes sets, of any type."""
    own = attribute_of(error, "status")
    set_by = (namespace_of(base).get("status") for base in bases_of(type(error)))
    return next((status for status in (own, *set_by) if status is not None), None)


def _is_status(status: Any) -> bool:
    return type(status) is int and 400 <= status <= 599


def _are_flat(errors: Any) -> bool:
    """Whether `errors` is None or a list of dicts of plain values and of lists of plain values."""
    if errors is None:
        return True
    if type(errors) is not list or any(type(item) is not dict for item in errors):
        return False
    parts = [part for item in errors for pair in item.items() for part in pair]
    lists = [part for part in parts if type(part) is list or type(part) is tuple]
    return all(_is_scalar(part) for part in itertools.chain(*lists)) and all(
        _is_scalar(part) or type(part) is list or type(part) is tuple for part in parts
    )


def _is_scalar(value: Any) -> bool:
    return any(type(value) is kind for kind in (str, int, float, bool, type(None)))


def is_json(value: Any) -> bool:
    """Whether a value can be written as JSON in UTF-8: no NaN, no lone surrogate."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except Exception:  # a tuple as a key, a cycle, too many levels
        return False
    return True
