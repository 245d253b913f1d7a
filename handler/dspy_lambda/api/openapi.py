"""The OpenAPI document: each program's own schemas, read from its hints and signature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi.openapi.utils import get_openapi

from dspy_lambda.programs.program import Program
from dspy_lambda.soundness import is_json

_ERRORS = {
    "400": "The body is not JSON",
    "413": "The body is over 6,000,000 bytes",
    "415": "The Content-Type is not JSON",
    "422": "The inputs do not fit the program",
    "429": "The model's provider, or this service, limits the rate: see Retry-After",
    "500": "The program raised",
    "502": "The model's provider failed or refused",
    "503": "The program could not be loaded",
    "504": "The deadline came before the answer",
}
_PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457",
    "required": ["title", "status", "detail", "request_id"],
    "properties": {
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}


def describe(title: str, description: str, programs: Mapping[str, Program]) -> dict[str, Any]:
    """The whole document."""
    document = get_openapi(title=title, version="0.1.0", description=description, routes=[])
    schemas: dict[str, Any] = {"Problem": _PROBLEM}
    document["paths"] = {f"/{name}": {"post": _post(p, schemas)} for name, p in programs.items()}
    for path, summary in _SHARED.items():
        answer = {"description": "OK", "content": {"application/json": {"schema": {"type": "object"}}}}
        document["paths"][path] = {"get": {"summary": summary, "responses": {"200": answer}}}
    document["components"] = {"schemas": schemas}
    return document


_SHARED = {
    "/programs": "The programs, their models and states",
    "/health/live": "Whether the process answers",
    "/health/ready": "Whether every program could be loaded",
}


def _post(program: Program, schemas: dict[str, Any]) -> dict[str, Any]:
    request = _add(program.name, "Inputs", program.schemas.input_schema, schemas)
    answer = _add(program.name, "Outputs", program.schemas.output_schema, schemas)
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    responses: dict[str, Any] = {
        "200": {"description": "The program's outputs", "content": {"application/json": {"schema": answer}}}
    }
    responses |= {status: {"description": text, "content": problem} for status, text in _ERRORS.items()}
    return {
        "operationId": program.name,
        "summary": program.name,
        "description": type(program.instance).__doc__ or "",
        "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
        "responses": responses,
    }


def _add(program: str, way: str, schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Put a schema and the definitions that it uses among the components; a reference to it.

    Definitions carry the program's name: two programs may each have a model called Contact.
    """
    # A hint may show an example of its own that JSON cannot hold, and would take the whole document down.
    schema = dict(schema) if is_json(schema) else {"type": "object"}
    schemas.update({f"{program}.{name}": definition for name, definition in schema.pop("$defs", {}).items()})
    schemas[f"{program}{way}"] = schema
    return {"$ref": f"#/components/schemas/{program}{way}"}
