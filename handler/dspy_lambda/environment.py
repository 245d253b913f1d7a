"""Everything built once per execution environment: config, models, programs, runner and telemetry."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any, TypeVar

# Before DSPy's first call, which would otherwise download the price map: up to 5 s if egress is blocked.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")
# A program's progress bar would leave half a line, to which the next log line would be appended.
os.environ.setdefault("TQDM_DISABLE", "1")

from dspy_lambda.dspy_patches.start import dspy_import

with dspy_import():
    import dspy

from dspy_lambda.call import UNKNOWN, NoCall
from dspy_lambda.config import FunctionSettings, load_config
from dspy_lambda.config.telemetry import Telemetry as TelemetryRules
from dspy_lambda.dispatch import Dispatcher, new_durations
from dspy_lambda.dspy_patches.insides import renew_asyncify_slots, usage_setting
from dspy_lambda.dspy_patches.own_models import close_pools
from dspy_lambda.dspy_patches.table import patch_dspy
from dspy_lambda.invocation import Invocation
from dspy_lambda.keys import Keys
from dspy_lambda.limits import abandon_shared_limits
from dspy_lambda.loop import PersistentLoop
from dspy_lambda.models.pool import ModelPool
from dspy_lambda.process import PER_INVOCATION, LastResort, ProcessState
from dspy_lambda.programs.discovery import load_programs
from dspy_lambda.programs.served import Served
from dspy_lambda.runner import Runner
from dspy_lambda.runners import Runners, new_runner
from dspy_lambda.settings import Settings
from dspy_lambda.telemetry import hooks
from dspy_lambda.telemetry.describe import describe
from dspy_lambda.telemetry.handlers import Stream
from dspy_lambda.telemetry.output import Output
from dspy_lambda.telemetry.telemetry import Telemetry
from dspy_lambda.watch import KillDump, Watch

Part = TypeVar("Part")
CACHE_ENTRIES = 1000


class Environment:
    """Everything that outlives an invocation.

    Attributes:
        served: the programs, and the choice of one for an event.
        programs, failed: by name; with `DSPY_LAMBDA_PROGRAM` only that program, and `failed` is empty.
        restart_seconds: the time that the next invocation reserves for replacing the process, if the last one had
            too little.
        keys: the models' keys that came from a secret store.
        runners: the runners that invocations run on.
    """

    def __init__(
        self,
        variables: Mapping[str, str],
        output: Stream | None = None,
        *,
        settings: Settings | None = None,
        own_process: bool = False,
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        """Load the project.

        Args:
            variables: environment variables.
            output: where log lines and metrics are written; by default to standard output.
            settings: the settings, if they were already read from `variables`.
            own_process: whether the process serves only this environment. Then everything that the process logs or
                prints, including Python's own messages (dead threads, warnings), is also written there as JSON.
            secrets: the variables whose values came from a secret store.

        Raises:
            ConfigError: The project cannot be served.
        """
        self.settings = settings or Settings.from_environment(variables)
        project = self.settings.project_folder
        self.config = load_config(project)
        self.telemetry = Telemetry(self.config.app_id, self.settings, output or Output(1))
        if any(rules.buffer_debug_logs for rules in self._served_rules().values()):
            self.telemetry.hold_debug_lines(lambda program: self._function(program).telemetry.buffer_debug_logs)
        self._cold = True
        self.telemetry.exceptions.redact((secrets or {}).values())
        if own_process:
            texts = self.telemetry.log_private or self.telemetry.exceptions.in_log
            hooks.install(self.telemetry.log_here, self.telemetry.exceptions.text if texts else None)
        with self.telemetry.capture_process_output() if own_process else nullcontext():
            self._build(project, tuple(secrets or ()))

    def _function(self, program: str) -> FunctionSettings:
        return self.config.lambda_.function(program)

    def _served_rules(self) -> dict[str, TelemetryRules]:
        """Return the `telemetry` section of the one program that this environment serves, or of all, by name."""
        lambda_, only = self.config.lambda_, self.settings.program
        return {name: lambda_.function(name).telemetry for name in ([only] if only else [*lambda_.programs, UNKNOWN])}

    def _build(self, project: Path, secrets: tuple[str, ...]) -> None:
        settings = self.settings
        self._warn_of_unknown()
        has_base = bool(settings.api_base)
        patch_dspy(self.telemetry.log, core_share=settings.core_share, fast=settings.fast, gateway=has_base)
        self._start_tracing()
        # Lambda's disk is read-only, and DSPy's default of 1,000,000 entries in memory may take 5 GiB.
        dspy.configure_cache(enable_disk_cache=False, memory_max_entries=CACHE_ENTRIES)
        only, module = settings.program, settings.module
        no_call = NoCall(
            self.telemetry.answered_outside_calls, self.config.lambda_.function(only or "").timeout_seconds
        )
        self.models = ModelPool(self.config, project, settings, no_call, self.telemetry.log_here)
        with suppress(RuntimeError):  # another thread has already configured DSPy
            # From now on DSPy itself refuses `dspy.configure` in calls, where it would affect all other calls.
            # Usage outside calls is counted, too, and the trace stays empty, because it would only grow.
            dspy.configure(trace=deque(maxlen=0), **usage_setting(no_call.usage))
        lm_of = self.models.outside_of_calls
        self.programs, self.failed = load_programs(
            project, self.config, only=only, module=module, lm_of=lm_of, to_run=True
        )
        self.served = Served(self.programs, self.failed)
        self.models.keep(self.programs.values())
        self.telemetry.exceptions.redact(lm.kwargs.get("api_key") for lm in self.models.values())
        self.telemetry.prepare_payloads(self.config.lambda_, self.programs, settings.variables)
        self.watch = Watch(self.telemetry.log, max(settings.loop_blocked_ms, 1) / 1000)
        self.process = ProcessState()
        self.last_resort: LastResort | None = None
        self.restart_seconds = 0.0
        self.keys = Keys(secrets, settings, self.config, self.models, self.process, self.telemetry)
        self.kill_dump: KillDump | None = None
        self._recent = new_durations()
        self._parts: dict[Any, Any] = {}
        self._last_used = time.time()
        self.runners = Runners(self._new_runner, self._free_slots, self.telemetry.log)
        self._log_start()

    def _warn_of_unknown(self) -> None:
        for name, meant in self.settings.unknown:
            about = {"variable": name, "did_you_mean": meant} if meant else {"variable": name}
            self.telemetry.log("WARNING", "ignored an unknown variable", about)

    def _start_tracing(self) -> None:
        """Collect spans, if any program's settings ask for traces or for metrics of each model."""
        rules = self._served_rules()
        exports = any((self.settings.traces or one.traces) != "none" for one in rules.values())
        if exports or any(one.model_metrics for one in rules.values()):
            from dspy_lambda.telemetry.traces.start import start_tracing

            start_tracing(self.telemetry, self.config, self.settings, rules, exports=exports)

    def _new_runner(self) -> Runner:
        return new_runner(self.config.server, self.models, self._recent, self.telemetry.log, fast=self.settings.fast)

    def _free_slots(self) -> None:
        for lm in self.models.values():
            lm.abandon_slots()
        abandon_shared_limits()
        renew_asyncify_slots()

    @property
    def runner(self) -> Runner:
        """The current runner."""
        return self.runners.current

    @property
    def loop(self) -> PersistentLoop:
        """The runner's loop."""
        return self.runner.loop

    @property
    def dispatcher(self) -> Dispatcher:
        """The runner's dispatcher."""
        return self.runner.dispatcher

    def use_loop(self) -> asyncio.AbstractEventLoop:
        """Make the loop this thread's current one."""
        return self.runner.use_loop()

    def part(self, make: Callable[[Environment], Part]) -> Part:
        """Return an object that a source keeps for the life of the environment; created on first use."""
        if make not in self._parts:
            self._parts[make] = make(self)
        part: Part = self._parts[make]
        return part

    def invocation(self, source: str, **about: Any) -> Invocation:
        """Create an invocation; the environment's first one is a cold start."""
        cold, self._cold = self._cold, False
        explain = self.telemetry.exceptions.explained
        return Invocation(self.telemetry, source, cold_start=cold, explain=explain, **about)

    def begin(self) -> None:
        """Restore variables that a thread of an earlier call has changed; keep those that the runtime client sets."""
        self.process.note(PER_INVOCATION)
        if self.process.restore_environ():
            about = {"changed": ["os.environ"]}
            self.telemetry.log("WARNING", "restored process state that a program changed after its invocation", about)

    def arm(self, invocation: Invocation) -> None:
        """Schedule a dump of all stacks just before Lambda's timeout, in case nothing answers until then."""
        if self.kill_dump is not None:
            self.kill_dump.arm(invocation.ends - time.monotonic())

    def disarm(self) -> None:
        """Cancel the dump."""
        if self.kill_dump is not None:
            self.kill_dump.disarm()

    def before_invocation(self, runner: Runner) -> None:
        """Reload the keys if a provider rejected one, and close connections after a long idle time.

        A frozen environment does not notice that a gateway or load balancer dropped them, and a request on a dropped
        connection would hang until the read timeout. Uses the wall clock: other clocks may stop while frozen.
        """
        self.keys.renew_refused()
        if time.time() - self._last_used > self.settings.idle_seconds:
            self.close_connections(runner)
        self._last_used = time.time()

    def close_connections(self, runner: Runner) -> None:
        """Close the connections of aliases' LMs, of LMs in code and of embeddings. No call may be running."""
        closing = [*(lm.aclose for lm in self.models.values()), close_pools]
        http_client: Any = sys.modules.get("dspy_lambda.dspy_patches.http_client")  # loaded with the first embeddings
        if http_client is not None:
            closing.append(http_client.aclose)
        for close in closing:
            try:
                runner.use_loop().run_until_complete(close())
            except Exception as error:  # the next call opens new connections anyway
                self.telemetry.log("WARNING", "idle connections could not be closed", describe(error))

    def after_invocation(self, invocation: Invocation) -> None:
        """Restore what programs changed in the process, and replace the process if a resource is exhausted."""
        self._last_used = time.time()
        self.telemetry.finish_printed()
        self.keys.note_refused(list(invocation.calls.values()))
        try:
            self._look_after_process(invocation)
        except Exception as error:  # for example a descriptor that a program closed; the answer is ready
            self.telemetry.log("ERROR", "process cleanup failed", describe(error))

    def _look_after_process(self, invocation: Invocation) -> None:
        if changed := self.process.restore():
            self.telemetry.log("WARNING", "restored process state that a program changed", {"changed": changed})
        resort, self.restart_seconds = self.last_resort, 0.0
        if resort is None or not (reason := resort.exhausted_resource(self.runners.stuck)):
            return
        if invocation.ends - time.monotonic() < resort.seconds:
            self.restart_seconds = 2 * resort.seconds  # a late answer may take half of the reserve
            return
        about = {"resource": reason, "restarts": resort.restarts, "replaced": resort.plan(reason)}
        self.telemetry.log("ERROR", "process resources exhausted", about)

    def apply_keys(self, variables: Mapping[str, str]) -> None:
        """Set the models' keys to values just read; running calls keep theirs."""
        self.keys.apply(variables)
        self._last_used = time.time()

    def _log_start(self) -> None:
        limits = self.config.server
        about = self.served.about() | {
            "sync_worker_threads": limits.sync_worker_threads,
            "max_concurrent_per_program": limits.max_concurrent_per_program,
        }
        self.telemetry.log("ERROR" if self.failed else "INFO", "environment ready", about)
