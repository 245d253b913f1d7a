"""Build pydantic type hints for a program's inputs, from the parameters of `forward` or its signature's fields."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, NotRequired, Optional, Union, get_args, get_origin

from pydantic import BaseModel, Field, WrapValidator
from pydantic.fields import FieldInfo

from dspy_lambda.dspy_patches.insides import is_type_undefined


def parameter_hint(parameter: inspect.Parameter, hints: dict[str, Any], known: dict[str, FieldInfo]) -> Any:
    """Build the hint of a parameter, including its default.

    Args:
        hints: the type hints of the program's method, by parameter.
        known: the input fields of its signatures, for parameters without a hint.
    """
    field = known.get(parameter.name)
    if parameter.name in hints:
        annotation = _buildable(hints[parameter.name])
        description = _description(field) if field else None
        metadata = [Field(description=description)] if description else []
    elif field is not None:
        annotation, metadata = _type_of(field), metadata_of(field)
    else:
        annotation, metadata = Any, []
    if parameter.default is not parameter.empty:
        return _with_default(annotated(annotation, metadata), parameter.default)
    if allows_none(hints.get(parameter.name)):  # passed as None if absent
        return _with_default(annotated(annotation, metadata), None)
    return annotated(annotation, metadata)


def signature_hint(field: FieldInfo, optional: bool) -> Any:
    """Build the hint of a signature's field that `forward` does not name, including its default."""
    hint = annotated(_type_of(field), metadata_of(field))
    if not field.is_required():
        return _with_default(hint, field.default)
    return NotRequired[hint] if optional else hint


def _type_of(field: FieldInfo) -> Any:
    """Return the type of an input field as DSPy accepts it."""
    extra = field.json_schema_extra
    if isinstance(extra, dict) and is_type_undefined(extra) and not field.metadata:
        # "context, question -> answer": DSPy assumes str here but accepts anything.
        return Any
    if field.annotation is str:
        return Annotated[str, WrapValidator(_text_or_texts)]
    return _buildable(field.annotation)


def _text_or_texts(value: Any, validate: Callable[[Any], Any]) -> Any:
    """Accept a list of strings for a str field, as DSPy does. Source: dspy/predict/predict.py (DSPy 3.4)."""
    is_texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return value if is_texts else validate(value)


def _with_default(annotation: Any, default: Any) -> Any:
    if default is None and annotation is not Any and not allows_none(annotation):
        annotation = Optional[annotation]  # noqa: UP045 - built at run time
    return NotRequired[annotated(annotation, [_default(default)])]


def allows_none(hint: Any) -> bool:
    """Whether a hint is a union with None."""
    return get_origin(hint) in (Union, types.UnionType) and types.NoneType in get_args(hint)


def annotated(annotation: Any, metadata: list[Any]) -> Any:
    """Add constraints and descriptions to a hint."""
    return Annotated[(annotation, *metadata)] if metadata else annotation


def metadata_of(field: FieldInfo) -> list[Any]:
    """Return a signature field's constraints (ge, max_length, ...) and description, without DSPy's own metadata."""
    description = _description(field)
    return [*field.metadata, *([Field(description=description)] if description else [])]


def _description(field: FieldInfo) -> str | None:
    extra = field.json_schema_extra
    text = extra.get("desc") if isinstance(extra, dict) else None
    # For a field without a description, DSPy uses the placeholder "${name}".
    return text if isinstance(text, str) and not text.startswith("${") else None


def _default(value: Any) -> Any:
    # For the schema only: an absent field is not passed, so that Python's or DSPy's default applies.
    # JSON cannot represent infinity.
    if value is None or isinstance(value, str | int | bool) or (isinstance(value, float) and math.isfinite(value)):
        return Field(json_schema_extra={"default": value})
    return Field()


def _buildable(annotation: Any) -> Any:
    """Build `dspy.Image` and similar types from a string by their constructor, which pydantic does not call."""
    from dspy import Type

    if not Type.extract_custom_type_from_annotation(annotation):
        return annotation
    if isinstance(annotation, type) and issubclass(annotation, Type):
        shown = Union[str, annotation] if _takes_text(annotation) else annotation  # noqa: UP007 - built at run time
        return Annotated[annotation, WrapValidator(partial(_build, annotation), json_schema_input_type=shown)]
    from dspy_lambda.programs.hints import rebuilt

    return rebuilt(annotation, _buildable)


def _takes_text(kind: Any) -> bool:
    from dspy import Code, Reasoning, Tool
    from dspy.experimental import Document

    return issubclass(kind, Code | Document | Reasoning) or (_has_constructor(kind) and not issubclass(kind, Tool))


def _has_constructor(kind: Any) -> bool:
    return kind.__init__ is not BaseModel.__init__


def _build(kind: Any, value: Any, validate: Callable[[Any], Any]) -> Any:
    from dspy import Audio

    if issubclass(kind, Audio) and isinstance(value, dict) and "format" in value and "audio_format" not in value:
        # As in the content parts of OpenAI's API.
        value = {"audio_format" if key == "format" else key: item for key, item in value.items()}
    try:
        return validate(kind(value) if isinstance(value, str) and _has_constructor(kind) else value)
    except TypeError:
        # The constructor does not accept these fields (dspy.Tool accepts no JSON at all), and pydantic lets a
        # TypeError through.
        raise ValueError(f"cannot create a {kind.__name__} from this") from None
