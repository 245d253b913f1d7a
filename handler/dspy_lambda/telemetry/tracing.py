"""Start tracing in an environment. Imported only if its settings ask for traces or for metrics of each model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspy_lambda.dspy_patches.spans import patch_spans
from dspy_lambda.telemetry.tracer import Tracer

if TYPE_CHECKING:
    from dspy_lambda.config import Config
    from dspy_lambda.settings import Settings
    from dspy_lambda.telemetry.telemetry import Telemetry


def start_tracing(telemetry: Telemetry, config: Config, settings: Settings, destination: str) -> None:
    """Make spans of what programs do, and export those of kept traces.

    Args:
        destination: `none` (for metrics alone), `cloudwatch`, or a collector's address.
    """
    if left_out := patch_spans():
        telemetry.log("WARNING", "DSPy has changed; left out the patches that no longer apply", {"left_out": left_out})
    telemetry.tracer = Tracer(config, None, keeps_all=settings.traces is not None)
