"""Answer an LM call with the next model of an alias's fallback list when the one before fails.

Every model of the list makes an ordinary call of its own: its options, its limits, its retries, its cache. The messages
are the same, because DSPy's adapters write them before the call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dspy
from dspy.lm15 import Request
from dspy.utils.exceptions import LMError

from dspy_lambda.call import Call, call_of, usage_of
from dspy_lambda.config import ModelSettings
from dspy_lambda.deadline import DEADLINE
from dspy_lambda.dspy_patches.insides import adapter_messages, stream_progress
from dspy_lambda.errors import CallError, DeadlineExceeded
from dspy_lambda.models.stage import STAGE, Stage
from dspy_lambda.telemetry import Log

if TYPE_CHECKING:
    from dspy_lambda.models.registry import ProgramLM

# Options of `LM.kwargs` that belong to a provider, not to a call.
_OF_PROVIDER = {"api_key", "api_base", "base_url", "timeout"}


class Fallback:
    """An alias's fallback list.

    Args:
        find: returns the LM of an alias; None if this environment does not have it.
        log: writes a line for each fallback.
    """

    def __init__(self, alias: str, settings: ModelSettings, find: Callable[[str], ProgramLM | None], log: Log) -> None:
        self.alias = alias
        self.settings = settings
        self.find = find
        self.log = log

    def call(self, lm: ProgramLM, prompt: Any, messages: Any, options: dict[str, Any]) -> Any:
        """Make a sync LM call; raises the error of the last model that was tried."""
        turns = _Turns(self, lm, prompt, messages, options)
        while True:
            try:
                with turns.turn():
                    return dspy.LM.__call__(turns.lm, turns.prompt, messages=messages, **turns.options)
            except (LMError, CallError) as error:
                if not turns.go_on(error):
                    raise

    async def acall(self, lm: ProgramLM, prompt: Any, messages: Any, options: dict[str, Any]) -> Any:
        """Make an async LM call; raises the error of the last model that was tried."""
        turns = _Turns(self, lm, prompt, messages, options)
        while True:
            try:
                with turns.turn():
                    work = dspy.LM.acall(turns.lm, turns.prompt, messages=messages, **turns.options)
                    return await _in_time(work, turns)
            except (LMError, CallError) as error:
                if not turns.go_on(error):
                    raise


async def _in_time(work: Coroutine[Any, Any, Any], turns: _Turns) -> Any:
    """Cancel a model's work at the end of its share of the time, unless a part of its answer was streamed.

    On the loop, waits do not look at the deadline.
    """
    if turns.share_ends is None:
        return await work
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as scope:

            def end_share() -> None:
                if turns.can_go_on():
                    scope.reschedule(loop.time())

            timer = loop.call_later(max(0.0, turns.share_ends - time.monotonic()), end_share)
            try:
                return await work
            finally:
                timer.cancel()
    except TimeoutError:
        if scope.expired():
            raise DeadlineExceeded("The model's share of the time passed before it answered.") from None
        raise


class _Turns:
    """One LM call on its way along the list.

    Attributes:
        lm, prompt, options: what is called now; the LM is a copy for this call.
        share_ends: when the next model is asked if this one has not answered; None if it may take all the time.
    """

    def __init__(self, fallback: Fallback, lm: ProgramLM, prompt: Any, messages: Any, options: dict[str, Any]) -> None:
        self.lm, self.prompt, self.options = lm, prompt, options
        self._messages = messages
        self.share_ends: float | None = None
        self._fallback = fallback
        self._first = lm
        self._asked = options
        self._alias = fallback.alias
        self._rest = [alias for alias in fallback.settings.fallback if fallback.find(alias) is not None]
        self._failures: list[dict[str, str]] = []
        self._call = call_of(lm)
        # In a thread that a program started, the context has no deadline.
        self._deadline = DEADLINE.get() or getattr(getattr(self._call, "invocation", None), "deadline", None)
        self._lm_error = getattr(self._call, "lm_error", None)
        self._progress: Any = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Prepare the context of the current model's call."""
        self._stage = Stage(self._fallback.settings.fallback_on, self.can_go_on) if self._rest else None
        self.share_ends = self._share()
        stage = STAGE.set(self._stage)
        streams = dspy.settings.send_stream is not None
        # Not if the answer is streamed: once it has begun, it may take all the time.
        narrowed = None if streams or self.share_ends is None else DEADLINE.set(self.share_ends)
        try:
            # The first model's messages are the program's own or its adapter's, and DSPy knows which.
            same = nullcontext() if self.lm is self._first else adapter_messages(self.lm, self._messages)
            with same, stream_progress() if streams else nullcontext() as self._progress:
                yield
        finally:
            with suppress(ValueError):  # a coroutine may be closed in another context
                STAGE.reset(stage)
                if narrowed is not None:
                    DEADLINE.reset(narrowed)

    def _share(self) -> float | None:
        settings = self._fallback.settings
        if settings.timeout_share is None or "timeout" not in settings.fallback_on:
            return None
        if self._deadline is None or not self._rest:
            return None
        now = time.monotonic()
        return now + settings.timeout_share * max(0.0, self._deadline - now)

    def can_go_on(self) -> bool:
        """Whether another model may still be asked."""
        is_streamed = self._progress is not None and self._progress.emitted
        return not is_streamed and (self._deadline is None or time.monotonic() < self._deadline)

    def go_on(self, error: Exception) -> bool:
        """Prepare the next model's call after a failure; return False if no other model is to be tried."""
        reason = None if self._stage is None else self._stage.reason(error)
        self._failures.append({"alias": self._alias, "reason": reason or type(error).__name__})
        if reason is None:
            self._report(error)
            return False
        failed, self._alias = self._alias, self._rest.pop(0)
        self._fallback.log(
            "WARNING", "fell back to another model", {"alias": failed, "next_alias": self._alias, "reason": reason}
        )
        if (usage := usage_of(self._first)) is not None:
            usage.fell_back()
        if isinstance(self._call, Call) and self._call.lm_error is error:
            self._call.lm_error = self._lm_error  # recovered from, as by a retry
        self._prepare()
        self.lm.fell_back = failed, reason
        return True

    def _report(self, error: Exception) -> None:
        """Name all failures, if there were several, in the log and in a note of the last error."""
        if len(self._failures) > 1:
            fields = {"alias": self._fallback.alias, "failures": self._failures}
            self._fallback.log("WARNING", "every model of a fallback list failed", fields)
            tried = ", ".join(f"{one['alias']} ({one['reason']})" for one in self._failures)
            error.add_note(f"Models tried: {tried}.")

    def _prepare(self) -> None:
        found = self._fallback.find(self._alias)
        assert found is not None  # an environment never drops the model of a program that it serves
        first = self._first
        self.lm = found.for_call(first.call) if first.call is not None else found.copy()
        self.lm.history = first.history  # where a program looks for its last call
        self.lm.cache = found.cache and first.cache
        base = self._fallback.find(self._fallback.alias)
        usual = {} if base is None else base.kwargs
        # What the program changed on its copy, such as the `rollout_id` of dspy.Refine.
        changed = {
            name: value
            for name, value in first.kwargs.items()
            if name not in _OF_PROVIDER and (name not in usual or usual[name] != value)
        }
        self.options = _for_model(self.lm, {**changed, **self._asked})
        if isinstance(self.prompt, Request):
            self.prompt = replace(self.prompt, model=self.lm.model)


def _for_model(lm: ProgramLM, options: dict[str, Any]) -> dict[str, Any]:
    """Adjust a call's options to what another model accepts: JSON without a schema, or only as the prompt asks."""
    options = dict(options)
    if isinstance(options.get("request"), Request):
        options["request"] = replace(options["request"], model=lm.model)
    wanted = options.get("response_format")
    if wanted is None:
        return options
    if "response_format" not in lm.supported_params:
        del options["response_format"]
    elif wanted != {"type": "json_object"} and not lm.supports_response_schema:
        options["response_format"] = {"type": "json_object"}
    return options
