"""What of a call is written to logs and traces, by `telemetry.payloads`: inputs, outputs, messages and exceptions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any, TypeVar

from pydantic_core import to_json as dump

from dspy_lambda.call import Call
from dspy_lambda.config.telemetry import Telemetry
from dspy_lambda.introspection import class_name, plain_text
from dspy_lambda.programs.schemas import Schemas
from dspy_lambda.telemetry import Log
from dspy_lambda.telemetry.describe import describe
from dspy_lambda.telemetry.exceptions import Exceptions, read_text
from dspy_lambda.telemetry.lines import to_json
from dspy_lambda.telemetry.payloads.cut import Cut, cut_text
from dspy_lambda.telemetry.payloads.hidden import Hidden
from dspy_lambda.telemetry.payloads.masking import Hook, Masking, Masks, named_parts
from dspy_lambda.telemetry.payloads.media import without_uris
from dspy_lambda.telemetry.payloads.messages import FreeText, free_texts, messages_of
from dspy_lambda.telemetry.traces.spans import Span

Result = TypeVar("Result")
LEFT_OUT = "(left out)"
# A pattern's match across the cut must be replaced as a whole, too.
_MARGIN = 256
_INPUTS = "dspy_lambda.inputs"
_MESSAGES = {"gen_ai.input.messages": "user", "gen_ai.output.messages": "assistant"}


class Payloads:
    """The rules of one program whose calls are written. Runs once per call, after its outcome is settled.

    Each pattern is applied to at most `max_payload_bytes` and 256 characters of a text at once. Python cannot interrupt
    a pattern, so those that are known to need exponential time are refused at init.

    Args:
        settings: the program's `telemetry` section.
        exceptions: knows the keys that are redacted in all texts.
        log: called with level, message and fields if `mask_with` fails.
        hook: the function of `mask_with`.
        schemas: the program's schemas, which name the fields declared as SecretStr; None if there is no program.
    """

    def __init__(
        self,
        settings: Telemetry,
        exceptions: Exceptions,
        log: Log,
        hook: Hook | None = None,
        schemas: Schemas | None = None,
    ) -> None:
        self._word = settings.payloads
        self._limit = settings.max_payload_bytes
        self._mask = settings.mask
        self._exceptions = exceptions
        self._log = log
        self._hook = hook
        self._schemas = schemas

    @property
    def writes_texts(self) -> bool:
        """Whether texts are written, and not only sizes."""
        return self._word in ("masked", "full")

    @property
    def masks_names(self) -> bool:
        """Whether fields are masked by their names, which a text that cannot be parsed does not have."""
        return self._word == "masked"

    @cached_property
    def masks(self) -> Masks:
        """The rules; created with the first call, since they read the program's schemas."""
        names = secret_fields(self._schemas) if self._schemas else set()
        if self._word == "full":
            return Masks(names, masks_secrets=False)
        patterns = [re.compile(entry[1:-1]) for entry in self._mask if entry.startswith("/")]
        return Masks(names.union(entry for entry in self._mask if entry[0] != "/"), patterns, self._hook)

    def shown(self, call: Call) -> Shown | None:
        """Return what is written of a settled call; None if its payloads cannot be read."""
        return self.safely(lambda: Shown(self, {"inputs": call.inputs, "outputs": self._outputs(call)}), None)

    def safely(self, make: Callable[[], Result], otherwise: Result) -> Result:
        """Return what a function returns, or else log that nothing is written: a program may change its inputs now."""
        try:
            return make()
        except Exception as error:
            self._log("WARNING", "payloads could not be written", describe(error))
            return otherwise

    def _outputs(self, call: Call) -> Any:
        """Return the outputs as the caller got them: as an object, and at `sizes` as bytes."""
        if not call.succeeded:
            return None
        if not self.writes_texts:
            return call.outputs
        is_object = named_parts(call.result) is not None
        return call.result if is_object else {self._schemas.result_field if self._schemas else "result": call.result}

    def apply_to_call(self, spans: Iterable[Span]) -> None:
        """Turn the payloads of one call's spans into attributes.

        What a masked field of any of them holds is removed from the texts of all.
        """
        held = [span for span in spans if span.payload]
        hidden = Hidden()
        ready = [(span, name, self._prepared(name, span, hidden)) for span in held for name in span.payload or ()]
        if self.masks_names:
            for _, _, value in ready:
                for text in free_texts(value):
                    self.masks.note_sections(text[: self._limit], hidden)
        for span, name, value in ready:
            if value is not None:
                suffix = "" if self.writes_texts else ".bytes"
                span.attributes[name + suffix] = self.write_text(value, hidden) if self.writes_texts else value
        for span in held:
            span.payload = None

    def _prepared(self, name: str, span: Span, hidden: Hidden) -> Any:
        value = (span.payload or {})[name]
        if value is None:
            return None
        if not self.writes_texts:
            return size_of(value)
        if name in _MESSAGES:
            return self.masked(messages_of(value, _MESSAGES[name]), hidden)
        if name == _INPUTS or not isinstance(value, str):
            return self.prepared(value, hidden, is_input=name == _INPUTS)
        return FreeText(value)

    def prepared(self, value: Any, hidden: Hidden, *, is_input: bool) -> Any:
        """Return inputs or outputs as plain JSON without masked fields.

        A body that cannot be read, or is no object, does not say which part of it is which field.
        """
        if is_input and self.masks_names and named_parts(value) is None:
            hidden.unsafe = True
            return FreeText(LEFT_OUT)
        return self.masked(value, hidden)

    def masked(self, value: Any, hidden: Hidden) -> Any:
        """Return a value as plain JSON without masked fields; its texts are not masked yet."""
        masking: Masking = self.masks.fields(value, hidden)
        if masking.hook_error is not None and not hidden.hook_failed:
            hidden.hook_failed = True
            self._log("WARNING", "mask_with failed; the value was masked", describe(masking.hook_error))
        return masking.value

    def write(self, value: Any, hidden: Hidden) -> Any:
        """Return a value of `masked` with its texts masked, cut at the maximum size."""
        return Cut(lambda text, left: self.text(text, hidden, left), self._limit).cut(value)

    def write_text(self, value: Any, hidden: Hidden) -> str:
        """Return a value of `masked` as a span's attribute: a text itself, or JSON."""
        value = self.write(value, hidden)
        return value if isinstance(value, str) else to_json(value)

    def text(self, text: str, hidden: Hidden, limit: int) -> str:
        """Return a text by the rules, cut at `limit` bytes."""
        if hidden.too_many or (hidden.unsafe and isinstance(text, FreeText)):
            return LEFT_OUT
        length = len(text)
        margin = max(_MARGIN, self._exceptions.longest_key)
        most = limit + margin
        shown = without_uris(plain_text(text, length))
        is_cut = len(shown) > most
        shown = self._exceptions.redacted(shown[:most])
        if self.masks_names and isinstance(text, FreeText):
            self.masks.note_sections(shown, hidden)
        shown = self.masks.text(hidden.remove_from(shown))
        if is_cut:
            shown = shown[: max(0, len(shown) - margin)]
        return cut_text(shown, limit, length if is_cut else None)

    def exception(self, value: object, hidden: Hidden) -> str:
        """Return the text of an exception by the rules."""
        text = read_text(value, self._limit + 2 * max(_MARGIN, self._exceptions.longest_key))
        return self.text(FreeText(text), hidden, self._limit)


class Shown:
    """What is written of one call.

    Args:
        values: the raw inputs and outputs, by field; those that are None are left out.
    """

    def __init__(self, payloads: Payloads, values: dict[str, Any]) -> None:
        self._payloads = payloads
        self._hidden = Hidden()
        self._values = {name: value for name, value in values.items() if value is not None}
        if payloads.writes_texts:
            self._values = {
                name: payloads.prepared(value, self._hidden, is_input=True) for name, value in self._values.items()
            }

    @property
    def exception(self) -> Callable[[object], str] | None:
        """Returns the text of the call's exception; None if the setting writes no texts."""
        payloads, hidden = self._payloads, self._hidden
        if not payloads.writes_texts:
            return None
        return lambda value: payloads.safely(lambda: payloads.exception(value, hidden), LEFT_OUT)

    def fields(self) -> dict[str, Any]:
        """Return the fields of the call's log record."""
        return self._payloads.safely(self._fields, {})

    def _fields(self) -> dict[str, Any]:
        payloads = self._payloads
        if payloads.writes_texts:
            return {name: payloads.write(value, self._hidden) for name, value in self._values.items()}
        sizes = {"inputs_bytes": self._values.get("inputs"), "outputs_bytes": self._values.get("outputs")}
        found = {name: size_of(value) for name, value in sizes.items() if value is not None}
        return {name: size for name, size in found.items() if size is not None}


def secret_fields(schemas: Schemas) -> set[str]:
    """Return the names of all fields declared as SecretStr or SecretBytes, which inputs do not show until validated."""
    return {name for schema in (schemas.input_schema, schemas.output_schema) for name in _passwords(schema)}


def _passwords(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        properties = schema.get("properties")
        for name, inner in (properties if isinstance(properties, dict) else {}).items():
            if '"format":"password"' in to_json(inner):
                yield name
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _passwords(inner)


def size_of(value: Any) -> int | None:
    """Return the size of a value as JSON in bytes; None if JSON cannot represent it."""
    if isinstance(value, str | bytes):
        return len(value if isinstance(value, bytes) else value.encode("utf-8", "replace"))
    try:
        return len(dump(value, by_alias=False, bytes_mode="base64", fallback=_readable))
    except Exception:
        return None


def _readable(value: Any) -> Any:
    return value.toDict() if hasattr(value, "toDict") else class_name(type(value))
