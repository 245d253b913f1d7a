"""Built once per execution environment: config, models, programs, runner, telemetry."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

# Before DSPy's first call, or it fetches its price map over the network then: up to 5 s where egress is blocked.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")
# A program's own progress bar leaves half a line, which the next log line would be glued to.
os.environ.setdefault("TQDM_DISABLE", "1")

from dspy_lambda.dspy_patches import (
    bound_provider_calls,
    leave_out_progress_bars,
    mend_best_of,
    quick_stacks,
    remember_lookups,
    renew_asyncify_slots,
    send_own_models,
)

with quick_stacks():
    import dspy
    from dspy.utils.exceptions import LMAuthError

from dspy_lambda.call import Call, NoCall
from dspy_lambda.config import Server, load_config
from dspy_lambda.dispatch import Dispatcher, no_durations
from dspy_lambda.errors import ConfigError
from dspy_lambda.history import install as install_history
from dspy_lambda.invocation import Invocation
from dspy_lambda.loop import PersistentLoop
from dspy_lambda.models.registry import ProgramLM, build_models
from dspy_lambda.process import MOST_THREADS, PER_INVOCATION, LastResort, ProcessState
from dspy_lambda.programs.discovery import load_programs, placed_lm
from dspy_lambda.programs.served import Served
from dspy_lambda.runner import Runner
from dspy_lambda.settings import API_BASE, Settings
from dspy_lambda.telemetry import hooks
from dspy_lambda.telemetry.describe import describe
from dspy_lambda.telemetry.output import Output
from dspy_lambda.telemetry.telemetry import Stream, Telemetry
from dspy_lambda.usage import SETTING
from dspy_lambda.watch import KillDump, Watch

Part = TypeVar("Part")
CACHE_ENTRIES = 1000
_KEY_SECONDS = 60.0
_OTHER_THREADS = 30  # the main one, the runner's, those for names and queues, and libraries' own


class Environment:
    """Everything that outlives an invocation.

    Attributes:
        served: the programs, and which one an event is for.
        programs, failed: by name; with `DSPY_LAMBDA_PROGRAM` only that one, and `failed` is empty.
        restart_seconds: what the next invocation keeps back to replace the process in: too little was left for that.
        secrets: the names of the variables whose values came from a secret store.
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
            output: where log lines and metrics go; standard output if there is none.
            settings: what was read from them, if that was needed before.
            own_process: whether the process serves this environment alone: then what its code logs or prints, and
                what Python itself would print (dead threads, warnings), goes there, too, as JSON.
            secrets: the variables whose values came from a secret store.

        Raises:
            ConfigError: the project cannot be served as it is.
        """
        self.settings = settings or Settings.from_environment(variables)
        project = find_project(self.settings)
        self.config = load_config(project)
        install_history()
        self.telemetry = Telemetry(self.config.app_id, self.settings, output or Output(1))
        self._cold = True
        self.secrets = tuple(secrets or ())
        self.telemetry.exceptions.hide((secrets or {}).values())
        if own_process:
            texts = self.telemetry.log_private or self.telemetry.exceptions.in_log
            hooks.install(self.telemetry.log_here, self.telemetry.exceptions.text if texts else None)
        with self.telemetry.take_over() if own_process else nullcontext():
            self._build(project)

    def _build(self, project: Path) -> None:
        settings = self.settings
        self._warn_of_unknown()
        if reason := bound_provider_calls(core_share=settings.core_share):
            self.telemetry.log("WARNING", "some bounds on providers do not apply", {"reason": reason})
        if reason := mend_best_of():
            self.telemetry.log("WARNING", "calls of dspy.Refine and dspy.BestOfN share state", {"reason": reason})
        leave_out_progress_bars()
        # Lambda's disk is read-only, and DSPy's default of 1,000,000 entries in memory may come to 5 GiB.
        dspy.configure_cache(enable_disk_cache=False, memory_max_entries=CACHE_ENTRIES)
        if settings.api_base:
            send_own_models(API_BASE)
        only, module = settings.program, settings.module
        self._no_call = NoCall(
            self.telemetry.answered_outside, self.config.lambda_.function(only or "").timeout_seconds
        )
        self.models: dict[str, ProgramLM] = {}
        with suppress(RuntimeError):  # another thread has configured DSPy before
            # From now on DSPy itself refuses `dspy.configure` in a call, which would change every other call's.
            # Outside of calls the project's own LMs are counted, too, and the trace stays empty: it would only grow.
            dspy.configure(trace=deque(maxlen=0), **{SETTING: self._no_call.usage})
        lm_of = partial(self._lm_of, project)
        self.programs, self.failed = load_programs(project, self.config, only=only, module=module, lm_of=lm_of)
        self.served = Served(self.programs, self.failed)
        if settings.fast:
            remember_lookups()
        self._build_models(project)
        self.telemetry.exceptions.hide(lm.kwargs.get("api_key") for lm in self.models.values())
        self.watch = Watch(self.telemetry.log, max(settings.loop_blocked_ms, 1) / 1000)
        self.process = ProcessState()
        self.last_resort: LastResort | None = None
        self.restart_seconds = 0.0
        self._key_refused, self._keys_read = False, time.time()
        self.kill_dump: KillDump | None = None
        self._recent = no_durations()
        self._parts: dict[Any, Any] = {}
        self._abandoned: list[Runner] = []
        self._last_used = time.time()
        self._runner: Runner | None = self._new_runner()
        self._log_start()

    def _warn_of_unknown(self) -> None:
        for name, meant in self.settings.unknown:
            about = {"variable": name, "did_you_mean": meant} if meant else {"variable": name}
            self.telemetry.log("WARNING", "unknown variable; not read", about)

    def _lm_of(self, project: Path, alias: str) -> ProgramLM | None:
        """An alias's LM for what asks outside of calls; None without its key, which perhaps no program needs."""
        if alias not in self.models:
            with suppress(ConfigError):
                self.models |= self._models_of({alias}, project)
        return self.models.get(alias)

    def _models_of(self, aliases: set[str], project: Path) -> dict[str, ProgramLM]:
        models = build_models(self.config, aliases, project, self._no_call.seconds, self.settings)
        for lm in models.values():
            lm.call = cast(Call, self._no_call)
        return models

    def _build_models(self, project: Path) -> None:
        aliases = {program.model for program in self.programs.values()}
        seconds = (self.config.lambda_.function(name).timeout_seconds for name in self.programs)
        self._no_call.seconds = max(seconds, default=60)
        for alias, lm in self._models_of(aliases, project).items():
            # Programs may have got theirs when they were made, and the code around them may have set the key since.
            self.models.setdefault(alias, lm).kwargs = lm.kwargs
        self.models = {alias: lm for alias, lm in self.models.items() if alias in aliases or lm is placed_lm()}

    def _new_runner(self) -> Runner:
        server = self.config.server
        loop = PersistentLoop(self.telemetry.log, threads=_loop_threads(server), fast=self.settings.fast)
        return Runner(loop, Dispatcher(self.models, server, self._recent))

    @property
    def runner(self) -> Runner:
        """What invocations run on: another one when a call of a former invocation still holds a part of it."""
        if self._runner is None:
            self._runner = self._new_runner()
        return self._runner

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
        """What a source keeps for as long as the environment lives; made when it is first asked for."""
        if make not in self._parts:
            self._parts[make] = make(self)
        part: Part = self._parts[make]
        return part

    def invocation(self, source: str, **about: Any) -> Invocation:
        """A new invocation; the environment's first one is its cold start."""
        cold, self._cold = self._cold, False
        explain = self.telemetry.exceptions.explained
        return Invocation(self.telemetry, source, cold_start=cold, explain=explain, **about)

    def fresh_runner(self, invocation: Invocation) -> Runner:
        """The runner for an invocation, all of its slots free: what former calls still hold is left to them."""
        held = self.runner.stuck()
        if held:
            now = time.monotonic()
            for program, number in Counter(program for program, _ in held).items():
                since = max(now - started for name, started in held if name == program)
                about = {"program": program, "calls": number, "seconds": round(since, 3)}
                self.telemetry.log("WARNING", "calls of former invocations still run; left to themselves", about)
                invocation.counts["Stuck", program] += number
            self.give_up_runner()
        return self.runner

    def give_up_runner(self) -> None:
        """Go on with another thread, loop and executors. Quick: a new thread is only made for the next invocation."""
        self.runner.abandon()
        if not logging._lock.acquire(blocking=False):  # type: ignore[attr-defined]
            # Whoever was given up may hold it for ever, and nobody could log or make a loop any more.
            logging._lock = threading.RLock()  # type: ignore[attr-defined]
        else:
            logging._lock.release()  # type: ignore[attr-defined]
        self._abandoned = [runner for runner in [*self._abandoned, self.runner] if runner.thread.is_alive()]
        for lm in self.models.values():
            lm.abandon_slots()
        renew_asyncify_slots()
        self._runner = None

    def begin(self) -> None:
        """Put back the variables that a thread of a former call has changed since; the runtime client sets its own."""
        self.process.note(PER_INVOCATION)
        if self.process.put_back_environ():
            about = {"changed": ["os.environ"]}
            self.telemetry.log("WARNING", "a program changed the process after its invocation; put back", about)

    def arm(self, invocation: Invocation) -> None:
        """Have the stacks dumped before Lambda's kill, if nothing answers until then."""
        if self.kill_dump is not None:
            self.kill_dump.arm(invocation.ends - time.monotonic())

    def disarm(self) -> None:
        """It is answered."""
        if self.kill_dump is not None:
            self.kill_dump.disarm()

    def before_invocation(self, runner: Runner) -> None:
        """Read the keys again if a provider has refused one, and drop the connections of an environment long idle.

        Frozen, it cannot see that a gateway or load balancer gave them up; a silently dropped one would hang until
        the read timeout. By the wall clock: others may stand still while the environment is frozen.
        """
        if self._key_refused and time.time() - self._keys_read >= _KEY_SECONDS:
            self._renew_keys()
        if time.time() - self._last_used > self.settings.idle_seconds:
            for lm in self.models.values():
                try:
                    runner.use_loop().run_until_complete(lm.aclose())
                except Exception as error:  # the next call opens its own connections all the same
                    self.telemetry.log("WARNING", "old connections cannot be closed", describe(error))
        self._last_used = time.time()

    def after_invocation(self, invocation: Invocation) -> None:
        """Put back what programs changed in the process, and see whether it can go on."""
        self._last_used = time.time()
        self.telemetry.finish_printed()
        if self.secrets and any(isinstance(call.lm_error, LMAuthError) for call in list(invocation.calls.values())):
            self._key_refused = True  # the caller waits: they are read before the next invocation's calls
        try:
            self._look_after_process(invocation)
        except Exception as error:  # a descriptor that a program closed; the answer is made
            self.telemetry.log("ERROR", "the process cannot be put in order", describe(error))

    def _look_after_process(self, invocation: Invocation) -> None:
        if changed := self.process.put_back():
            self.telemetry.log("WARNING", "a program changed the process; put back", {"changed": changed})
        resort, self.restart_seconds = self.last_resort, 0.0
        if resort is None or not (reason := resort.why(self._stuck_runners())):
            return
        if invocation.ends - time.monotonic() < resort.seconds:
            self.restart_seconds = 2 * resort.seconds  # half of what is kept back may go to a late answer
            return
        about = {"used_up": reason, "restarts": resort.restarts, "replaced": resort.plan(reason)}
        self.telemetry.log("ERROR", "the process is used up", about)

    def _stuck_runners(self) -> int:
        """How many of the runners that were given up have not come back."""
        return sum(runner.thread.is_alive() for runner in self._abandoned)

    def _renew_keys(self) -> None:
        """Read the keys again after a rotation: at most once a minute, so that a wrong key costs no more than that."""
        from dspy_lambda.secrets import renew

        self._keys_read = time.time()  # whether it works or not
        before = {name: os.environ.get(name) for name in self.secrets}
        try:
            fresh = renew(self.settings, self.secrets)
        except ConfigError as error:
            self.telemetry.log("ERROR", "the keys cannot be read again", {"reason": str(error)})
            return
        self._key_refused = False
        self.use_keys(fresh)
        changed = [name for name in self.secrets if fresh.get(name) != before[name]]
        self.telemetry.log("INFO", "a provider refused a key; the keys were read again", {"changed": changed})

    def use_keys(self, variables: Mapping[str, str]) -> None:
        """Give the models keys that have changed since; calls under way keep theirs."""
        self._keys_read = time.time()
        self.process.note(variables)  # or they would be put back as a program's doing
        for alias, lm in self.models.items():
            if key := variables.get(self.config.models.registry[alias].env or ""):
                lm.kwargs["api_key"] = key
        self.telemetry.exceptions.hide(variables.values())
        self._last_used = time.time()

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
        if large := {name: p.copier.too_large for name, p in self.programs.items() if p.copier.too_large}:
            about["too_large_to_copy"] = large
        self.telemetry.log("ERROR" if self.failed else "INFO", "environment ready", about)


def find_project(settings: Settings) -> Path:
    """The DSPy project's folder: the setting, else Lambda's task root, else the working directory."""
    return Path(settings.project or settings.task_root or os.getcwd()).resolve()


def _loop_threads(server: Server) -> int:
    """The threads behind `asyncio.to_thread`: many, and with those of sync programs below what is used up."""
    return min(256, MOST_THREADS - _OTHER_THREADS - server.sync_worker_threads)
