"""Where each program's traces go, what is kept of them, and what of inputs and answers is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dspy_lambda_infra.project import Function
from dspy_lambda_infra.table import table


@dataclass(frozen=True)
class TraceUse:
    """What one program's config says about traces and payloads.

    Attributes:
        traces: `none`, `cloudwatch`, or a collector's address.
        headers_env: the variable with the collector's headers.
        sample: the share of all traces that is kept.
        slow_seconds: from when an invocation counts as slow, so that its trace is kept.
        incoming: `respect` if a caller's decision about its trace comes first, or `ignore`.
        mask: what `payloads: masked` replaces, the project's own function included.
    """

    program: str
    traces: str
    headers_env: str | None
    sample: float
    slow_seconds: float
    incoming: str
    payloads: str
    max_payload_bytes: int
    mask: list[str]


def trace_use(function: Function) -> TraceUse:
    """Return what applies to a program."""
    settings = function.settings
    telemetry = settings.telemetry
    return TraceUse(
        program=function.name,
        traces=telemetry.traces,
        headers_env=telemetry.headers_env,
        sample=telemetry.sample,
        slow_seconds=settings.slow_seconds,
        incoming=telemetry.incoming,
        payloads=telemetry.payloads,
        max_payload_bytes=telemetry.max_payload_bytes,
        mask=[*telemetry.mask, *([telemetry.mask_with] if telemetry.mask_with else [])],
    )


def traces_text(uses: Iterable[TraceUse]) -> str:
    """Return a table; an empty text if no program is traced or writes payloads."""
    found = list(uses)
    if all(use.traces == "none" and use.payloads == "none" for use in found):
        return ""
    rows = [[use.program, use.traces, _kept(use), _payloads(use)] for use in found]
    return "\n".join(table([["program", "traces", "kept", "inputs and answers"], *rows], words=4))


def _kept(use: TraceUse) -> str:
    if use.traces == "none":
        return ""
    if use.sample == 1:
        kept = "all"
    else:
        kept = f"{use.sample:.4g} of all; all that failed or took {use.slow_seconds:g} s or longer"
    return kept if use.incoming == "ignore" else f"{kept}; the caller's decision comes first"


def _payloads(use: TraceUse) -> str:
    if use.payloads in ("none", "sizes"):
        return {"none": "not written", "sizes": "only their sizes"}[use.payloads]
    masked = f", without {', '.join(use.mask)}" if use.payloads == "masked" and use.mask else ""
    return f"{use.payloads}: up to {use.max_payload_bytes:,} bytes each{masked}"
