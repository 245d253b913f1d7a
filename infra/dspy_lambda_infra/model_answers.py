"""Generates the embedded model server's answers: a value for each output field that DSPy's prompt asks for.

The values match the field's type, its schema's bounds and, where it is telling, its name.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from typing import Any

# A schema may refer to itself; below this depth, lists are as short and choices as simple as the schema allows.
_DEEPEST = 4
# How DSPy phrases a field's bounds in its prompt. Source: dspy/signatures/field.py, PYDANTIC_CONSTRAINT_MAP (DSPy 3.4).
_CONSTRAINTS = {
    "greater than": "exclusiveMinimum",
    "greater than or equal to": "minimum",
    "less than": "exclusiveMaximum",
    "less than or equal to": "maximum",
    "a multiple of the given number": "multipleOf",
    "minimum length": "minLength",
    "maximum length": "maxLength",
}
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


def answer(body: dict[str, Any], *, samples: bool) -> str:
    """Return values for all output fields of a chat completion's prompt, in the format that the prompt asks for.

    Args:
        body: the request.
        samples: whether texts are samples that suit their field. Otherwise they are `<model>: <first input>`, which
            exposes misrouted calls.
    """
    system = "\n".join(text_of(m) for m in body["messages"] if m["role"] == "system")
    as_json = "Outputs will be a JSON object" in system
    user = text_of(body["messages"][-1])
    echo = f"{body['model']}: {_first_input(user)}"
    text: Text = _sample_text if samples else lambda _, __: echo
    notes = _notes(system, as_json)
    values = {
        name: _value(name, kind, notes.get(name, ""), bounds, text) for name, kind, bounds in _output_fields(system)
    }
    if "tool_calls" in values and (call := _call_of_last_tool(user, text)):
        values["tool_calls"] = {"tool_calls": [call]}
    if not values:
        return "A sample answer from the embedded model." if samples else echo
    if as_json:
        return json.dumps(values, ensure_ascii=False)
    blocks = [f"[[ ## {name} ## ]]\n{_as_text(value)}" for name, value in values.items()]
    return "\n\n".join([*blocks, "[[ ## completed ## ]]"])


def text_of(message: dict[str, Any]) -> str:
    """Return a chat message's text."""
    content = message.get("content") or ""
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content)
    return str(content)


def _first_input(user: str) -> str:
    found = re.search(r"\[\[ ## \w+ ## \]\]\n(.*?)(?=\n\n\[\[ ## \w+ ## \]\]|\n\nRespond with |\Z)", user, re.DOTALL)
    return (found.group(1) if found else user).strip()


def _output_fields(system: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the name, type and bounds of each output field."""
    _, _, listed = system.partition("Your output fields are:")
    listed = listed.partition("All interactions will be structured")[0]
    parts = re.split(r"^\d+\. `(\w+)` \((.*?)\):", listed, flags=re.MULTILINE)[1:]
    return [(name, kind, _bounds(about)) for name, kind, about in zip(*[iter(parts)] * 3, strict=True)]


def _bounds(about: str) -> dict[str, Any]:
    """Return a field's bounds as JSON Schema keywords."""
    listed = re.search(r"^Constraints: (.*)$", about, re.MULTILINE)
    pairs = re.findall(r"([a-z ]+): (-?[\d.e+-]+)", listed.group(1)) if listed else []
    known = ((_CONSTRAINTS.get(words.strip()), json.loads(number)) for words, number in pairs)
    return {keyword: number for keyword, number in known if keyword}


def _notes(system: str, as_json: bool) -> dict[str, str]:
    if as_json:
        # In the JSON format, a note is part of a JSON string and escaped accordingly.
        found = re.findall(r'"\{(\w+)\} +# note: the value you produce ((?:[^"\\]|\\.)*)"', system)
        return {name: json.loads(f'"{note}"') for name, note in found}
    return dict(re.findall(r"^\{(\w+)\} +# note: the value you produce (.*)$", system, re.MULTILINE))


def _call_of_last_tool(user: str, text: Text) -> dict[str, Any] | None:
    """Return a call of the last tool that a prompt lists: for dspy.ReActV2 its own `submit`."""
    listed = re.findall(
        r"(\w+), whose description is <desc>.*?</desc>\. It takes arguments (\{.*?\})\.", user, re.DOTALL
    )
    if not listed:
        return None
    name, arguments = listed[-1]
    fields = ast.literal_eval(arguments)  # DSPy writes the schemas as Python
    return {"name": name, "args": {key: _Example({}, text).make(schema, key) for key, schema in fields.items()}}


def _value(name: str, kind: str, note: str, bounds: dict[str, Any], text: Text) -> Any:
    if "one of: " in note:
        choices = note.partition("one of: ")[2].split("; ")
        # ReAct's choice of a tool: an agent that never finishes would be a useless sample.
        return "finish" if "finish" in choices and text is _sample_text else choices[0]
    if "JSON schema: " in note:
        schema = json.loads(note.partition("JSON schema: ")[2])
        if schema.get("type") == "array":
            bounds = {keyword.replace("Length", "Items"): number for keyword, number in bounds.items()}
        return _Example(schema.get("$defs", {}), text).make({**schema, **bounds}, name)
    types = {"int": "integer", "float": "number", "bool": "boolean"}
    return _Example({}, text).make({"type": types.get(kind, "string"), **bounds}, name)


class _Example:
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


def _sample_text(name: str, listed: bool) -> str:
    if known := _NAMES.get(_last_word(name)):
        return known
    words = name.replace("_", " ")
    return f"sample {words}" if listed else f"A sample {words}."


def _last_word(name: str) -> str:
    return name.lower().rpartition("_")[2]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
