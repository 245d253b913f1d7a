"""The schemas that the routes of the OpenAPI document refer to; FastAPI generates the rest.

Imported when the document is requested, never during a call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired

from fastapi.openapi.constants import REF_PREFIX
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from dspy_lambda.programs.program import Program
from dspy_lambda.soundness import is_json


class ValidationError(TypedDict):
    """An invalid input."""

    loc: list[str | int]
    msg: str
    type: str


class Problem(TypedDict):
    """RFC 9457"""

    title: str
    status: int
    detail: str
    request_id: str
    errors: NotRequired[list[ValidationError]]


ListedProgram = TypedDict(
    "ListedProgram",
    {
        "name": str,
        "model": str,
        "endpoint": str,
        "async": bool | None,
        "state": Literal["ready", "failed"],
        "error": NotRequired[str],
    },
)


class Programs(TypedDict):
    programs: list[ListedProgram]


class Liveness(TypedDict):
    status: Literal["alive"]


class Readiness(TypedDict):
    status: Literal["ready", "not_ready"]
    programs: NotRequired[int]
    failed: NotRequired[list[str]]
    stuck: NotRequired[dict[str, int]]


def components(programs: Mapping[str, Program]) -> dict[str, Any]:
    """Return the schemas of all routes and the definitions that they use, by name."""
    kinds: tuple[Any, ...] = (Problem, Programs, Liveness, Readiness)
    found: dict[str, Any] = {}
    for kind in kinds:
        template = f"{REF_PREFIX}{kind.__name__}.{{model}}"
        found |= _flat(kind.__name__, TypeAdapter(kind).json_schema(ref_template=template))
    for program in programs.values():
        schemas = program.schemas
        found |= _flat(schemas.inputs_name, schemas.input_schema) | _flat(schemas.outputs_name, schemas.output_schema)
    return found


def _flat(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema and its definitions, under the names that it refers to them by."""
    # A hint may add an example that JSON cannot represent, which would break the whole document.
    schema = dict(schema) if is_json(schema) else {"type": "object"}
    definitions = schema.pop("$defs", {})
    return {name: schema} | {f"{name}.{inner}": definition for inner, definition in definitions.items()}
