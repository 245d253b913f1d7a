"""Exceptions that a program might raise by accident or maliciously, and that must not break the handler.

Each hook that one of their classes defines is recorded in `touched` when it runs, and then raises SystemExit.
"""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Callable
from typing import Any

from dspy.utils import exceptions as lm

from dspy_lambda.errors import CallError, InvalidInput, OutputTooLarge, ProgramFailed, RateLimited

SECRET = "sk-secret"
touched: list[str] = []

BASES = [
    Exception,
    ValueError,
    KeyError,
    OSError,
    BaseException,
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    StopIteration,
    asyncio.CancelledError,
    MemoryError,
    ExceptionGroup,
    BaseExceptionGroup,
    lm.LMRateLimitError,
    lm.LMAuthError,
    lm.AdapterParseError,
    CallError,
    RateLimited,
    InvalidInput,
    OutputTooLarge,
    ProgramFailed,
]
HOOKS = [
    "__str__",
    "__repr__",
    "__format__",
    "__bytes__",
    "__bool__",
    "__len__",
    "__iter__",
    "__contains__",
    "__getitem__",
    "__call__",
    "__dir__",
    "__sizeof__",
    "__eq__",
    "__ne__",
    "__lt__",
    "__le__",
    "__gt__",
    "__ge__",
    "__hash__",
    "__int__",
    "__float__",
    "__index__",
    "__add__",
    "__radd__",
    "__or__",
    "__ror__",
    "__getattr__",
    "__getattribute__",
    "__setattr__",
    "__delattr__",
    "__reduce__",
    "__reduce_ex__",
    "__copy__",
    "__deepcopy__",
    "__enter__",
    "__exit__",
    "__await__",
    "__instancecheck__",
    "__subclasscheck__",
    "__get__",
    "__set__",
    "__class_getitem__",
    "__fspath__",
]
PROPERTIES = [
    "__class__",
    "__cause__",
    "__context__",
    "__suppress_context__",
    "__traceback__",
    "__dict__",
    "__doc__",
    "__module__",
    "__notes__",
    "args",
    "exceptions",
    "message",
    "retry_after",
    "outcome",
    "status",
    "title",
    "detail",
    "errors",
    "derive",
    "split",
    "subgroup",
]
META_HOOKS = [
    "__getattribute__",
    "__getattr__",
    "__instancecheck__",
    "__subclasscheck__",
    "__subclasses__",
    "__eq__",
    "__ne__",
    "__hash__",
    "__str__",
    "__repr__",
    "__format__",
    "__bool__",
    "__len__",
    "__iter__",
    "__contains__",
    "__call__",
    "__or__",
    "__ror__",
    "__dir__",
    "__setattr__",
]
META_PROPERTIES = ["__name__", "__module__", "__mro__", "__bases__", "__base__", "__dict__", "__doc__", "__class__"]
NONSENSE = [
    float("nan"),
    float("inf"),
    float("-inf"),
    1e308,
    -1,
    -0.5,
    10**400,
    "7",
    b"7",
    True,
    [],
    {},
    object(),
    ValueError,
    lambda: 7,
    7j,
]


def hook(name: str) -> Callable[..., Any]:
    """A function that records its call and raises an exception that `except Exception` does not catch."""

    def run(*_: Any, **__: Any) -> Any:
        touched.append(name)
        raise SystemExit(name)

    return run


def instance(base: Any, kind: Any = None) -> Any:
    """Create an exception of this class without its constructor, so that no hook runs yet."""
    arguments: list[Any] = [SECRET, [ValueError(SECRET)]] if issubclass(base, BaseExceptionGroup) else [SECRET]
    return base.__new__(base if kind is None else kind, *arguments)


def _subclass(base: type, namespace: dict[str, Any], meta: type = type, name: str = "Hostile") -> Any:
    return instance(base, type.__call__(meta, name, (base,), namespace))


def _of_meta(base: type, name: str, value: Any) -> Any:
    return _subclass(base, {}, type("Meta", (type,), {name: value}))


class Text(str):
    """A string whose every method raises."""

    __slots__ = ()


for _name in [
    "__str__",
    "__repr__",
    "__format__",
    "__eq__",
    "__hash__",
    "__len__",
    "__getitem__",
    "__add__",
    "__mod__",
    "encode",
    "isascii",
]:
    setattr(Text, _name, hook(f"Text.{_name}"))


class Dict(dict):
    """A dict whose every method raises."""


for _name in ["__getitem__", "__contains__", "__iter__", "__len__", "__eq__", "get", "items", "keys", "values"]:
    setattr(Dict, _name, hook(f"Dict.{_name}"))


class Number(float):
    """A number whose comparisons and conversions raise."""


for _name in [
    "__float__",
    "__int__",
    "__eq__",
    "__lt__",
    "__le__",
    "__gt__",
    "__ge__",
    "__bool__",
    "__hash__",
    "__ceil__",
    "__repr__",
]:
    setattr(Number, _name, hook(f"Number.{_name}"))


def _changed(error: Any, **attributes: Any) -> Any:
    BaseException.__dict__["__dict__"].__get__(error).update(attributes)
    return error


def _with_dict(error: Any, attributes: dict[str, Any]) -> Any:
    BaseException.__dict__["__dict__"].__set__(error, attributes)
    return error


def _with_arguments(error: Any, arguments: tuple[Any, ...]) -> Any:
    BaseException.__dict__["args"].__set__(error, arguments)
    return error


def _chain(length: int, end: BaseException) -> BaseException:
    for _ in range(length):
        link = ValueError(SECRET)
        link.__cause__ = end
        end = link
    return end


def _cycle(length: int) -> BaseException:
    links = [ValueError(SECRET) for _ in range(length)]
    for link, cause in zip(links, [*links[1:], links[0]], strict=True):
        link.__cause__ = link.__context__ = cause
    return links[0]


def _cycle_through_a_group() -> BaseException:
    member = ValueError(SECRET)
    group = ExceptionGroup(SECRET, [member])
    member.__cause__ = group
    return group


def _nested(depth: int, end: BaseException, width: int = 1) -> BaseException:
    for _ in range(depth):
        end = BaseExceptionGroup(SECRET, [end] * width)
    return end


def _long_traceback(length: int) -> BaseException:
    traceback = None
    for _ in range(length):
        traceback = types.TracebackType(traceback, sys._getframe(), 0, 1)
    return ValueError(SECRET).with_traceback(traceback)


def _raised_in(source: str, filename: str, namespace: dict[str, Any]) -> BaseException:
    code = compile(source, "<string>", "exec").replace(co_filename=filename, co_name=filename, co_qualname=filename)
    try:
        exec(code, namespace)
    except BaseException as error:
        return error
    raise AssertionError("the source raises nothing")


def _lying_order() -> Any:
    class Meta(type):
        def mro(cls) -> list[type]:
            return [cls, BaseException, object]

    return BaseException.__new__(Meta("Hostile", (RateLimited,), {}), SECRET)


def _contradicting(error: CallError) -> CallError:
    error.__cause__ = ExceptionGroup(SECRET, [error])
    return error


def _zoo() -> dict[str, Callable[[], Any]]:
    zoo: dict[str, Callable[[], Any]] = {}
    for base in BASES:
        name = base.__name__
        zoo[name] = lambda base=base: instance(base)
        for special in HOOKS:
            zoo[f"{name} with {special}"] = lambda b=base, s=special: _subclass(b, {s: hook(s)})
        for special in PROPERTIES:
            zoo[f"{name} with property {special}"] = lambda b=base, s=special: _subclass(b, {s: property(hook(s))})
        for special in META_HOOKS:
            zoo[f"{name}, metaclass with {special}"] = lambda b=base, s=special: _of_meta(b, s, hook(s))
        for special in META_PROPERTIES:
            zoo[f"{name}, metaclass with property {special}"] = lambda b=base, s=special: _of_meta(
                b, s, property(hook(s))
            )
        zoo[f"{name}, a string of its own as a name"] = lambda b=base: _subclass(b, {}, name=Text("Hostile"))
        zoo[f"{name}, a long name"] = lambda b=base: _subclass(b, {}, name="x" * 10_000_000)
        zoo[f"{name}, a dict of its own"] = lambda b=base: _with_dict(instance(b), Dict(detail=1, retry_after=7))
        zoo[f"{name}, arguments of its own"] = lambda b=base: _with_arguments(instance(b), (Text(SECRET),))
        zoo[f"{name}, its own cause"] = lambda b=base: _own_cause(instance(b))
    for kind in (lm.LMRateLimitError, RateLimited, InvalidInput):
        for number, value in enumerate([*NONSENSE, Number(7), Text("7")]):
            zoo[f"{kind.__name__}, retry_after {number}"] = lambda k=kind, v=value: _changed(instance(k), retry_after=v)
    for field in ("outcome", "title", "status", "detail", "errors"):
        for number, value in enumerate([*NONSENSE, Text("x"), "\udc80", [object()], [Dict(a=1)], [float("nan")], 200]):
            zoo[f"{field} {number}"] = lambda f=field, v=value: _changed(RateLimited(""), **{f: v})
            zoo[f"class's {field} {number}"] = lambda f=field, v=value: _subclass(RateLimited, {f: v})
    return zoo | _GRAPHS


def _own_cause(error: Any) -> Any:
    BaseException.__dict__["__cause__"].__set__(error, error)
    return error


_GRAPHS: dict[str, Callable[[], Any]] = {
    "a cycle of 2": lambda: _cycle(2),
    "a cycle of 5,000": lambda: _cycle(5000),
    "5,000 causes": lambda: _chain(5000, lm.LMRateLimitError(SECRET)),
    "5,000 nested groups": lambda: _nested(5000, ValueError(SECRET)),
    "a group in itself": _cycle_through_a_group,
    "2 to the 60 paths": lambda: _nested(60, ValueError(SECRET), width=2),
    "a group of 100,000": lambda: ExceptionGroup(SECRET, [ValueError(SECRET) for _ in range(100_000)]),
    "groups of 1,000 in a group": lambda: _nested(2, ValueError(SECRET), width=1000),
    "a CallError caused by a group with itself": lambda: _contradicting(RateLimited("mine")),
    "a traceback of 100,000 frames": lambda: _long_traceback(100_000),
    "a file name of its own": lambda: _raised_in("1 / 0", Text("f.py"), {}),
    "a surrogate for a file name": lambda: _raised_in("1 / 0", "\udc80", {}),
    "a long file name": lambda: _raised_in("1 / 0", "x" * 10_000_000, {}),
    "globals of its own": lambda: _raised_in("raise ValueError", "f.py", {"__name__": Text("x")}),
    "a lying resolution order": _lying_order,
    "huge arguments": lambda: ValueError("x" * 10_000_000, [object()] * 1000),
}
ZOO = _zoo()
