"""Generates the embedded model server's answers: a value for each output field that DSPy's prompt asks for.

The values match the field's type, its schema's bounds and, where it is telling, its name.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from dspy_lambda_infra.model_server.examples import Example, Text, sample_text

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


def answer(body: dict[str, Any], *, samples: bool) -> str:
    """Return values for all output fields of a chat completion's prompt, in the format that the prompt asks for.

    A prompt that is not DSPy's gets a value for the schema in `response_format`, or a text.

    Args:
        body: the request.
        samples: whether texts are samples that suit their field. Otherwise they are `<model>: <first input>`, which
            exposes misrouted calls.
    """
    system = "\n".join(text_of(m) for m in body["messages"] if m["role"] == "system")
    as_json = "Outputs will be a JSON object" in system
    user = text_of(body["messages"][-1])
    text = _text(body, user, samples)
    notes = _notes(system, as_json)
    fields = _output_fields(system)
    values = {name: _value(name, kind, notes.get(name, ""), bounds, text) for name, kind, bounds in fields}
    if "tool_calls" in values and (call := _call_of_last_tool(user, text)):
        values["tool_calls"] = {"tool_calls": [call]}
    if not values:
        return _answer_without_fields(body, text, samples)
    if as_json:
        return json.dumps(values, ensure_ascii=False)
    if "[[ ## " not in system:
        return "\n\n".join(_xml(name, kind, values[name], system, text) for name, kind, _ in fields)
    blocks = [f"[[ ## {name} ## ]]\n{_as_text(value)}" for name, value in values.items()]
    return "\n\n".join([*blocks, "[[ ## completed ## ]]"])


def call_tool(body: dict[str, Any], *, samples: bool) -> tuple[str, dict[str, Any]] | None:
    """Return the name and the arguments of the tool to call: the one that `tool_choice` names, or the last one.

    The last one is what ends the loop of dspy.ReActV2. Return None if there is no tool, or the last message is a
    tool's result and no call is required.
    """
    tools = {tool["function"]["name"]: tool["function"] for tool in body.get("tools") or [] if "function" in tool}
    choice = body.get("tool_choice") or "auto"
    last = body["messages"][-1]
    if not tools or choice == "none" or (choice == "auto" and last["role"] == "tool"):
        return None
    name = choice["function"]["name"] if isinstance(choice, dict) else list(tools)[-1]
    schema = {"type": "object", **(tools[name].get("parameters") or {})}
    return name, Example(schema.get("$defs", {}), _text(body, text_of(last), samples)).make(schema, name)


def _text(body: dict[str, Any], user: str, samples: bool) -> Text:
    echo = f"{body['model']}: {_first_input(user)}"
    return sample_text if samples else lambda _, __: echo


def _answer_without_fields(body: dict[str, Any], text: Text, samples: bool) -> str:
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        schema = wanted["json_schema"]["schema"]
        return json.dumps(Example(schema.get("$defs", {}), text).make(schema, "answer"), ensure_ascii=False)
    return "A sample answer from the embedded model." if samples else text("answer", False)


def text_of(message: dict[str, Any]) -> str:
    """Return a chat message's text."""
    content = message.get("content") or ""
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content)
    return str(content)


def _first_input(user: str) -> str:
    found = re.search(r"\[\[ ## \w+ ## \]\]\n(.*?)(?=\n\n\[\[ ## \w+ ## \]\]|\n\nRespond with |\Z)", user, re.DOTALL)
    if found is None and user.startswith("<"):
        found = re.match(r"<(?P<tag>\w+)>\n(.*?)\n</(?P=tag)>", user, re.DOTALL)
        return (found.group(2) if found else user).strip()
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
    return {"name": name, "args": {key: Example({}, text).make(schema, key) for key, schema in fields.items()}}


def _value(name: str, kind: str, note: str, bounds: dict[str, Any], text: Text) -> Any:
    if "one of: " in note:
        choices = note.partition("one of: ")[2].split("; ")
        # ReAct's choice of a tool: an agent that never finishes would be a useless sample.
        return "finish" if "finish" in choices and text is sample_text else choices[0]
    if "JSON schema: " in note:
        schema = json.loads(note.partition("JSON schema: ")[2])
        if schema.get("type") == "array":
            bounds = {keyword.replace("Length", "Items"): number for keyword, number in bounds.items()}
        return Example(schema.get("$defs", {}), text).make({**schema, **bounds}, name)
    types = {"int": "integer", "float": "number", "bool": "boolean"}
    return Example({}, text).make({"type": types.get(kind, "string"), **bounds}, name)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _xml(name: str, kind: str, value: Any, system: str, text: Text) -> str:
    """Return a field as DSPy's XMLAdapter reads it, with each "..." of its structure in the prompt filled in.

    The structure names no types: values within it are texts, or numbers if all of them are.
    """
    nested = re.search(rf"^<{name}>(<.*>|\.\.\.)</{name}>$", system, re.MULTILINE)
    if nested is None:
        return f"<{name}>\n{escape(_as_text(value))}\n</{name}>"
    root = ElementTree.fromstring(nested.group())  # noqa: S314 - DSPy's own structure
    types = {"int": "integer", "float": "number", "bool": "boolean"}
    schema = {"type": next((types[word] for word in re.findall(r"\w+", kind) if word in types), "string")}
    for element in root.iter():
        if element.text == "...":
            tag = name.removesuffix("s") if element.tag == "item" else element.tag
            empty = kind.startswith("dict")  # the structure has no entries
            element.text = "" if empty else _as_text(Example({}, text).make(schema, tag, listed=element.tag == "item"))
    return ElementTree.tostring(root, encoding="unicode")
