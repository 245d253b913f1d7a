"""The front door: `dspy_lambda.main.lambda_handler`."""

from __future__ import annotations

import os
from typing import Any

from dspy_lambda.environment import Environment
from dspy_lambda.invoke import invoke
from dspy_lambda.process import LastResort
from dspy_lambda.secrets import resolve
from dspy_lambda.sources import prepare
from dspy_lambda.warm import warm
from dspy_lambda.watch import KillDump

# Into the process's own variables: programs that make their own LMs look there.
_started_with = dict(os.environ)
secrets = resolve(os.environ)
os.environ.update(secrets)
# At import, so that a project that cannot be served is a failed init: what Lambda shows best.
environment = Environment(os.environ, own_process=True)
environment.kill_dump = KillDump(2)
environment.last_resort = LastResort(_started_with)
prepare(environment, os.environ.get("DSPY_LAMBDA_SOURCES", ""))
warm(environment, os.environ, secrets)


def lambda_handler(event: Any, context: Any) -> Any:
    """Answer one event of any source.

    Raises:
        UnknownEvent: no source recognises the event.
        CallError: a direct invocation's call failed; see `dspy_lambda.errors` for the names.
    """
    return invoke(environment, event, context)
