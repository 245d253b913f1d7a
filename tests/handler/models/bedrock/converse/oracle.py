"""botocore's description of Converse: what it accepts, what it sends, and what it reads."""

from __future__ import annotations

import base64
import re
from typing import Any

import botocore.session
from botocore.model import Shape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator

SERVICE = botocore.session.get_session().get_service_model("bedrock-runtime")
CONVERSE = SERVICE.operation_model("Converse")
STREAM = SERVICE.operation_model("ConverseStream")
_serializer = create_serializer("rest-json")
_parser = create_parser("rest-json")


def decoded(value: Any, shape: Shape) -> Any:
    """Return a JSON body as parameters of the SDK, which takes bytes instead of base64."""
    kind = shape.type_name
    if kind == "structure" and getattr(shape, "is_document_type", False):
        return value
    if kind == "structure":
        return {name: decoded(item, shape.members[name]) for name, item in value.items()}
    if kind == "list":
        return [decoded(item, shape.member) for item in value]
    return base64.b64decode(value, validate=True) if kind == "blob" else value


def violations(value: Any, shape: Shape, path: str = "") -> list[str]:
    """Return what the service would refuse although the SDK's validator does not look at it."""
    kind, limits = shape.type_name, shape.metadata
    found: list[str] = []
    if kind == "structure":
        if getattr(shape, "is_tagged_union", False) and len(value) != 1:
            found.append(f"{path}: {len(value)} members of a union")
        if not getattr(shape, "is_document_type", False):
            for name, item in value.items():
                found += violations(item, shape.members[name], f"{path}.{name}")
    elif kind == "list":
        found += [text for item in value for text in violations(item, shape.member, f"{path}[]")]
    elif kind == "string":
        if shape.enum and value not in shape.enum:
            found.append(f"{path}: {value!r} is none of {shape.enum}")
        if (pattern := limits.get("pattern")) and not re.fullmatch(pattern, value):
            found.append(f"{path}: {value!r} does not match {pattern}")
    size = value if kind in ("integer", "float") else len(value) if kind in ("string", "list", "blob", "map") else None
    if size is not None and not limits.get("min", size) <= size <= limits.get("max", size):
        found.append(f"{path}: {size} is outside of {limits.get('min')} to {limits.get('max')}")
    return found


def check(body: dict[str, Any]) -> dict[str, Any]:
    """Assert that Converse accepts a body; return it as the SDK's parameters."""
    shape = CONVERSE.input_shape
    parameters = decoded(body, shape) | {"modelId": "m"}
    report = ParamValidator().validate(parameters, shape)
    assert not report.has_errors(), report.generate_report()
    assert violations(parameters, shape) == []
    roles = [message["role"] for message in parameters["messages"]]
    assert roles == [("user", "assistant")[index % 2] for index in range(len(roles))], roles
    for message in parameters["messages"]:
        blocks = message["content"]
        assert blocks
        assert all(block.get("text", "-").strip() for block in blocks), blocks
        texts = any("text" in block for block in blocks)
        assert texts or not any("document" in block for block in blocks), "a document without a text"
    return parameters


def serialized(parameters: dict[str, Any], *, stream: bool = False) -> tuple[str, bytes]:
    """Return the path and the body that the SDK sends for these parameters."""
    request = _serializer.serialize_to_request(parameters, STREAM if stream else CONVERSE)
    return request["url_path"], request["body"]


def parsed(body: bytes) -> Any:
    """Return the SDK's reading of an answer."""
    return _parser.parse({"body": body, "headers": {}, "status_code": 200}, CONVERSE.output_shape)
