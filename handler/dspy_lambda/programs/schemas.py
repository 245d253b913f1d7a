"""A program's inputs and outputs, from its type hints, or from its signature where hints are missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, get_type_hints

from pydantic import BaseModel

from dspy_lambda.programs.fields import annotated, metadata_of
from dspy_lambda.programs.inputs import Inputs, inputs_of

_REF = "#/components/schemas/{}.{{model}}"


@dataclass(frozen=True)
class Schemas:
    """One program's inputs, and the JSON Schemas of its inputs and outputs, which are created on demand.

    Names of nested definitions are prefixed with the schema's name: two programs may each have a model called Contact,
    and a model may have different input and output schemas.

    Attributes:
        returned: the return hint, unless it only says that the result is a prediction.
        predicted: the output fields of the program's predictor, if it has exactly one.
        result_field: the name of a result that is not an object.
    """

    name: str
    inputs: Inputs
    returned: Any
    predicted: dict[str, Any]
    result_field: str = "result"

    @property
    def inputs_name(self) -> str:
        """The name of the inputs in the OpenAPI document."""
        return _component(f"{self.name}Inputs")

    @property
    def outputs_name(self) -> str:
        """The name of the outputs in the OpenAPI document."""
        return _component(f"{self.name}Outputs")

    @property
    def input_schema(self) -> dict[str, Any]:
        return self.inputs.json_schema(_REF.format(self.inputs_name))

    @property
    def output_schema(self) -> dict[str, Any]:
        """The schema of the outputs; any object if the hints do not say or cannot be read."""
        title = {"title": f"{self.name}Outputs"}
        try:
            return {**title, **(self._answers() or {"type": "object"})}
        except Exception:  # a hint may run its own code here
            return {"type": "object", **title}

    def _answers(self) -> dict[str, Any] | None:
        from dspy_lambda.programs.json_schema import answer_schema, prediction_schema

        template = _REF.format(self.outputs_name)
        if self.returned is not None:
            return answer_schema(self.returned, self.result_field, template)
        if not self.predicted:
            return None
        return prediction_schema(self.name, self.predicted, template)


def _component(name: str) -> str:
    """Escape a class name for OpenAPI, since Python allows letters of every alphabet.

    https://spec.openapis.org/oas/v3.1.0#components-object
    """
    return re.sub(r"[^A-Za-z0-9_]", lambda letter: f".{ord(letter[0]):x}", name)


def schemas_of(instance: Any, entry: Callable[..., Any]) -> Schemas:
    """Create the schemas of a program that is called through `entry` (its `forward` or `aforward`).

    Raises:
        TypeError, PydanticSchemaGenerationError: A parameter cannot be passed as JSON.
    """
    hints = _hints(entry)
    signatures = list(_signatures(instance, set()))
    field = _result_field(instance) if "return" in hints else "result"
    inputs = inputs_of(instance, entry, hints, signatures)
    return Schemas(type(instance).__name__, inputs, _returned(hints), _predicted(signatures), field)


def _hints(entry: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(entry, include_extras=True)
    except Exception:
        from dspy_lambda.programs.hints import resolvable

        return resolvable(entry)


def _result_field(instance: Any) -> str:
    """The only output field of the program's first predictor, as dspy-cli names plain results; else `result`."""
    for value in vars(instance).values():
        for holder in (value, getattr(value, "predict", None)):
            outputs = getattr(getattr(holder, "signature", None), "output_fields", None)
            if isinstance(outputs, dict):
                return next(iter(outputs)) if len(outputs) == 1 else "result"
    return "result"


def _signatures(module: Any, seen: set[int]) -> Iterator[Any]:
    """Yield the module's own signature (as of dspy.Predict and dspy.ReAct), or those of its submodules."""
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
        # Which predictor's fields the program returns cannot be known without running it.
        return {}
    return {key: annotated(field.annotation, metadata_of(field)) for key, field in signatures[0].output_fields.items()}
