"""Values that match JSON Schemas, for the embedded model server's answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

# A schema may refer to itself; below this depth, lists are as short and choices as simple as the schema allows.
_DEEPEST = 4
_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "binary": "c2FtcGxl",
}
# Keyed by the last word of a field's name.
_NAMES = {
    "name": "Ada Lovelace",
    "email": _FORMATS["email"],
    "mail": _FORMATS["email"],
    "url": _FORMATS["uri"],
    "link": _FORMATS["uri"],
    "date": _FORMATS["date"],
    "phone": "+1 555 0100",
    "city": "Paris",
    "country": "France",
    "language": "English",
    "currency": "USD",
    "sql": "SELECT 1",
    "code": "print('sample')",
}
_NUMBERS = {
    **dict.fromkeys(("confidence", "probability", "score", "likelihood", "relevance"), 0.9),
    **dict.fromkeys(("share", "ratio", "fraction"), 0.5),
    **dict.fromkeys(("rating", "stars", "priority", "count"), 3),
    "age": 36,
    "year": 2026,
}
_PATTERN_SAMPLES = ("sample", "Sample", "SAMPLE", "a", "A", "1", "12", "123", "1234", "12345", "A1", "AB-123", "1.0.0")

# Returns a text for a field name; True means that it is one of several in a list.
Text = Callable[[str, bool], str]


class Example:
    """Generates values that match JSON Schemas.

    Args:
        definitions: the schemas' `$defs`.
    """

    def __init__(self, definitions: dict[str, Any], text: Text) -> None:
        self._definitions = definitions
        self._text = text

    def make(self, schema: dict[str, Any], name: str, depth: int = 0, *, listed: bool = False) -> Any:
        """Return a value for the field with that name; `listed` if it is one of several."""
        if "$ref" in schema:
            schema = {**self._definitions[schema["$ref"].rpartition("/")[2]], **schema}
            del schema["$ref"]
            return self.make(schema, name, depth, listed=listed)
        for choice in ("anyOf", "oneOf", "allOf"):
            if choice in schema:
                option = _choose(schema[choice], simple=depth > _DEEPEST)
                return self.make(option, name, depth, listed=listed)
        if "enum" in schema:
            return schema["enum"][0]
        if "const" in schema:
            return schema["const"]
        return self._of_type(schema, name, depth, listed)

    def _of_type(self, schema: dict[str, Any], name: str, depth: int, listed: bool) -> Any:
        match schema.get("type"):
            case "object":
                fields = {key: schema.get("properties", {}).get(key, {}) for key in schema.get("required", [])}
                return {key: self.make(field, key, depth + 1) for key, field in fields.items()}
            case "array":
                return self._list(schema, name, depth)
            case "integer" | "number":
                return _number(schema, name)
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return _string(schema, self._text(name, listed))

    def _list(self, schema: dict[str, Any], name: str, depth: int) -> list[Any]:
        one = name.removesuffix("s")
        if first := schema.get("prefixItems"):
            return [self.make(kind, one, depth + 1, listed=True) for kind in first]
        least, most = schema.get("minItems", 0), schema.get("maxItems", 1)
        kind = schema.get("items", {})
        count = max(least, min(1, most) if depth < _DEEPEST else 0)
        made = [self.make(kind, one, depth + 1, listed=True) for _ in range(count)]
        plain = set(kind) <= {"type"} and kind.get("type", "string") == "string"
        return [f"{value} {n}" if plain and n > 1 else value for n, value in enumerate(made, 1)]


def _choose(options: list[dict[str, Any]], *, simple: bool) -> dict[str, Any]:
    """Return the first option that is not null; or null if a simple one is wanted and null is allowed."""
    return min(options, key=lambda option: (option.get("type") == "null") != simple)


def _number(schema: dict[str, Any], name: str) -> float:
    """Return a number that suits the name if it is within the bounds, otherwise any number within them."""
    whole = schema["type"] == "integer"
    step = schema.get("multipleOf", 1)
    bounds = [schema[key] for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum") if key in schema]
    middle = sum(bounds) / len(bounds) if bounds else 0
    near = [number // step * step + more for number in bounds for more in (0, step, -step)]
    usual = 42 if whole else 4.2
    wanted = [_NUMBERS.get(_last_word(name), usual), usual, middle, middle // 1, *near, step]
    found = next((number for number in wanted if _fits(schema, number, whole)), usual)
    return int(found) if whole else found


def _fits(schema: dict[str, Any], number: float, whole: bool) -> bool:
    return (
        schema.get("minimum", number) <= number <= schema.get("maximum", number)
        and ("exclusiveMinimum" not in schema or number > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or number < schema["exclusiveMaximum"])
        and ("multipleOf" not in schema or number % schema["multipleOf"] == 0)
        and (not whole or number == int(number))
    )


def _string(schema: dict[str, Any], text: str) -> str:
    """Return the text if it is within the bounds, otherwise one that is. Supports only some simple patterns."""
    text = _FORMATS.get(schema.get("format", ""), text)
    if pattern := schema.get("pattern"):
        return next((sample for sample in (text, *_PATTERN_SAMPLES) if re.search(pattern, sample)), text)
    text = text.ljust(schema.get("minLength", 0), ".")
    return text[: schema["maxLength"]] if "maxLength" in schema else text


def sample_text(name: str, listed: bool) -> str:
    """Return a text that suits a field's name; `listed` if it is one of several."""
    if known := _NAMES.get(_last_word(name)):
        return known
    words = name.replace("_", " ")
    return f"sample {words}" if listed else f"A sample {words}."


def _last_word(name: str) -> str:
    return name.lower().rpartition("_")[2]
