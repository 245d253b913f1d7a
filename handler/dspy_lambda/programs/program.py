"""A program: a `dspy.Module`, inspected once and called many times."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dspy

from dspy_lambda.call import CALL
from dspy_lambda.config.schema import AdapterName
from dspy_lambda.history import CallHistory
from dspy_lambda.programs.copies import Copier
from dspy_lambda.programs.schemas import Schemas


@dataclass(frozen=True)
class Entry:
    """The method that serves a program's calls.

    Attributes:
        name: `forward` or `aforward`.
        method: the function whose hints define the schemas.
        is_async: whether the program is native async.
        why: the reason for that decision.
    """

    name: str
    method: Callable[..., Any]
    is_async: bool
    why: str

    async def start(self, instance: dspy.Module, inputs: dict[str, Any]) -> Any:
        """Run a native async call."""
        if self.name == "aforward":
            return await instance.acall(**inputs)
        return await instance(**inputs)


@dataclass(frozen=True)
class Program:
    """One loaded program. `instance` is shared and never called; calls run on `copy()`.

    Attributes:
        model: the alias of its model.
        constructor_models: the aliases of the LMs that its constructor got.
        adapter: the adapter of its calls; None for DSPy's default.
        predictor_models: the aliases of predictors with a model of their own, by the predictor's `id`.
    """

    name: str
    module: str
    model: str
    instance: dspy.Module
    entry: Entry
    schemas: Schemas
    copier: Copier
    constructor_models: tuple[str, ...] = ()
    adapter: AdapterName | None = None
    predictor_models: Mapping[int, str] = field(default_factory=dict, compare=False)

    def copy(self, lms: Mapping[int, dspy.LM] | None = None) -> dspy.Module:
        """Create a copy for one call, so that what the call changes on `self` and below stays in it.

        Args:
            lms: the call's LM for each predictor in `predictor_models`.
        """
        call = CALL.get()
        return self.copier.copy(lambda: CallHistory(call), lms)


@dataclass(frozen=True)
class FailedProgram:
    """A program that could not be loaded, and why. The text of `error` is safe to show; that of `cause` is not."""

    name: str
    module: str
    model: str
    error: str
    cause: BaseException | None = field(default=None, compare=False, repr=False)


def choose_entry(instance: dspy.Module) -> Entry:
    """Choose the method that serves the program's calls.

    A program is native async if, in its MRO, the class that defines `aforward` is the same as or precedes the class
    that defines `forward`. `hasattr` would accept an inherited `aforward` that does not match the program's own
    `forward`, and `cls.__dict__` would miss a subclass of an async program.

    Raises:
        TypeError: The program has neither method, or the method is a generator.
    """
    entry = _find_entry(instance)
    if inspect.isgeneratorfunction(entry.method) or inspect.isasyncgenfunction(entry.method):
        raise TypeError(f"{entry.name} is a generator; a program must return its whole result")
    return entry


def _find_entry(instance: dspy.Module) -> Entry:
    cls = type(instance)
    sync_at, async_at = defined_at(cls, "forward"), defined_at(cls, "aforward")
    own = vars(instance).get("forward")
    if own is not None:
        # dspy.syncify sets a synchronous forward(*args, **kwargs) on the instance, which takes precedence.
        named = [
            p for p in inspect.signature(own).parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        method = own if named or async_at is None else inspect.getattr_static(cls, "aforward")
        return Entry("forward", method, _is_async(own), "forward is set on the instance")
    if async_at is not None and (sync_at is None or async_at <= sync_at):
        if sync_at is not None and cls.__mro__[async_at].__module__.startswith("dspy.") and _has_sync_lm(instance):
            return Entry("forward", inspect.getattr_static(cls, "forward"), False, "its LM has no aforward")
        aforward = inspect.getattr_static(cls, "aforward")
        return Entry("aforward", aforward, True, f"aforward of {cls.__mro__[async_at].__name__}")
    if sync_at is None:
        raise TypeError(f"{cls.__name__} defines neither forward nor aforward")
    forward = inspect.getattr_static(cls, "forward")
    is_async = _is_async(forward)
    return Entry(
        "forward", forward, is_async, f"{'async ' if is_async else ''}forward of {cls.__mro__[sync_at].__name__}"
    )


def _has_sync_lm(instance: dspy.Module) -> bool:
    """Whether a predictor has its own LM, and that LM defines only `forward`."""
    lms = [type(predictor.lm) for predictor in instance.predictors()]
    return any(
        issubclass(lm, dspy.BaseLM) and lm.forward is not dspy.BaseLM.forward and lm.aforward is dspy.BaseLM.aforward
        for lm in lms
    )


def _is_async(method: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(inspect.unwrap(method))


def defined_at(cls: type, method: str) -> int | None:
    return next((i for i, base in enumerate(cls.__mro__) if method in vars(base)), None)
