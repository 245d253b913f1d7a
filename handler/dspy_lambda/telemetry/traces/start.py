"""Start tracing in an environment. Imported only if its settings ask for traces or for metrics of each model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from dspy_lambda.call import UNKNOWN
from dspy_lambda.dspy_patches.spans import patch_spans
from dspy_lambda.telemetry.export.start import start_export
from dspy_lambda.telemetry.traces.spans import Span, span_ids
from dspy_lambda.telemetry.traces.tracer import Tracer

if TYPE_CHECKING:
    from dspy_lambda.config import Config
    from dspy_lambda.settings import Settings
    from dspy_lambda.telemetry.exceptions import Exceptions
    from dspy_lambda.telemetry.payloads.rules import Payloads
    from dspy_lambda.telemetry.telemetry import Telemetry

_REMEMBERED, _REMEMBERED_LENGTH = 1000, 100


def start_tracing(telemetry: Telemetry, config: Config, settings: Settings) -> None:
    """Make spans of what programs do, and export those of kept traces.

    With several programs in one environment, their traces go where the first one's settings say.

    Raises:
        ConfigError: The address in the variable is not valid.
    """
    if left_out := patch_spans():
        telemetry.log("WARNING", "DSPy has changed; left out the patches that no longer apply", {"left_out": left_out})
    programs = [settings.program] if settings.program else [*config.lambda_.programs, UNKNOWN]
    rules = [config.lambda_.function(name).telemetry for name in programs]
    wanted = next((one for one in rules if one.traces != "none"), rules[0])
    exporter = start_export(settings, wanted, telemetry.service, telemetry.log)
    telemetry.exporter = exporter
    if exporter is not None:
        exporter.prepare = partial(write_payloads, telemetry.payloads)
        exporter.redact = Redaction(telemetry.exceptions)
    telemetry.tracer = Tracer(
        config,
        None if exporter is None else exporter.add,
        int if exporter is None else exporter.take_dropped,
        program=settings.program,
        keeps_all=bool(settings.traces),
    )
    telemetry.writes_model_metrics = any(one.model_metrics for one in rules)
    telemetry.span_ids = span_ids


class Redaction:
    """Removes keys from texts. Remembers short ones without any, as most texts are the same in every call."""

    def __init__(self, exceptions: Exceptions) -> None:
        self._exceptions = exceptions
        self._state = (0, 0)
        self._clean: set[str] = set()

    def __call__(self, text: str) -> str:
        """Return a text without keys."""
        if (state := self._exceptions.state) != self._state:
            self._state, self._clean = state, set()
        if text in self._clean:
            return text
        from dspy_lambda.key_shapes import mask_keys  # after the answer, not at init

        shown = mask_keys(self._exceptions.redacted(text), "***")
        if shown == text and len(text) <= _REMEMBERED_LENGTH and len(self._clean) < _REMEMBERED:
            self._clean.add(text)
        return shown


def write_payloads(payloads: Mapping[str, Payloads], spans: list[Span]) -> None:
    """Turn the payloads of kept spans into attributes by their programs' rules, each call's together."""
    calls: dict[str | None, list[Span]] = {}
    for span in spans:
        if span.payload is not None:
            calls.setdefault(span.call_id, []).append(span)
    for of_call in calls.values():
        if (rules := payloads.get(of_call[0].program or UNKNOWN)) is not None:
            rules.apply_to_call(of_call)
        for span in of_call:
            span.payload = None
