"""What a program takes and gives: from its type hints, and from its signature where hints are missing."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, NotRequired, get_type_hints

from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from typing_extensions import TypedDict

from handler.errors import InvalidInput
from handler.payload import check_text

SCHEMA_REF = "#/components/schemas/{program}.{{model}}"


@dataclass(frozen=True)
class Inputs:
    """The inputs of one program, checked before every call: DSPy itself does not."""

    adapter: TypeAdapter[dict[str, Any]]

    def validate(self, inputs: Any) -> dict[str, Any]:
        """The keyword arguments for the program. Extra fields are ignored; pydantic's lax mode converts.

        Raises:
            InvalidInput: with one entry in `errors` for each field that does not fit, never the value itself.
        """
        if not isinstance(inputs, dict):
            misfit = {"loc": [], "msg": "Input should be a JSON object", "type": "dict_type"}
            raise InvalidInput("The inputs must be a JSON object.", errors=[misfit])
        check_text(inputs)
        try:
            return self.adapter.validate_python(inputs)
        except ValidationError as error:
            misfits = error.errors(include_url=False, include_context=False, include_input=False)
            fields = sorted({str(item["loc"][0]) for item in misfits if item["loc"]})
            raise InvalidInput(
                f"The inputs do not fit the program: {', '.join(fields)}.",
                errors=[{"loc": list(item["loc"]), "msg": item["msg"], "type": item["type"]} for item in misfits],
            ) from None


@dataclass(frozen=True)
class Schemas:
    """The inputs of one program, and the JSON Schemas of both ways (made only when asked for)."""

    name: str
    inputs: Inputs
    outputs: Any

    @cached_property
    def input_schema(self) -> dict[str, Any]:
        return self.inputs.adapter.json_schema(ref_template=SCHEMA_REF.format(program=self.name))

    @cached_property
    def output_schema(self) -> dict[str, Any]:
        if self.outputs is None:
            return {"type": "object", "title": f"{self.name}Outputs"}
        reference = SCHEMA_REF.format(program=self.name)
        return TypeAdapter(self.outputs).json_schema(ref_template=reference, mode="serialization")


def schemas_of(instance: Any, entry: Callable[..., Any]) -> Schemas:
    """The schemas of a program whose calls go to `entry` (its `forward` or `aforward`).

    Raises:
        TypeError, NameError, pydantic errors: a type hint that does not resolve, or that JSON cannot fill.
    """
    name = type(instance).__name__
    hints = get_type_hints(entry, include_extras=True)
    signatures = [predictor.signature for predictor in instance.predictors()]
    known = {key: field for signature in reversed(signatures) for key, field in signature.input_fields.items()}
    parameters = [p for key, p in inspect.signature(entry).parameters.items() if key != "self"]
    fields: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            # forward(**kwargs), as dspy.Predict itself has it: the signature is all there is.
            first = signatures[0].input_fields if signatures else {}
            for key, field in first.items():
                fields.setdefault(key, _from_signature(field))
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            fields[parameter.name] = _from_parameter(parameter, hints, known)
    typed = _typed_dict(f"{name}Inputs", fields)
    return Schemas(name, Inputs(TypeAdapter(typed)), _outputs(name, hints.get("return"), signatures))


def _typed_dict(name: str, fields: dict[str, Any]) -> Any:
    """A TypedDict and no model class: a program's field may be called `copy`, `json` or `schema`."""
    make: Any = TypedDict
    return make(name, fields)


def _from_parameter(parameter: inspect.Parameter, hints: dict[str, Any], known: dict[str, FieldInfo]) -> Any:
    field = known.get(parameter.name)
    if parameter.name in hints:
        annotation = _buildable(hints[parameter.name])
        description = _description(field) if field else None
        metadata = [Field(description=description)] if description else []
    elif field is not None:
        annotation, metadata = _buildable(field.annotation), _metadata(field)
    else:
        annotation, metadata = Any, []
    if parameter.default is not parameter.empty:
        return NotRequired[_annotated(annotation, [*metadata, _default(parameter.default)])]
    return _annotated(annotation, metadata)


def _from_signature(field: FieldInfo) -> Any:
    annotation, metadata = _buildable(field.annotation), _metadata(field)
    if field.is_required():
        return _annotated(annotation, metadata)
    return NotRequired[_annotated(annotation, [*metadata, _default(field.default)])]


def _annotated(annotation: Any, metadata: list[Any]) -> Any:
    return Annotated[(annotation, *metadata)] if metadata else annotation


def _metadata(field: FieldInfo) -> list[Any]:
    """A signature field's constraints (ge, max_length, ...) and its description, without DSPy's own marks."""
    description = _description(field)
    return [*field.metadata, *([Field(description=description)] if description else [])]


def _description(field: FieldInfo) -> str | None:
    extra = field.json_schema_extra
    text = extra.get("desc") if isinstance(extra, dict) else None
    # DSPy's own placeholder for a field without a description is "${name}".
    return text if isinstance(text, str) and not text.startswith("${") else None


def _default(value: Any) -> Any:
    # Only shown in the schema: an absent field is not passed, so that Python's or DSPy's own default applies.
    if value is None or isinstance(value, str | int | float | bool):
        return Field(json_schema_extra={"default": value})
    return Field()


def _buildable(annotation: Any) -> Any:
    """`dspy.Image` and its kin take a string through their constructor, which pydantic's validation does not call."""
    from dspy.adapters.types.base_type import Type

    if isinstance(annotation, type) and issubclass(annotation, Type):
        build: Any = annotation
        return Annotated[annotation, BeforeValidator(lambda v: build(v) if isinstance(v, str) else v)]
    return annotation


def _outputs(name: str, returned: Any, signatures: list[Any]) -> Any:
    """The type of the outputs, or None where neither hint nor signature tells."""
    from dspy import Prediction

    if returned is not None and not (isinstance(returned, type) and issubclass(returned, Prediction)):
        is_object = isinstance(returned, type) and issubclass(returned, BaseModel)
        if is_object or returned is dict or getattr(returned, "__origin__", None) is dict:
            return returned
        return _typed_dict(f"{name}Outputs", {"result": returned})
    if len(signatures) != 1:
        # Which of several predictors' fields the program returns is not to be known without running it.
        return None
    fields = {key: _annotated(f.annotation, _metadata(f)) for key, f in signatures[0].output_fields.items()}
    return _typed_dict(f"{name}Outputs", fields)
