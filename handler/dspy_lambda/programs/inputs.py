"""A program's inputs, validated before every call."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NotRequired, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import (
    PydanticInvalidForJsonSchema,
    PydanticSchemaGenerationError,
    PydanticUndefinedAnnotation,
    PydanticUserError,
)
from pydantic.fields import FieldInfo
from typing_extensions import TypedDict

from dspy_lambda.errors import INVALID_INPUTS, InvalidInput
from dspy_lambda.programs.content import address_errors, contains_marker, holds_image, marker_errors
from dspy_lambda.programs.fields import allows_none, parameter_hint, signature_hint

# Raised for a nested hint that cannot be resolved and, before Python 3.12, for a `typing.TypedDict`.
_UNREADABLE = (PydanticUserError, PydanticUndefinedAnnotation)
# Not passed to `forward(**kwargs)` unless it is a field: arguments that DSPy's modules accept besides their signatures'
# fields (a `config` with an `api_base` could send the key elsewhere), and names that Python itself passes.
_NOT_FOR_CALLERS = frozenset(
    {"config", "demos", "instance", "interpreter_factory", "lm", "max_iters", "new_signature", "self", "signature"}
)


@dataclass(frozen=True)
class Inputs:
    """One program's inputs, validated before every call because DSPy does not validate them.

    Attributes:
        fields: the names of the fields.
        optional: parameters without a default whose hint allows None; they are passed None if absent.
        takes_more: whether `forward` has `**kwargs`, in which other inputs are passed unchanged.
        withheld: the names of inputs that are never passed in `**kwargs`.
        images: the fields that may hold images or files, whose addresses are checked.
    """

    adapter: TypeAdapter[dict[str, Any]]
    fields: frozenset[str]
    optional: frozenset[str] = frozenset()
    takes_more: bool = False
    withheld: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()

    def validate(self, inputs: Any) -> dict[str, Any]:
        """Validate and convert inputs, in pydantic's lax mode, to the program's keyword arguments.

        Raises:
            InvalidInput: `errors` has at most 100 validation errors, without the values themselves.
        """
        if not isinstance(inputs, dict):
            error = {"loc": [], "msg": "Input should be a JSON object", "type": "dict_type"}
            raise InvalidInput("The inputs must be a JSON object.", errors=[error])
        if contains_marker(inputs):
            raise self._refused(marker_errors(inputs))
        try:
            values = self.adapter.validate_python(inputs)
        except ValidationError as failed:
            from dspy_lambda.programs.validation_errors import entries_of

            errors = entries_of(failed, self._names)
        else:
            if contains_marker(values):  # a hint may decode a text: pydantic.Json, Base64Str
                raise self._refused(marker_errors(values))
            addresses = [error for key in self.images & values.keys() for error in address_errors(values[key], (key,))]
            if not addresses:
                return {**dict.fromkeys(self.optional), **self._more(inputs), **values}
            raise self._refused(addresses)
        raise _invalid(errors)

    def _refused(self, errors: Iterable[dict[str, Any]]) -> InvalidInput:
        from dspy_lambda.programs.validation_errors import refusals_of

        return _invalid(refusals_of(errors, self._names))

    def _more(self, inputs: dict[str, Any]) -> dict[str, Any]:
        if not self.takes_more:
            return {}
        return {key: value for key, value in inputs.items() if key not in self.fields and key not in self.withheld}

    @cached_property
    def _names(self) -> set[str]:
        """The names of all fields, including nested ones."""
        from dspy_lambda.programs.validation_errors import property_names

        return {*self.fields, *property_names(self.json_schema())}

    def json_schema(self, ref_template: str = "#/$defs/{model}") -> dict[str, Any]:
        """Create the JSON Schema, with references in the format of `ref_template`."""
        from dspy_lambda.programs.json_schema import input_schema

        return input_schema(self.adapter, self.takes_more, ref_template)


def _invalid(errors: list[dict[str, Any]]) -> InvalidInput:
    from dspy_lambda.programs.validation_errors import summary

    return InvalidInput(f"{INVALID_INPUTS}{summary(errors)}.", errors=errors)


def inputs_of(instance: Any, entry: Callable[..., Any], hints: dict[str, Any], signatures: list[Any]) -> Inputs:
    """Create the inputs of a program that is called through `entry`.

    Args:
        hints: the type hints of `entry`, by parameter.
        signatures: the signatures of the program's predictors.

    Raises:
        TypeError, PydanticSchemaGenerationError: A parameter cannot be passed as JSON.
    """
    known = {key: field for signature in reversed(signatures) for key, field in signature.input_fields.items()}
    parameters = [p for key, p in inspect.signature(entry).parameters.items() if key != "self"]
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    found = _declared(named, hints, known)
    takes_more = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if takes_more:
        # forward(**kwargs), as in dspy.Predict. If there are named parameters or several predictors, forward may
        # compute what a signature asks for.
        is_optional = bool(named) or len(signatures) != 1
        more = {key: field for key, field in known.items() if key not in found}
        found |= {key: signature_hint(field, is_optional) for key, field in more.items()}
    optional = frozenset(p.name for p in named if p.default is p.empty and allows_none(hints.get(p.name)))
    return Inputs(
        _adapter(f"{type(instance).__name__}Inputs", found, entry),
        frozenset(found),
        optional,
        takes_more and not (len(signatures) == 1 and _is_of_dspy(instance, entry)),
        _NOT_FOR_CALLERS.union(p.name for p in named),
        frozenset(key for key, hint in found.items() if holds_image(hint)),
    )


def _declared(
    parameters: list[inspect.Parameter], hints: dict[str, Any], known: dict[str, FieldInfo]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind is parameter.POSITIONAL_ONLY:
            if parameter.default is not parameter.empty:
                continue
            raise TypeError(f"parameter {parameter.name} is positional-only, and inputs are passed by name")
        annotation = parameter_hint(parameter, hints, known)
        # A parameter that cannot be passed as JSON is left out if it has a default.
        if parameter.default is parameter.empty or _has_schema(annotation):
            found[parameter.name] = annotation
    return found


def _is_of_dspy(instance: Any, entry: Callable[..., Any]) -> bool:
    """Whether a method is DSPy's own, which uses only its signature's fields."""
    owners = (base for base in type(instance).__mro__ if any(value is entry for value in vars(base).values()))
    return any(owner.__module__.partition(".")[0] == "dspy" for owner in owners)


def _adapter(name: str, fields: dict[str, Any], entry: Callable[..., Any]) -> TypeAdapter[Any]:
    try:
        return _complete(_typed_dict(name, fields))
    except PydanticSchemaGenerationError:
        raise
    except _UNREADABLE:
        from dspy_lambda.programs.hints import readable

        fields = {key: readable(hint) for key, hint in fields.items()}
        checked = {key: hint if _is_readable(key, hint, entry) else _unchecked(hint) for key, hint in fields.items()}
        return _complete(_typed_dict(name, checked))


def _is_readable(key: str, hint: Any, entry: Callable[..., Any]) -> bool:
    try:
        _complete(_typed_dict("Probe", {"field": hint}))
    except PydanticSchemaGenerationError:
        raise
    except _UNREADABLE as error:
        from dspy_lambda.programs.hints import unchecked

        unchecked(key, entry, error)
        return False
    return True


def _unchecked(hint: Any) -> Any:
    return NotRequired[Any] if get_origin(hint) is NotRequired else Any


def _has_schema(annotation: Any) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):  # a warning would quote a default, which may contain a key
            _complete(_typed_dict("Probe", {"field": annotation})).json_schema()
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema):
        return False
    except _UNREADABLE:
        return True  # `_adapter` does not validate it
    return True


def _complete(kind: Any) -> TypeAdapter[Any]:
    adapter = TypeAdapter(kind)
    if not adapter.pydantic_complete:  # otherwise each call would raise what rebuild raises
        adapter.rebuild()
    return adapter


def _typed_dict(name: str, fields: dict[str, Any]) -> Any:
    """Create a TypedDict, not a model class: a program's field may be called `copy`, `json` or `schema`."""
    make: Any = TypedDict
    return make(name, fields)
