"""The JSON Schemas of a program's inputs, and of its outputs as `payload.to_outputs` writes them.

Imported when a schema is requested or the first inputs are invalid.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from dspy import Audio, Code, Example, File, Image, Reasoning, ToolCalls
from dspy.experimental import Citations, Document
from pydantic import TypeAdapter, WithJsonSchema, create_model
from pydantic.errors import PydanticSchemaGenerationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind
from pydantic_core import core_schema
from typing_extensions import TypedDict

from dspy_lambda.programs.hints import readable, rebuilt

# DSPy types whose serializers write a string but do not declare it, and those that `content.plain` writes by fields.
_TEXTS = (Code, Reasoning)
_BY_FIELDS = (Audio, Citations, Citations.Citation, Document, File, Image)
_TOOL_CALL = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "args": {"type": "object"}},
    "required": ["name", "args"],
}
_TOOL_CALLS = {
    "type": "object",
    "properties": {"tool_calls": {"type": "array", "items": _TOOL_CALL}, "tool_call_results": {}},
    "required": ["tool_calls"],
}
_MIN_PRIVATE = 8  # characters of a variable's value: no key is shorter, and many defaults contain "1" or "true"


class LenientJsonSchema(GenerateJsonSchema):
    """Describes what pydantic cannot describe as any value, instead of raising or making a false promise."""

    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        if kind != "non-serializable-default":  # its message would quote the default
            super().emit_warning(kind, detail)

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return _shown(super().default_schema(schema))

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> JsonSchemaValue:
        # Defaults of a program's parameters, which pydantic does not check.
        found = super().typed_dict_schema(schema)
        return {**found, "properties": {key: _shown(field) for key, field in found["properties"].items()}}

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        return {}

    def is_instance_schema(self, schema: core_schema.IsInstanceSchema) -> JsonSchemaValue:
        is_prediction = isinstance(schema["cls"], type) and issubclass(schema["cls"], Example)
        return {"type": "object", "additionalProperties": True} if is_prediction else {}

    def ser_schema(self, schema: Any) -> JsonSchemaValue | None:
        found = super().ser_schema(schema)
        # For a serializer without a return hint, the parent describes its input instead of its output.
        return {} if found is None and schema["type"] in ("function-plain", "function-wrap") else found


def input_schema(adapter: TypeAdapter[Any], takes_more: bool, ref_template: str) -> dict[str, Any]:
    """Create the schema of inputs; any object if the hints have no schema.

    Args:
        takes_more: whether additional inputs are passed on.
    """
    try:
        schema = adapter.json_schema(ref_template=ref_template, schema_generator=LenientJsonSchema)
    except Exception:  # a hint may run its own code here
        return {"type": "object"}
    return {**schema, "additionalProperties": True} if takes_more else schema


def answer_schema(returned: Any, result_field: str, ref_template: str) -> dict[str, Any] | None:
    """Create the schema of the outputs of a program with this return hint; None if they may be any object.

    A result that is an object is the output itself; any other is the value of `result_field`.
    """
    schema = _json_schema(_as_written(readable(returned)), ref_template)
    definitions = schema.get("$defs", {})
    refs = {ref_template.format(model=name): definition for name, definition in definitions.items()}
    members = list(_members(schema, refs))
    if not members or any(kind is None for _, kind in members):
        return None
    objects = [member for member, kind in members if kind == "object"]
    others = [member for member, kind in members if kind != "object"]
    if not others:
        return schema
    if not objects:
        return _named(result_field, schema)
    plain = others[0] if len(others) == 1 else {"anyOf": others}
    return {"type": "object", "anyOf": [*objects, _named(result_field, plain)], "$defs": definitions}


def prediction_schema(name: str, fields: Mapping[str, Any], ref_template: str) -> dict[str, Any]:
    """Create the schema of the outputs of a program that returns its predictor's prediction or one of its own.

    Which of the two cannot be known without running the program, so any object is allowed.

    Args:
        name: the program's name.
        fields: the types of the predictor's output fields.
    """
    make: Any = TypedDict
    types = {key: _as_written(hint) for key, hint in fields.items()}
    predicted = _json_schema(make(f"{name}Prediction", types), ref_template)
    either = {"type": "object", "additionalProperties": True, "anyOf": [predicted, {"type": "object"}]}
    return {**either, "$defs": predicted.pop("$defs", {})}


def _shown(schema: JsonSchemaValue) -> JsonSchemaValue:
    """Remove a default that contains the value of an environment variable, which may be a key."""
    if "default" not in schema:
        return schema
    text = json.dumps(schema["default"], ensure_ascii=False, default=str)
    values = (value for value in os.environ.values() if len(value) >= _MIN_PRIVATE)
    is_private = any(json.dumps(value, ensure_ascii=False)[1:-1] in text for value in values)
    return {key: value for key, value in schema.items() if key != "default"} if is_private else schema


def _as_written(hint: Any) -> Any:
    """The hint with DSPy's types as what their serializers write."""
    if isinstance(hint, type) and issubclass(hint, _TEXTS):
        return Annotated[hint, WithJsonSchema({"type": "string"}, mode="serialization")]
    if isinstance(hint, type) and issubclass(hint, ToolCalls):
        return Annotated[hint, WithJsonSchema(_TOOL_CALLS, mode="serialization")]
    if isinstance(hint, type) and issubclass(hint, _BY_FIELDS):
        kind: Any = hint
        fields: dict[str, Any] = {
            name: (_as_written(field.annotation), field) for name, field in kind.model_fields.items()
        }
        return create_model(kind.__name__, **fields)
    return rebuilt(hint, _as_written)


def _json_schema(hint: Any, ref_template: str) -> dict[str, Any]:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
    except PydanticSchemaGenerationError:
        # A prediction in a list, or a class that the program defines.
        adapter = TypeAdapter(hint, config={"arbitrary_types_allowed": True})
    # By field name, as outputs are written, not by alias.
    return adapter.json_schema(
        by_alias=False, ref_template=ref_template, mode="serialization", schema_generator=LenientJsonSchema
    )


def _named(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    definitions = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    plain = {key: value for key, value in schema.items() if key != "$defs"}
    return {"type": "object", "properties": {field: plain}, "required": [field], **definitions}


def _members(
    schema: dict[str, Any], refs: Mapping[str, Any], seen: tuple[str, ...] = ()
) -> Iterator[tuple[dict[str, Any], str | None]]:
    """Yield each alternative of a schema with its JSON type, or None if the type is unknown."""
    target, passed = schema, seen
    while "$ref" in target:
        if target["$ref"] in passed:
            return
        passed = (*passed, target["$ref"])
        target = refs[target["$ref"]]
    alternatives = target.get("anyOf") or target.get("oneOf")
    if alternatives is None:
        yield schema, _json_type(target)
        return
    for alternative in alternatives:
        yield from _members(alternative, refs, passed)


def _json_type(schema: dict[str, Any]) -> str | None:
    kind = schema.get("type")
    if isinstance(kind, str):
        return kind
    values = schema.get("enum", [schema["const"]] if "const" in schema else [{}])
    return None if any(isinstance(value, dict) for value in values) else "enum"
