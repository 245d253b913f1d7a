"""Events that no gateway sends: real ones with a few values replaced, deleted, duplicated or swapped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

Place = tuple[Any, Any]  # a container and the key or index of one of its values

_NUMBERS = [0, -1, 1e308, -1e308, float("inf"), float("nan"), 2**53 + 1, 10**30, 10**400, -62_135_596_800_000, 1e-320]
_TEXTS = [
    *("", " ", "null", "NaN", "-Infinity", "0", "-1", "١٢", "²", "9" * 5000, "1e999", "true", "{}", "[]", '"', "{"),
    *("\ud800", "a\udfffb", "\x00", "\u2028", "\r\nx: y", "\ufeff{}", "é", "🦊", "b'bytes'", "\\xff\\xfe", "/../", "%"),
    *("x" * 100_000, "🦊" * 20_000, "[" * 5000, "a:b:c:d:e:f", "2.0", "aws:sqs", "AAA=", "POST", "$default"),
]
_KEYS = ["", " ", "\ud800", "\x00", "🦊", "__class__", "a" * 5000, "\r\n", "program", "inputs", "Records", "elb", "1"]


def mutate(event: Any, rng: Random) -> Any:
    """An event with one to five mutations, read from JSON as the runtime client reads it."""
    held = {"event": json.loads(json.dumps(event))}
    for _ in range(rng.randint(1, 5)):
        places = list(_places(held))
        if places:
            _mutate(*rng.choice(places), rng)
    try:
        return json.loads(json.dumps(held.get("event")))
    except RecursionError:  # the runtime client itself fails on it
        return None


def _places(value: Any) -> Iterator[Place]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(items):
        yield value, key
        if isinstance(inner, dict | list) and len(inner) < 100:
            yield from _places(inner)


def _mutate(container: Any, key: Any, rng: Random) -> None:
    kind = rng.choice(["replace", "replace", "delete", "copy", "swap", "wrap", "text", "text", "text"])
    value = container[key]
    if kind == "delete":
        del container[key]
    elif kind == "copy":
        _copy(container, value, rng)
    elif kind == "swap":
        other = rng.choice(list(container) if isinstance(container, dict) else range(len(container)))
        container[key], container[other] = container[other], value
    elif kind == "wrap":
        container[key] = rng.choice([[value], {"0": value}, json.dumps(value), str(value)])
    elif kind == "text" and isinstance(value, str):
        container[key] = _mutate_text(value, rng)
    else:
        container[key] = _value(rng)


def _copy(container: Any, value: Any, rng: Random) -> None:
    if isinstance(container, dict):
        container[rng.choice([*_KEYS, *container])] = value
    else:
        container.insert(rng.randint(0, len(container)), value)


def _mutate_text(text: str, rng: Random) -> str:
    """Mutate the JSON in a string or, if it holds none, the string itself."""
    try:
        held = {"": json.loads(text)}
    except (ValueError, RecursionError):
        held = {}
    if held and rng.random() < 0.7:
        _mutate(*rng.choice(list(_places(held))), rng)
        return json.dumps(held.get(""))
    start, end = sorted(rng.randint(0, len(text)) for _ in range(2))
    return text[:start] + rng.choice([*_TEXTS, *_KEYS]) + text[end:]


def _value(rng: Random) -> Any:
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.choice(_NUMBERS)
    if kind == 2:
        return {rng.choice(_KEYS): rng.choice([None, {}, 1, "x"]) for _ in range(rng.randint(0, 3))}
    if kind == 3:
        return _nested(rng.choice([1, 10, 199, 201, 400]), rng.random() < 0.5)
    if kind == 4 and rng.random() < 0.1:
        return [rng.choice([0, None, "x"])] * rng.choice([1000, 20_000])
    return rng.choice(_TEXTS)


def _nested(depth: int, in_lists: bool) -> Any:
    value: Any = [] if in_lists else {}
    for _ in range(depth):
        value = [value] if in_lists else {"a": value}
    return value
