"""Start tracing in an environment. Imported only if its settings ask for traces or for metrics of each model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from dspy_lambda.call import UNKNOWN
from dspy_lambda.dspy_patches.spans import patch_spans
from dspy_lambda.telemetry.traces.spans import Span, span_ids
from dspy_lambda.telemetry.traces.tracer import Tracer

if TYPE_CHECKING:
    from dspy_lambda.config import Config
    from dspy_lambda.config.telemetry import Telemetry as Rules
    from dspy_lambda.settings import Settings
    from dspy_lambda.telemetry.exceptions import Exceptions
    from dspy_lambda.telemetry.export.exporter import Exporter
    from dspy_lambda.telemetry.payloads.rules import Payloads
    from dspy_lambda.telemetry.telemetry import Telemetry

_REMEMBERED, _REMEMBERED_LENGTH = 1000, 100


def start_tracing(
    telemetry: Telemetry, config: Config, settings: Settings, rules: Mapping[str, Rules], *, exports: bool
) -> None:
    """Make spans of what programs do, and export those of kept traces.

    Args:
        rules: the `telemetry` sections, by program. With several programs in one environment, their traces go where
            the first one with `traces` says, which the log says if others name another place; those of programs whose
            traces are off go nowhere.
        exports: whether to export traces; otherwise the spans are for the metrics of models alone.

    Raises:
        ConfigError: The address in the variable is not valid.
    """
    if left_out := patch_spans():
        telemetry.log("WARNING", "DSPy has changed; left out the patches that no longer apply", {"left_out": left_out})
    exporter = telemetry.exporter = _start_export(telemetry, settings, rules) if exports else None
    telemetry.tracer = Tracer(
        config,
        None if exporter is None else exporter.add if settings.traces else partial(_add_if_on, config, exporter),
        int if exporter is None else exporter.take_dropped,
        program=settings.program,
        keeps_all=bool(settings.traces),
    )
    telemetry.writes_model_metrics = any(one.model_metrics for one in rules.values())
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


def _start_export(telemetry: Telemetry, settings: Settings, rules: Mapping[str, Rules]) -> Exporter:
    from dspy_lambda.telemetry.export.start import start_export  # the metrics of models do not need it

    wanted = next((one for one in rules.values() if one.traces != "none"), next(iter(rules.values())))
    if others := [] if settings.traces else _with_another_destination(rules, wanted):
        fields = {"destination": wanted.traces, "programs": others}
        telemetry.log("WARNING", "traces of all programs of this process go to one destination", fields)
    exporter = start_export(settings, wanted, telemetry.service, telemetry.log)
    exporter.prepare = partial(write_payloads, telemetry.payloads)
    exporter.redact = Redaction(telemetry.exceptions)
    exporter.report = partial(_report, telemetry, settings.program or UNKNOWN)
    return exporter


def _with_another_destination(rules: Mapping[str, Rules], wanted: Rules) -> list[str]:
    place = wanted.traces, wanted.headers_env
    return [name for name, one in rules.items() if one.traces != "none" and (one.traces, one.headers_env) != place]


def _report(telemetry: Telemetry, program: str, dropped: int) -> None:
    telemetry.emit(program, {"DroppedSpans": [dropped]})


def _add_if_on(config: Config, exporter: Exporter, spans: list[Span]) -> None:
    """Export an invocation's spans, unless traces are off for all of its programs."""
    programs = {span.program for span in spans if span.program}
    if not programs or any(config.lambda_.function(name).telemetry.traces != "none" for name in programs):
        exporter.add(spans)


def write_payloads(payloads: Mapping[str, Payloads], spans: list[Span]) -> None:
    """Turn the payloads of kept spans into attributes by their programs' rules, each call's together."""
    calls: dict[str | None, list[Span]] = {}
    for span in spans:
        if span.payload is not None:
            calls.setdefault(span.call_id, []).append(span)
    for of_call in calls.values():
        if (rules := payloads.get(of_call[0].program or UNKNOWN)) is not None:
            rules.safely(partial(rules.apply_to_call, of_call), None)
        for span in of_call:
            span.payload = None
