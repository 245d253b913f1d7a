"""Choose where spans go and when they leave, and start it all. Loaded only if traces are on."""

from __future__ import annotations

import atexit
from collections.abc import Mapping
from typing import Any

from dspy_lambda import __version__
from dspy_lambda.config.telemetry import Telemetry
from dspy_lambda.errors import ConfigError
from dspy_lambda.settings import EXTENSION_ID, TRACES, Settings
from dspy_lambda.telemetry import Log
from dspy_lambda.telemetry.export.collector import Collector, cloudwatch, collector
from dspy_lambda.telemetry.export.exporter import Exporter
from dspy_lambda.telemetry.export.extension import Extension
from dspy_lambda.telemetry.export.shutdown import FLUSH_SECONDS, flush_at_sigterm

_INTERVAL_SECONDS = 1.0
# Where nothing freezes the process, a request may take as long as OpenTelemetry's exporters wait.
_SEND_SECONDS, _BACKGROUND_SEND_SECONDS = 1.0, 10.0
_INLINE_SECONDS = 0.5


def before_answer(exporter: Exporter, seconds_left: float) -> None:
    """Flush if nothing does so after the answer. Call it last, when the answer is ready.

    Args:
        seconds_left: the time until the deadline; at most half of it is used.
    """
    if exporter.mode == "inline":
        exporter.flush(min(_INLINE_SECONDS, seconds_left / 2))


def hand_over(exporter: Exporter) -> dict[str, str]:
    """Flush before the process replaces itself, and return the variables that the new one needs.

    The new process goes on as the same extension: Lambda registers none after init, and every invocation would wait for
    one that has stopped asking for events.
    """
    exporter.close(FLUSH_SECONDS)
    return {EXTENSION_ID: exporter.extension_id} if exporter.extension_id else {}


def start_export(settings: Settings, telemetry: Telemetry, service: str, log: Log) -> Exporter:
    """Start to export spans. Call it during init, in the main thread, and only if traces are on.

    Spans go to the setting `traces`, or else to the config's `telemetry.traces`.

    Args:
        telemetry: the section with `traces`.
        service: the resource's `service.name`.

    Raises:
        ConfigError: The setting is not an address, or `cloudwatch` has no Region.
    """
    destination = _destination(settings, telemetry)
    variables = settings.variables
    api = variables.get("AWS_LAMBDA_RUNTIME_API", "")
    # Managed Instances run several processes at once, and freeze none.
    freezes = bool(api) and "AWS_LAMBDA_MAX_CONCURRENCY" not in variables
    exporter = Exporter(
        destination.send,
        resource(settings, service),
        log,
        interval=None if freezes else _INTERVAL_SECONDS,
        send_seconds=_SEND_SECONDS if freezes else _BACKGROUND_SEND_SECONDS,
        drop_connection=destination.connection.close,
    )
    if freezes:
        extension = Extension(api, exporter, log, settings.extension_id or "")
        exporter.mode = "extension" if extension.start() else "inline"
        exporter.extension_id = extension.identifier
    if api:
        flush_at_sigterm(lambda: exporter.flush(FLUSH_SECONDS))
    else:
        atexit.register(exporter.close)
    return exporter


def _destination(settings: Settings, telemetry: Telemetry) -> Collector:
    idle = float(settings.idle_seconds)
    if settings.traces:  # without the config's headers, which are for another address
        try:
            url = Telemetry(traces=settings.traces).traces
        except ValueError:
            raise ConfigError(f"{TRACES}: write none, or an address such as http://127.0.0.1:4318.") from None
        headers_env = None
    else:
        url, headers_env = telemetry.traces, telemetry.headers_env
    if url == "cloudwatch":
        return cloudwatch(_region(settings.variables), idle)
    return collector(url, headers_env, idle)


def _region(variables: Mapping[str, str]) -> str:
    region = variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION")
    if not region:
        raise ConfigError("telemetry.traces: cloudwatch needs AWS_REGION; set it.")
    return region


def resource(settings: Settings, service: str) -> dict[str, Any]:
    """Return the resource's attributes.

    https://opentelemetry.io/docs/specs/semconv/resource/faas/
    """
    variables = settings.variables
    found: dict[str, Any] = {
        "service.name": service,
        "cloud.region": variables.get("AWS_REGION"),
        "faas.name": settings.function_name,
        "faas.version": variables.get("AWS_LAMBDA_FUNCTION_VERSION"),
        "faas.max_memory": settings.memory_mb and settings.memory_mb * 2**20,
        "telemetry.sdk.name": "dspy-lambda",
        "telemetry.sdk.language": "python",
        "telemetry.sdk.version": __version__,
    }
    if settings.function_name:
        found |= {"cloud.provider": "aws", "cloud.platform": "aws_lambda"}
    return {name: value for name, value in found.items() if value is not None}
