"""Read a `dspy.config.yaml`, and report each mistake with its file, its key and what is allowed there."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from dspy_lambda.config.names import shown
from dspy_lambda.config.schema import Config
from dspy_lambda.errors import ConfigError

CONFIG_FILE = "dspy.config.yaml"
AnyConfig = TypeVar("AnyConfig", bound=Config)


class _DuplicateKey(yaml.constructor.ConstructorError):
    """A mapping has a key twice."""


class _Loader(yaml.SafeLoader):
    """Refuses duplicate keys, of which YAML's own loader silently uses the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise _DuplicateKey(None, None, f"duplicate key {shown(key.value)!r}", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def load_config(project: Path) -> Config:
    """Read and validate the parts of a project's config that the handler uses.

    Raises:
        ConfigError: The config is missing or invalid. The message names the file, the key and what is allowed.
    """
    return load_as(Config, project)


def load_as(schema: type[AnyConfig], project: Path) -> AnyConfig:
    """Read a project's config, and validate it with this schema.

    Raises:
        ConfigError: As for `load_config`.
    """
    path = project / CONFIG_FILE
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file. Set DSPY_LAMBDA_PROJECT (or --project) to the folder that holds {CONFIG_FILE}."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        # Scanner and parser errors say what was expected; later stages quote the value, which may be a key.
        is_syntax = isinstance(error, yaml.scanner.ScannerError | yaml.parser.ParserError | _DuplicateKey)
        reason = getattr(error, "problem", None) if is_syntax else "an alias, tag or value that is not allowed here"
        raise ConfigError(f"{path}{line}: not YAML: {reason}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read: {type(error).__name__} in one of its values") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must be a mapping with the key `models`, not {type(raw).__name__}.")
    try:
        config = schema.model_validate(_merge_program_settings(raw))
    except RecursionError:
        raise ConfigError(f"{path}: an anchor holds an alias of itself.") from None
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {line}" for line in _explain(error, schema))) from None
    _check_aliases(config, path)
    return config


def _merge_program_settings(raw: dict[Any, Any]) -> dict[Any, Any]:
    """Merge each entry of `lambda.programs` over `lambda.defaults`: mappings merge deeply, lists replace.

    The top-level `telemetry` is the default of all programs' own.
    """
    section = raw.get("lambda", {})
    if not isinstance(section, dict) or not isinstance(section.get("programs", {}), dict):
        return raw
    shared = {"telemetry": raw["telemetry"]} if isinstance(raw.get("telemetry"), dict) else {}
    defaults = _merge(shared, section.get("defaults") or {})
    if not isinstance(defaults, dict):
        return raw
    programs = {name: _merge(defaults, settings) for name, settings in section.get("programs", {}).items()}
    return {**raw, "lambda": {**section, "defaults": defaults, "programs": programs}}


def _merge(base: Any, over: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return {**base, **{key: _merge(base.get(key), value) for key, value in over.items()}}


def _check_aliases(config: Config, path: Path) -> None:
    known = ", ".join(map(shown, config.models.registry))
    uses = {"models.default": config.models.default}
    uses |= {f"program_models.{program}": alias for program, alias in config.program_models.items()}
    for program, predictors in config.predictor_models.items():
        uses |= {f"predictor_models.{program}.{predictor}": alias for predictor, alias in predictors.items()}
    for alias, settings in config.models.registry.items():
        uses |= {f"models.registry.{alias}.fallback.{index}": name for index, name in enumerate(settings.fallback)}
    for key, alias in uses.items():
        if alias not in config.models.registry:
            raise ConfigError(f"{path}: {key}: unknown model alias {shown(alias)!r}; models.registry has: {known}.")
    for alias in config.models.registry:
        if cycle := _cycle(config, (alias,)):
            raise ConfigError(f"{path}: models.registry.{alias}.fallback: falls back to itself: {' -> '.join(cycle)}.")
        if other := _unguarded(config, alias):
            raise ConfigError(
                f"{path}: models.registry.{alias}.fallback: what the guardrail stops would be answered by "
                f"{shown(other)!r}, which has none: give it a guardrail, or leave content_filter out of fallback_on."
            )


def _unguarded(config: Config, alias: str) -> str | None:
    """Return a fallback without a guardrail that would answer what the alias's own guardrail stops, or None."""
    settings = config.models.registry[alias]
    if settings.guardrail is None or "content_filter" not in settings.fallback_on:
        return None
    return next((name for name in settings.fallback if config.models.registry[name].guardrail is None), None)


def _cycle(config: Config, way: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the aliases from a model back to itself, or None."""
    for alias in config.models.registry[way[-1]].fallback:
        if alias == way[0]:
            return (*way, alias)
        if alias not in way and (found := _cycle(config, (*way, alias))):
            return found
    return None


def _explain(error: ValidationError, schema: type[Config]) -> list[str]:
    """Format one line per validation error: key, mistake, and what is allowed, but not the value: it may be a key."""
    lines = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        if "literal[False]" in item["loc"]:  # redundant: the mapping's own errors say what is wrong
            continue
        keys = _keys(schema, [str(part) for part in item["loc"]])
        places = ".".join(map(shown, keys))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key; allowed here: {', '.join(_allowed(schema, keys[:-1]))}"
        lines.append(f"{places or '(top level)'}: {message}")
    # Programs inherit the top-level section, and its mistakes.
    inherited = tuple(line for line in lines if line.startswith(("telemetry.", "telemetry:")))
    return [line for line in lines if line in inherited or not line.endswith(inherited)]


def _keys(schema: type[BaseModel], location: list[str]) -> list[str]:
    """The keys in a location, without the union members that pydantic puts behind the key of a union."""
    keys: list[str] = []
    section: type[BaseModel] | None = schema
    is_name = is_tag = False
    for part in location:
        if is_tag and (part == "Sqs" or part.startswith(("literal[", "function-"))):
            is_tag = False
            continue
        keys.append(part)
        if is_name or section is None:  # an alias or a program may have any name
            is_name = False
            continue
        annotation = next((f.annotation for n, f in section.model_fields.items() if (f.alias or n) == part), None)
        is_name, is_tag = get_origin(annotation) is dict, get_origin(annotation) in (Union, UnionType)
        section = _section_in(annotation)
    return keys


def _allowed(schema: type[BaseModel], keys: list[str]) -> list[str]:
    """Return the keys that the section at this path accepts, in the order of its schema."""
    section, rest = schema, list(keys)
    while rest:
        field = section.model_fields[_name_of(section, rest.pop(0))]
        if get_origin(field.annotation) is dict:
            rest.pop(0)  # an alias or a program: any name
        section = _section_in(field.annotation) or section
    fields, own = section.model_fields, [name for name in section.__annotations__ if name in section.model_fields]
    # Inherited fields come first, unless a section redeclares all of them in its own order.
    return [fields[name].alias or name for name in (own if len(own) == len(fields) else fields)]


def _name_of(section: type[BaseModel], key: str) -> str:
    return next(name for name, field in section.model_fields.items() if (field.alias or name) == key)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section's schema in a type such as `dict[str, Section]` or `Section | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section_in(part))), None)
