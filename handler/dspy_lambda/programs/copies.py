"""Copy a program for each call, so that what a call changes on `self` and below stays in that call."""

from __future__ import annotations

import functools
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import CellType, FunctionType, MethodType
from typing import Any, NamedTuple

import dspy

from dspy_lambda.call import CALL
from dspy_lambda.models.registry import ProgramLM

MAX_ITEMS = 1000  # in a list, dict, set, deque or tuple, including nested ones
_MAX_LEVELS = 50
_MAPPINGS = (dict, defaultdict, OrderedDict, Counter)
_SEQUENCES = (list, deque)
_CONTAINERS = (*_MAPPINGS, *_SEQUENCES, set)

Memo = dict[int, Any]  # the id of an original -> its copy


class Copier:
    """Copies a module and what belongs to it, and shares the rest.

    It copies modules, tools, aliases' LMs and built-in containers, methods bound to one of them, and tuples, partial
    objects and closures that hold one. It shares everything else: other LMs, clients, arrays, Pydantic models,
    instances of the program's own classes, and large containers. The decision is made once, when the copier is created.

    `copy.deepcopy` would also copy clients and data and would fail on locks, and `dspy.Module.__getstate__` would drop
    the callbacks that the user gave a module.

    Attributes:
        too_large: the paths of the containers that are shared because of their size, such as `self.corpus`.
    """

    def __init__(self, module: dspy.Module) -> None:
        found = _Found(module)
        holders = found.that_hold_something_copied()
        copied = found.own | holders
        self.too_large = found.too_large
        self._module = module
        self._modules = [key for key, value in found.own.items() if isinstance(value, dspy.Module)]
        self._begun = [(key, value, begin) for key, value in copied.items() if (begin := _begin_of(value))]
        self._made = [(id(value), value, _HOLDERS[type(value)].copy) for value in _in_order(holders)]
        self._filled = [(key, fill) for key, value in copied.items() if (fill := _fill_of(value, copied))]

    def makes_copy_of(self, module: dspy.Module) -> bool:
        """Whether each copy has its own copy of a module in it."""
        return id(module) in self._modules

    def copy(self, history: Callable[[], list[Any]], lms: Mapping[int, dspy.LM] | None = None) -> dspy.Module:
        """Copy the module in its current state.

        Args:
            history: creates each module's `history`.
            lms: the LMs that the copies of predictors get, by the `id` of the original.
        """
        memo: Memo = {}
        for key, original, begin in self._begun:
            memo[key] = begin(original)
        for key, original, make in self._made:
            memo[key] = make(original, memo)
        for key, fill in self._filled:
            fill(memo[key], memo)
        for key in self._modules:
            memo[key].history = history()
        for key, lm in (lms or {}).items():
            memo[key].lm = lm
        return memo[id(self._module)]


class _Found:
    """The objects reachable from a module, by id: those always copied, and those copied if they hold a copied one."""

    def __init__(self, module: dspy.Module) -> None:
        self.own: dict[int, Any] = {}
        self.too_large: list[str] = []
        self._holders: dict[int, Any] = {}
        self._find(module, "self")

    def that_hold_something_copied(self) -> dict[int, Any]:
        held: dict[int, Any] = {}
        while more := {
            key: value
            for key, value in self._holders.items()
            if key not in held and any(id(item) in self.own or id(item) in held for item in _items(value))
        }:
            held |= more
        return held

    def _find(self, value: Any, path: str) -> None:
        key, kind = id(value), type(value)
        if key in self.own or key in self._holders:
            return
        if kind in _CONTAINERS or kind is tuple:
            if _is_large(value):
                self.too_large.append(path)
                return
            (self._holders if kind is tuple else self.own)[key] = value
            for item in _items(value):
                self._find(item, path)
        elif issubclass(kind, dspy.Module | dspy.Tool) and (not self.own or not hasattr(kind, "__del__")):
            # The `__del__` of a copy would close resources that all calls share.
            self.own[key] = value
            for name, attribute in list(vars(value).items()):
                if name == "history" and issubclass(kind, dspy.Module):
                    continue  # each copy gets its own
                self._find(attribute, f"{path}.{name}")
        elif issubclass(kind, ProgramLM):
            self.own[key] = value
        elif kind in _HOLDERS:
            self._holders[key] = value
            for item in _items(value):
                # A list or dict in a closure may be a decorator's cache, which all calls share.
                if kind is not CellType or type(item) not in _CONTAINERS:
                    self._find(item, path)


def _items(value: Any) -> Sequence[Any]:
    """Return a snapshot of what a container or holder holds; other threads may be changing it."""
    kind = type(value)
    return _HOLDERS[kind].items(value) if kind in _HOLDERS else list(value.values() if kind in _MAPPINGS else value)


def _in_order(holders: dict[int, Any]) -> list[Any]:
    """Order the holders that cannot be created empty, each after what it holds."""
    ordered: list[Any] = []
    seen: set[int] = set()

    def place(value: Any) -> None:
        if id(value) in holders and id(value) not in seen:
            seen.add(id(value))
            for item in _items(value):
                place(item)
            if type(value) is not CellType:
                ordered.append(value)

    for value in holders.values():
        place(value)
    return ordered


def _begin_of(value: Any) -> Callable[[Any], Any] | None:
    """Return a function that begins a copy to be filled later, or None if it must be created complete."""
    kind: Any = type(value)
    if kind in _CONTAINERS:
        begin: Callable[[Any], Any] = kind.copy
        return begin
    if kind in _HOLDERS:
        return _copy_cell if kind is CellType else None
    if issubclass(kind, ProgramLM):
        return _copy_lm
    return _copy_module if issubclass(kind, dspy.Module) else kind.__copy__


def _fill_of(value: Any, copied: dict[int, Any]) -> Callable[[Any, Memo], None] | None:
    """Return a function that fills a copy with copies, or None if it holds none or already has them."""
    kind = type(value)
    if kind in _HOLDERS:
        return _fill_cell if kind is CellType else None
    if issubclass(kind, ProgramLM):
        return None
    if kind not in _CONTAINERS:
        return _fill_attributes
    if not any(id(item) in copied for item in _items(value)):
        return None
    return _fill_mapping if kind in _MAPPINGS else _fill_set if kind is set else _fill_sequence


def _is_large(container: Any) -> bool:
    """Whether a container has too many items, including nested ones, or too many levels."""
    seen: set[int] = set()
    level, number = [container], 0
    for _ in range(_MAX_LEVELS):
        below = []
        for one in level:
            number += len(one)
            if number > MAX_ITEMS:
                return True
            below += [item for item in _items(one) if type(item) in (*_CONTAINERS, tuple)]
        seen.update(map(id, level))
        level = [item for item in below if id(item) not in seen]
        if not level:
            return False
    return True


def _copy_module(original: dspy.Module) -> dspy.Module:
    clone = object.__new__(type(original))
    clone.__dict__.update(original.__dict__)
    return clone


def _copy_lm(original: ProgramLM) -> ProgramLM:
    """Bind an alias's LM to the call, so that its usage counts there, even in a thread that the program starts."""
    call = CALL.get()
    return original if call is None else original.for_call(call)


def _fill_mapping(clone: dict[Any, Any], memo: Memo) -> None:
    for key, value in clone.items():
        if id(value) in memo:
            clone[key] = memo[id(value)]


def _fill_attributes(clone: Any, memo: Memo) -> None:
    _fill_mapping(clone.__dict__, memo)


def _fill_sequence(clone: Any, memo: Memo) -> None:
    for position, value in enumerate(clone):
        if id(value) in memo:
            clone[position] = memo[id(value)]


def _fill_set(clone: set[Any], memo: Memo) -> None:
    for value in [value for value in clone if id(value) in memo]:
        clone.discard(value)
        clone.add(memo[id(value)])


def _copied(values: Iterable[Any], memo: Memo) -> tuple[Any, ...]:
    return tuple([memo.get(id(value), value) for value in values])


def _copy_method(original: MethodType, memo: Memo) -> MethodType:
    return MethodType(original.__func__, memo[id(original.__self__)])


def _copy_partial(original: functools.partial[Any], memo: Memo) -> functools.partial[Any]:
    function, *arguments = _copied((original.func, *original.args), memo)
    clone = functools.partial(function, *arguments, **original.keywords)
    _fill_mapping(clone.keywords, memo)
    clone.__dict__.update(original.__dict__)  # its name, which a tool is known by
    return clone


def _copy_function(original: FunctionType, memo: Memo) -> FunctionType:
    cells = _copied(original.__closure__ or (), memo)
    clone = FunctionType(original.__code__, original.__globals__, None, original.__defaults__, cells)
    clone.__kwdefaults__ = original.__kwdefaults__
    functools.update_wrapper(clone, original, updated=())
    clone.__dict__ = {**original.__dict__}  # without the __wrapped__ of update_wrapper
    return clone


def _items_of_cell(cell: CellType) -> Sequence[Any]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # the cell is empty
        return ()


def _copy_cell(original: CellType) -> CellType:
    return CellType(original.cell_contents)


def _fill_cell(clone: CellType, memo: Memo) -> None:
    """Fill a cell last: a function may be in its own closure."""
    clone.cell_contents = memo.get(id(clone.cell_contents), clone.cell_contents)


class _Holder(NamedTuple):
    """How to read what a kind of object holds, and how to copy it; such objects are copied only for what they hold."""

    items: Callable[[Any], Sequence[Any]]
    copy: Callable[[Any, Memo], Any]


_HOLDERS: dict[type, _Holder] = {
    tuple: _Holder(lambda value: value, _copied),
    MethodType: _Holder(lambda method: (method.__self__,), _copy_method),
    functools.partial: _Holder(lambda bound: (bound.func, *bound.args, *bound.keywords.values()), _copy_partial),
    FunctionType: _Holder(lambda function: function.__closure__ or (), _copy_function),
    CellType: _Holder(_items_of_cell, _copied),
}
