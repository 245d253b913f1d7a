"""The arguments of programs' constructors: LMs by the parameters' names, and values from the config."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import Parameter
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import dspy

from dspy_lambda.config import CONFIG_FILE, Config
from dspy_lambda.introspection import class_name

LmOf = Callable[[str], dspy.BaseLM | None]
_OWN = ("lm", "shared_lm")
# A hint that cannot be resolved, for example because its name is imported only for the type checker.
_LM_HINT = re.compile(r"(?<![\w])(dspy\.)?(Base)?LM(?!\w)")


class ArgumentsError(TypeError):
    """A program's constructor requires arguments that nothing provides, or the config provides wrong ones."""


@dataclass
class Arguments:
    """What a constructor gets, and the aliases whose LMs are among it."""

    positional: list[Any] = field(default_factory=list)
    named: dict[str, Any] = field(default_factory=dict)
    aliases: list[str] = field(default_factory=list)


def constructor_arguments(cls: type[dspy.Module], config: Config, lm_of: LmOf) -> Arguments:
    """Return the arguments that a program is created with.

    A parameter is an LM if its hint says so or if it has no hint and is named like an alias. It gets the LM of the
    alias that the config names or that it is named after (`flash_lm` or `flash` for `flash`); `lm` and `shared_lm` mean
    the program's own model. An LM parameter with a default other than None, or with another name, is left alone.

    Args:
        lm_of: returns the LM of an alias, or None if it cannot be created.

    Raises:
        ArgumentsError: The config names unknown or wrong arguments, or required ones are missing; says what to write.
    """
    return _Filling(cls, config, lm_of).fill()


class _Filling:
    def __init__(self, cls: type[dspy.Module], config: Config, lm_of: LmOf) -> None:
        self._program = class_name(cls)
        self._config = config
        self._lm_of = lm_of
        self._configured: Mapping[str, Any] = config.program_arguments.get(self._program, {})
        every = list(inspect.signature(cls.__init__).parameters.values())[1:]
        self._takes_more = any(p.kind is p.VAR_KEYWORD for p in every)
        self._parameters = {p.name: p for p in every if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        self._hints = _hints_of(cls.__init__)
        self._arguments = Arguments()

    def fill(self) -> Arguments:
        self._refuse_unknown()
        missing = [p for p in self._parameters.values() if not self._add(p)]
        if missing:
            raise ArgumentsError(self._how_to_add(missing))
        more = {name: value for name, value in self._configured.items() if name not in self._parameters}
        self._arguments.named.update(more)
        return self._arguments

    def _refuse_unknown(self) -> None:
        unknown = [name for name in self._configured if name not in self._parameters]
        if unknown and not self._takes_more:
            takes = ", ".join(self._parameters) or "none"
            raise ArgumentsError(f"{self._key(unknown[0])}: __init__ has no such argument; it has: {takes}")

    def _add(self, parameter: Parameter) -> bool:
        """Provide a parameter's argument or leave its default; return whether it has one of both."""
        alias = self._alias_for(parameter) if self._is_lm(parameter) else None
        if alias is not None:
            value = self._lm(alias)
        elif parameter.name in self._configured:
            value = self._value(parameter)
        else:
            value = parameter.default
        if parameter.kind is parameter.POSITIONAL_ONLY:
            self._arguments.positional.append(value)
        elif value is not parameter.default:
            self._arguments.named[parameter.name] = value
        return value is not parameter.empty

    def _alias_for(self, parameter: Parameter) -> str | None:
        is_configured = parameter.name in self._configured
        return self._configured_alias(parameter.name) if is_configured else self._alias_of(parameter)

    def _is_lm(self, parameter: Parameter) -> bool:
        hint = self._hints.get(parameter.name, Any)
        return _is_lm_hint(hint) or (hint in (Any, object) and self._alias_of(parameter) is not None)

    def _alias_of(self, parameter: Parameter) -> str | None:
        """Return the alias that a parameter is named after, unless its default is something to keep."""
        if parameter.default not in (parameter.empty, None):
            return None
        names = {parameter.name, parameter.name.removesuffix("_lm")}
        for alias in self._config.models.registry:
            if alias in names or re.sub(r"\W", "_", alias).lower() in names:
                return alias
        return self._config.model_alias(self._program) if parameter.name in _OWN else None

    def _configured_alias(self, name: str) -> str:
        alias = self._configured[name]
        if not isinstance(alias, str) or alias not in self._config.models.registry:
            raise ArgumentsError(f"{self._key(name)}: is an LM: name an alias, one of {self._known()}")
        return alias

    def _lm(self, alias: str) -> dspy.BaseLM:
        lm = self._lm_of(alias)
        if lm is None:
            variable = self._config.models.registry[alias].env
            why = f"the environment variable {variable} with its key is not set" if variable else "it is refused"
            raise ArgumentsError(f"its __init__ takes the LM of models.registry.{alias}, but {why}")
        self._arguments.aliases.append(alias)
        return lm

    def _value(self, parameter: Parameter) -> Any:
        from pydantic import TypeAdapter, ValidationError

        hint, value = self._hints.get(parameter.name, Any), self._configured[parameter.name]
        try:
            return TypeAdapter(hint).validate_python(value)
        except ValidationError as error:
            why = error.errors(include_url=False, include_input=False, include_context=False)[0]["msg"]
        except Exception as error:
            why = f"its hint is not a type that can be created from YAML ({type(error).__name__})"
        raise ArgumentsError(f"{self._key(parameter.name)}: {why}")

    def _how_to_add(self, missing: list[Parameter]) -> str:
        names = ", ".join(p.name for p in missing)
        lines = ", ".join(f"{p.name}: {'ALIAS' if self._is_lm(p) else 'VALUE'}" for p in missing)
        aliases = f", where ALIAS is one of {self._known()}" if any(map(self._is_lm, missing)) else ""
        given = "".join(f"{name}: ..., " for name in self._configured)
        return (
            f"its __init__ requires {names}; add to {CONFIG_FILE}: "
            f"program_arguments: {{{self._program}: {{{given}{lines}}}}}{aliases}"
        )

    def _known(self) -> str:
        return ", ".join(self._config.models.registry)

    def _key(self, name: str) -> str:
        return f"{CONFIG_FILE}: program_arguments.{self._program}.{name}"


def _hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return a function's hints by parameter; one that cannot be resolved stays a string."""
    found: dict[str, Any] = {}
    names = getattr(inspect.unwrap(function), "__globals__", {})
    for key, hint in getattr(function, "__annotations__", {}).items():
        try:
            holder = types.SimpleNamespace(__annotations__={key: hint})
            found |= get_type_hints(holder, globalns=names, include_extras=True)
        except Exception:
            found[key] = hint if isinstance(hint, str) and _LM_HINT.search(hint) else Any
    return found


def _is_lm_hint(hint: Any) -> bool:
    if isinstance(hint, str):
        return True  # the only ones that `_hints_of` leaves
    if isinstance(hint, type):
        return issubclass(hint, dspy.BaseLM)
    if get_origin(hint) in (Union, types.UnionType):
        return any(map(_is_lm_hint, get_args(hint)))
    return get_origin(hint) is Annotated and _is_lm_hint(get_args(hint)[0])
