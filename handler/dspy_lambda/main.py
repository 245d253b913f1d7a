"""The front door: `dspy_lambda.main.lambda_handler`."""

from __future__ import annotations

import gc
import os
import signal
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
    # Into the process's own variables: programs that make their own LMs look there.
    os.environ.update(secrets)
# At import, so that a project that cannot be served is a failed init: what Lambda shows best.
environment = Environment(os.environ, settings=settings, own_process=True, secrets=secrets)
environment.kill_dump = KillDump(2)
# A program's `_thread.interrupt_main()`, a home-made timeout, would end the process with its whole batch.
signal.signal(signal.SIGINT, signal.SIG_IGN)
end_forks()
prepare(environment)
if settings.preconnect or settings.is_snap_start:
    from dspy_lambda.warm import warm

    warm(environment)
# Last: it notes how long all of this took.
environment.last_resort = LastResort(_started_with, settings)
# The collector need not look through what stays. With it a full collection takes 65 ms of a whole core, at 256 MB 0.5 s
# (all that is kept back for a late answer), without it 4 ms.
gc.freeze()


def lambda_handler(event: Any, context: Any) -> Any:
    """Answer one event of any source.

    Raises:
        UnknownEvent: no source recognises the event.
        CallError: a direct invocation's call failed; see `dspy_lambda.errors` for the names.
    """
    return invoke(environment, event, context)
