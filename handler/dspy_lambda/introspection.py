"""Read an exception without running code of its class.

A program may raise anything: an instance whose metaclass raises from `__name__`, or whose `__class__` is false.
`isinstance`, `getattr` and `str` would run such code. CPython's descriptors, fetched once from the built-in classes,
read the same fields in C and cannot be overridden.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

UNKNOWN = "unknown"
_TEXT_LENGTH = 300
_VALUES = (str, int, float, list, type(None))
# Attributes that a class statement creates, and methods that run only while an instance is created.
_HARMLESS = frozenset({
    "__annotate__", "__annotate_func__", "__annotations__", "__annotations_cache__", "__dict__", "__doc__",
    "__firstlineno__", "__init__", "__init_subclass__", "__module__", "__new__", "__orig_bases__", "__parameters__",
    "__qualname__", "__slots__", "__static_attributes__", "__type_params__", "__weakref__",
})  # fmt: skip

direct_cause_of: Callable[[BaseException], BaseException | None] = BaseException.__dict__["__cause__"].__get__
traceback_of: Callable[[BaseException], TracebackType | None] = BaseException.__dict__["__traceback__"].__get__
arguments_of: Callable[[BaseException], tuple[Any, ...]] = BaseException.__dict__["args"].__get__
members_of: Callable[[BaseException], tuple[BaseException, ...]] = BaseExceptionGroup.__dict__["exceptions"].__get__
bases_of: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
namespace_of: Callable[[type], Any] = type.__dict__["__dict__"].__get__
_name_of: Callable[[type], str] = type.__dict__["__name__"].__get__
_attributes_of: Callable[[BaseException], dict[str, Any]] = BaseException.__dict__["__dict__"].__get__


def is_a(value: object, *kinds: type) -> bool:
    """Whether a value's real class is or derives from one of these, by identity in its method resolution order."""
    real = type(value)
    for kind in kinds:  # noqa: SIM110  # out of memory, CPython would report a generator that it cannot close
        if type.__subclasscheck__(kind, real):
            return True
    return False


def class_name(kind: type) -> str:
    """Return a class's name."""
    return plain_text(_name_of(kind))


def attribute_of(error: BaseException, name: str) -> Any:
    """Return an attribute set on the exception itself, or None. Does not run properties."""
    return dict.get(_attributes_of(error), name)


def plain_text(text: Any, length: int = _TEXT_LENGTH) -> str:
    """Return a string as an exact `str` that UTF-8 can encode, cut to `length`; `unknown` for any other object.

    A subclass of `str` may override even `__format__`, which an f-string calls. A lone surrogate, as in a file name
    that is not UTF-8, would raise when the log line is written.
    """
    if not is_a(text, str):
        return UNKNOWN
    exact = str.__getitem__(text, slice(length))
    return exact if exact.isascii() else exact.encode("utf-8", "backslashreplace").decode("utf-8")


def is_plain(kind: type, known: tuple[type, ...], reserved: tuple[str, ...]) -> bool:
    """Whether a class adds only constructors and plain attributes to the known classes.

    Only then do `getattr`, `str` and `repr` of its instances run no untrusted code.

    Args:
        kind: the class.
        known: the classes, including built-in ones, whose code is trusted.
        reserved: attributes that must be plain values, not properties or slots.
    """
    if type(kind) is not type:
        return False
    for base in bases_of(kind):
        if not any(base is trusted for trusted in known):
            for name, value in namespace_of(base).items():
                if type(name) is not str or (name[:2] == "__" and name not in _HARMLESS):
                    return False
                if name in reserved and not is_a(value, *_VALUES):
                    return False
    return True
