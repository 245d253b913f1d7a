"""What a program takes and gives: from its type hints, and from its signature where hints are missing."""

from __future__ import annotations

import inspect
import math
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Annotated, Any, NotRequired, Optional, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, WrapValidator
from pydantic.errors import (
    PydanticInvalidForJsonSchema,
    PydanticSchemaGenerationError,
    PydanticUndefinedAnnotation,
    PydanticUserError,
)
from pydantic.fields import FieldInfo
from typing_extensions import TypedDict

from dspy_lambda.errors import InvalidInput

SCHEMA_REF = "#/components/schemas/{program}.{{model}}"
# A hint within a hint that cannot be resolved; before Python 3.12, a `typing.TypedDict`.
_UNREADABLE = (PydanticUserError, PydanticUndefinedAnnotation)
# What `forward(**kwargs)` is not passed unless it is a field: what DSPy's modules take beside their signatures' fields
# (a `config` with an `api_base` could send the key elsewhere), and the names that Python calls the program with.
_NOT_FOR_CALLERS = frozenset(
    {"config", "demos", "instance", "interpreter_factory", "lm", "max_iters", "new_signature", "self", "signature"}
)


@dataclass(frozen=True)
class Inputs:
    """The inputs of one program, checked before every call: DSPy itself does not.

    Attributes:
        fields: their names.
        optional: parameters without a default whose hint allows None, which is what they are passed where absent.
        takes_more: whether `forward` has `**kwargs` of its own, which other inputs are passed in as they are.
        withheld: the names of those that are not.
    """

    adapter: TypeAdapter[dict[str, Any]]
    fields: frozenset[str]
    optional: frozenset[str] = frozenset()
    takes_more: bool = False
    withheld: frozenset[str] = frozenset()

    def validate(self, inputs: Any) -> dict[str, Any]:
        """The keyword arguments for the program; pydantic's lax mode converts.

        Raises:
            InvalidInput: with an entry in `errors` for each field that does not fit, 100 at most; never the value
                itself.
        """
        if not isinstance(inputs, dict):
            misfit = {"loc": [], "msg": "Input should be a JSON object", "type": "dict_type"}
            raise InvalidInput("The inputs must be a JSON object.", errors=[misfit])
        try:
            values = self.adapter.validate_python(inputs)
            return {**dict.fromkeys(self.optional), **self._more(inputs), **values}
        except ValidationError as error:
            from dspy_lambda.validation_errors import entries_of, property_names

            misfits = entries_of(error, {*self.fields, *property_names(self.json_schema())})
        fields = sorted({str(item["loc"][0]) for item in misfits if item["loc"]})
        raise InvalidInput(f"The inputs do not fit the program: {', '.join(fields)}.", errors=misfits)

    def _more(self, inputs: dict[str, Any]) -> dict[str, Any]:
        if not self.takes_more:
            return {}
        return {key: value for key, value in inputs.items() if key not in self.fields and key not in self.withheld}

    def json_schema(self, ref_template: str = "#/$defs/{model}") -> dict[str, Any]:
        """The JSON Schema; of any object where the hints have none."""
        from dspy_lambda.answers import LenientJsonSchema

        try:
            schema = self.adapter.json_schema(ref_template=ref_template, schema_generator=LenientJsonSchema)
        except Exception:  # a hint may bring code of its own for this
            return {"type": "object"}
        return {**schema, "additionalProperties": True} if self.takes_more else schema


@dataclass(frozen=True)
class Schemas:
    """The inputs of one program, and the JSON Schemas of both ways (made only when asked for).

    Attributes:
        returned: the return hint, if there is one that tells more than that it is a prediction.
        predicted: the output fields of the program's predictor, if it has one only.
        result_field: the name under which a result that is not an object is answered.
    """

    name: str
    inputs: Inputs
    returned: Any
    predicted: dict[str, Any]
    result_field: str = "result"

    @property
    def input_schema(self) -> dict[str, Any]:
        return self.inputs.json_schema(SCHEMA_REF.format(program=self.name))

    @property
    def output_schema(self) -> dict[str, Any]:
        """Promises no more than the hints do: any object where they do not tell, or cannot be read."""
        title = {"title": f"{self.name}Outputs"}
        try:
            return {**title, **(self._answers() or {"type": "object"})}
        except Exception:  # a hint may bring code of its own for this
            return {"type": "object", **title}

    def _answers(self) -> dict[str, Any] | None:
        from dspy_lambda.answers import answer_schema, prediction_schema

        template = SCHEMA_REF.format(program=self.name)
        if self.returned is not None:
            return answer_schema(self.returned, self.result_field, template)
        if not self.predicted:
            return None
        return prediction_schema(self.name, self.predicted, template)


def schemas_of(instance: Any, entry: Callable[..., Any]) -> Schemas:
    """The schemas of a program whose calls go to `entry` (its `forward` or `aforward`).

    Raises:
        TypeError, PydanticSchemaGenerationError: a parameter that JSON inputs cannot fill.
    """
    hints = _hints(entry)
    signatures = list(_signatures(instance, set()))
    field = _result_field(instance) if "return" in hints else "result"
    inputs = _inputs(instance, entry, hints, signatures)
    return Schemas(type(instance).__name__, inputs, _returned(hints), _predicted(signatures), field)


def _inputs(instance: Any, entry: Callable[..., Any], hints: dict[str, Any], signatures: list[Any]) -> Inputs:
    known = {key: field for signature in reversed(signatures) for key, field in signature.input_fields.items()}
    parameters = [p for key, p in inspect.signature(entry).parameters.items() if key != "self"]
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    found = _declared(named, hints, known)
    takes_more = any(p.kind is p.VAR_KEYWORD for p in parameters)
    if takes_more:
        # forward(**kwargs), as dspy.Predict itself has it. Beside named parameters, and with several predictors, what
        # a signature asks for may be what forward itself computes.
        is_optional = bool(named) or len(signatures) != 1
        more = {key: field for key, field in known.items() if key not in found}
        found |= {key: _from_signature(field, is_optional) for key, field in more.items()}
    optional = frozenset(p.name for p in named if p.default is p.empty and _allows_none(hints.get(p.name)))
    return Inputs(
        _adapter(f"{type(instance).__name__}Inputs", found, entry),
        frozenset(found),
        optional,
        takes_more and not (len(signatures) == 1 and _is_of_dspy(instance, entry)),
        _NOT_FOR_CALLERS.union(p.name for p in named),
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
        annotation = _from_parameter(parameter, hints, known)
        # What JSON cannot fill is the program's own affair, if it can do without.
        if parameter.default is parameter.empty or _has_schema(annotation):
            found[parameter.name] = annotation
    return found


def _hints(entry: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(entry, include_extras=True)
    except Exception:
        from dspy_lambda.hints import resolvable

        return resolvable(entry)


def _is_of_dspy(instance: Any, entry: Callable[..., Any]) -> bool:
    """Whether that method is DSPy's own, which has no use for more than its signature's fields."""
    owners = (base for base in type(instance).__mro__ if any(value is entry for value in vars(base).values()))
    return any(owner.__module__.partition(".")[0] == "dspy" for owner in owners)


def _result_field(instance: Any) -> str:
    """The output field of the program's first predictor, if it has one only: as dspy-cli names plain results."""
    for value in vars(instance).values():
        for holder in (value, getattr(value, "predict", None)):
            outputs = getattr(getattr(holder, "signature", None), "output_fields", None)
            if isinstance(outputs, dict):
                return next(iter(outputs)) if len(outputs) == 1 else "result"
    return "result"


def _signatures(module: Any, seen: set[int]) -> Iterator[Any]:
    """The module's own signature (as dspy.Predict and dspy.ReAct have one), or those of the modules within it."""
    from dspy import Module

    seen.add(id(module))
    own = getattr(module, "signature", None)
    if isinstance(own, type) and issubclass(own, BaseModel) and hasattr(own, "input_fields"):
        yield own
        return
    for value in chain.from_iterable(_items(value) for value in vars(module).values()):
        if isinstance(value, Module) and id(value) not in seen:
            yield from _signatures(value, seen)


def _items(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)


def _returned(hints: dict[str, Any]) -> Any:
    from dspy import Prediction

    hint = hints.get("return")
    return None if isinstance(hint, type) and issubclass(hint, Prediction) else hint


def _predicted(signatures: list[Any]) -> dict[str, Any]:
    if len(signatures) != 1:
        # Which of several predictors' fields the program returns is not to be known without running it.
        return {}
    return {key: _annotated(field.annotation, _metadata(field)) for key, field in signatures[0].output_fields.items()}


def _adapter(name: str, fields: dict[str, Any], entry: Callable[..., Any]) -> TypeAdapter[Any]:
    try:
        return _complete(_typed_dict(name, fields))
    except PydanticSchemaGenerationError:
        raise
    except _UNREADABLE:
        from dspy_lambda.hints import readable

        fields = {key: readable(hint) for key, hint in fields.items()}
        checked = {key: hint if _is_readable(key, hint, entry) else _unchecked(hint) for key, hint in fields.items()}
        return _complete(_typed_dict(name, checked))


def _is_readable(key: str, hint: Any, entry: Callable[..., Any]) -> bool:
    try:
        _complete(_typed_dict("Probe", {"field": hint}))
    except PydanticSchemaGenerationError:
        raise
    except _UNREADABLE as error:
        from dspy_lambda.hints import unchecked

        unchecked(key, entry, error)
        return False
    return True


def _unchecked(hint: Any) -> Any:
    return NotRequired[Any] if get_origin(hint) is NotRequired else Any


def _has_schema(annotation: Any) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"):  # one would quote a default, which may hold a key
            _complete(_typed_dict("Probe", {"field": annotation})).json_schema()
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema):
        return False
    except _UNREADABLE:
        return True  # `_adapter` leaves its check out
    return True


def _complete(kind: Any) -> TypeAdapter[Any]:
    adapter = TypeAdapter(kind)
    if not adapter.pydantic_complete:  # or each call would raise what this does
        adapter.rebuild()
    return adapter


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
        annotation, metadata = _type_of(field), _metadata(field)
    else:
        annotation, metadata = Any, []
    if parameter.default is not parameter.empty:
        return _with_default(_annotated(annotation, metadata), parameter.default)
    if _allows_none(hints.get(parameter.name)):  # passed as None where absent
        return _with_default(_annotated(annotation, metadata), None)
    return _annotated(annotation, metadata)


def _from_signature(field: FieldInfo, optional: bool) -> Any:
    annotated = _annotated(_type_of(field), _metadata(field))
    if not field.is_required():
        return _with_default(annotated, field.default)
    return NotRequired[annotated] if optional else annotated


def _type_of(field: FieldInfo) -> Any:
    """The type of an input field, as DSPy takes it."""
    from dspy.utils.constants import IS_TYPE_UNDEFINED

    extra = field.json_schema_extra
    if isinstance(extra, dict) and extra.get(IS_TYPE_UNDEFINED) and not field.metadata:
        # "context, question -> answer": str is what DSPy puts there, and it is often called with something else.
        return Any
    if field.annotation is str:
        return Annotated[str, WrapValidator(_text_or_texts)]
    return _buildable(field.annotation)


def _text_or_texts(value: Any, validate: Callable[[Any], Any]) -> Any:
    """DSPy's own rule: a field for a text takes a list of texts, too. Source: dspy/predict/predict.py (DSPy 3.4)."""
    is_texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return value if is_texts else validate(value)


def _with_default(annotation: Any, default: Any) -> Any:
    if default is None and annotation is not Any and not _allows_none(annotation):
        annotation = Optional[annotation]  # noqa: UP045 - built at run time
    return NotRequired[_annotated(annotation, [_default(default)])]


def _allows_none(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType) and types.NoneType in get_args(hint)


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
    # JSON has no infinity.
    if value is None or isinstance(value, str | int | bool) or (isinstance(value, float) and math.isfinite(value)):
        return Field(json_schema_extra={"default": value})
    return Field()


def _buildable(annotation: Any) -> Any:
    """`dspy.Image` and others take a string through their constructor, which pydantic's validation does not call."""
    from dspy import Type

    if not Type.extract_custom_type_from_annotation(annotation):
        return annotation
    if isinstance(annotation, type) and issubclass(annotation, Type):
        shown = Union[str, annotation] if _takes_text(annotation) else annotation  # noqa: UP007 - built at run time
        return Annotated[annotation, WrapValidator(partial(_build, annotation), json_schema_input_type=shown)]
    from dspy_lambda.hints import rebuilt

    return rebuilt(annotation, _buildable)


def _takes_text(kind: Any) -> bool:
    from dspy import Code, Reasoning, Tool

    return issubclass(kind, Code | Reasoning) or (_has_constructor(kind) and not issubclass(kind, Tool))


def _has_constructor(kind: Any) -> bool:
    return kind.__init__ is not BaseModel.__init__


def _build(kind: Any, value: Any, validate: Callable[[Any], Any]) -> Any:
    try:
        return validate(kind(value) if isinstance(value, str) and _has_constructor(kind) else value)
    except TypeError:
        # pydantic lets it out: a constructor that takes no such fields, as dspy.Tool's does not take any JSON.
        raise ValueError(f"no {kind.__name__} can be made from this") from None
