"""The Lambda entry point: `dspy_lambda.main.lambda_handler`."""

from __future__ import annotations

import gc
import os
import signal
from functools import partial
from typing import Any

from dspy_lambda.environment import Environment
from dspy_lambda.invoke import invoke
from dspy_lambda.process import LastResort, as_started, end_forks
from dspy_lambda.settings import Settings
from dspy_lambda.sources import prepare
from dspy_lambda.watch import KillDump

_started_with = as_started(dict(os.environ))
settings = Settings.from_environment(os.environ)
secrets: dict[str, str] = {}
if settings.secrets:
    from dspy_lambda.secrets import resolve

    secrets = resolve(settings)
    # Into the process's environment, where LMs that programs create look for their keys.
    os.environ.update(secrets)
# At import, so that a project that cannot be served fails init, which Lambda reports most clearly.
environment = Environment(os.environ, settings=settings, own_process=True, secrets=secrets)
environment.kill_dump = KillDump(2)
# A program's `_thread.interrupt_main()`, used as a timeout, would end the process and fail its whole batch.
signal.signal(signal.SIGINT, signal.SIG_IGN)
end_forks()
prepare(environment)
if settings.preconnect or settings.is_snap_start:
    from dspy_lambda.warm import warm

    warm(environment)
# Last, because it measures how long init took.
environment.last_resort = LastResort(_started_with, settings)
if environment.telemetry.exporter is not None:
    from dspy_lambda.telemetry.export.start import hand_over

    environment.last_resort.hand_over = partial(hand_over, environment.telemetry.exporter)
# Exempt long-lived objects from garbage collection. A full collection that includes them takes 65 ms of a whole core
# and 0.5 s at 256 MB, which is the whole reserve for a late answer; without them it takes 4 ms.
gc.freeze()


def lambda_handler(event: Any, context: Any) -> Any:
    """Answer one event from any source.

    Raises:
        UnknownEvent: No source recognizes the event.
        CallError: A direct invocation's call failed; see `dspy_lambda.errors` for the names.
    """
    return invoke(environment, event, context)
