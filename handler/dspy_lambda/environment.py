"""Built once per execution environment: config, models, programs, loop, telemetry."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

# Before DSPy's first call, or it fetches its price map over the network then: up to 5 s where egress is blocked.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")

from dspy_lambda.dspy_patches import quick_stacks, remember_lookups

with quick_stacks():
    import dspy

from dspy_lambda.config import load_config
from dspy_lambda.discovery import load_programs
from dspy_lambda.dispatch import Dispatcher
from dspy_lambda.errors import ConfigError
from dspy_lambda.loop import PersistentLoop
from dspy_lambda.models import build_models
from dspy_lambda.programs import FailedProgram, Program
from dspy_lambda.requeue import Requeue
from dspy_lambda.telemetry import Telemetry
from dspy_lambda.telemetry.calls import describe

CACHE_ENTRIES = 1000


class Environment:
    """Everything that outlives an invocation.

    Attributes:
        programs, failed: by name; with `DSPY_LAMBDA_PROGRAM` only that one, and `failed` is empty.
        loop: the one event loop, for ever: connection pools belong to it.
    """

    def __init__(self, settings: Mapping[str, str], output: TextIO | None = None) -> None:
        """Load the project; log lines and metrics go to `output`, standard output if there is none.

        Raises:
            ConfigError: the project cannot be served as it is.
        """
        project = find_project(settings)
        only = settings.get("DSPY_LAMBDA_PROGRAM") or None
        self.config = load_config(project)
        self.telemetry = Telemetry(self.config.app_id, settings, output or sys.stdout)
        # Lambda's disk is read-only, and DSPy's default of 1,000,000 entries in memory may come to 5 GiB.
        dspy.configure_cache(enable_disk_cache=False, memory_max_entries=CACHE_ENTRIES)
        self.programs, self.failed = load_programs(
            project, self.config, only=only, module=settings.get("DSPY_LAMBDA_MODULE") or None
        )
        aliases = {program.model for program in self.programs.values()}
        timeout = max((self.config.lambda_.function(name).timeout_seconds for name in self.programs), default=60)
        models = build_models(self.config, aliases, project, timeout, settings)
        self.dispatcher = Dispatcher(models, self.config.server)
        self.reserve_seconds = _whole_number(settings, "DSPY_LAMBDA_DEADLINE_RESERVE_MS", default=500) / 1000
        self.idle_seconds = _whole_number(settings, "DSPY_LAMBDA_IDLE_SECONDS", default=50)
        self._last_used = time.time()
        self.requeue = Requeue(settings, self._warn)
        self.integration_seconds = _integration_seconds(settings)
        # `sam local start-api` gives every REST event the time of its own start. aws-sam-cli issue 9279.
        self.believes_epochs = settings.get("AWS_SAM_LOCAL") != "true"
        fast = settings.get("DSPY_LAMBDA_FAST", "true").lower() != "false"
        if fast:
            remember_lookups()
        self.loop = PersistentLoop(self.telemetry.logger, fast=fast)
        self._log_start()

    def use_loop(self) -> asyncio.AbstractEventLoop:
        """Make the persistent loop the current one: a program's `asyncio.run` leaves none behind, and Mangum asks."""
        asyncio.set_event_loop(self.loop)
        return self.loop

    def thaw(self) -> None:
        """Before an invocation: drop the connections of an environment that was long idle.

        Frozen, it cannot see that a gateway or load balancer gave them up; a silently dropped one would hang until
        the read timeout. By the wall clock: others may stand still while the environment is frozen.
        """
        if time.time() - self._last_used > self.idle_seconds:
            for lm in self.dispatcher.models.values():
                try:
                    self.use_loop().run_until_complete(lm.aclose())
                except Exception as error:  # the next call opens its own connections all the same
                    self._warn("old connections cannot be closed", describe(error))

    def use_keys(self, variables: Mapping[str, str]) -> None:
        """Give the models keys that have changed since; calls under way keep theirs."""
        for alias, lm in self.dispatcher.models.items():
            if key := variables.get(self.config.models.registry[alias].env or ""):
                lm.kwargs["api_key"] = key
        self._last_used = time.time()

    def rest(self) -> None:
        """After an invocation: end what programs left behind, and note the time."""
        if left := self.loop.end_invocation():
            self.telemetry.logger.warning("left behind by a program", extra={"tasks": left})
        self._last_used = time.time()

    def find(self, name: str) -> Program | FailedProgram | None:
        """The program of that name, loaded or failed."""
        return self.programs.get(name) or self.failed.get(name)

    def only_program(self) -> Program | FailedProgram | None:
        """The one program that this function serves, or None if it serves several."""
        known: list[Program | FailedProgram] = [*self.programs.values(), *self.failed.values()]
        return known[0] if len(known) == 1 else None

    def _warn(self, message: str, about: dict[str, Any]) -> None:
        self.telemetry.logger.warning(message, extra=about)

    def _log_start(self) -> None:
        limits = self.config.server
        about = {
            "programs": {
                name: f"{'async' if p.entry.is_async else 'sync'}: {p.entry.why}" for name, p in self.programs.items()
            },
            "failed": {name: p.error for name, p in self.failed.items()},
            "models": {name: p.model for name, p in self.programs.items()},
            "sync_worker_threads": limits.sync_worker_threads,
            "max_concurrent_per_program": limits.max_concurrent_per_program,
        }
        log = self.telemetry.logger.error if self.failed else self.telemetry.logger.info
        log("environment ready", extra=about)


def find_project(settings: Mapping[str, str]) -> Path:
    """The DSPy project's folder: DSPY_LAMBDA_PROJECT, else Lambda's task root, else the working directory."""
    return Path(settings.get("DSPY_LAMBDA_PROJECT") or settings.get("LAMBDA_TASK_ROOT") or os.getcwd()).resolve()


def _integration_seconds(settings: Mapping[str, str]) -> dict[str, float]:
    """How long the gateway itself waits, by source.

    REST: 29 s, and more for Regional APIs on request; HTTP API: 30 s.
    https://docs.aws.amazon.com/apigateway/latest/developerguide/api-gateway-execution-service-limits-table.html
    """
    seconds = {"rest": 29.0, "http": 30.0}
    if settings.get("DSPY_LAMBDA_INTEGRATION_SECONDS"):
        raised = float(_whole_number(settings, "DSPY_LAMBDA_INTEGRATION_SECONDS", default=0))
        seconds = dict.fromkeys(seconds, raised)
    return seconds


def _whole_number(settings: Mapping[str, str], name: str, default: int) -> int:
    text = settings.get(name) or str(default)
    if not text.isdecimal():
        raise ConfigError(f"{name}: must be a whole number, not {text!r}.")
    return int(text)
