"""Write the pages of `docs/reference/` from the code: `make reference`.

Names, types, limits, defaults and units come from the code; `docs/meanings.yaml` has what the code does not express.
Each function below reads one part of the code, and is the only place to change when that part moves.
"""

from __future__ import annotations

import ast
import importlib
import logging
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

import yaml

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
MEANINGS = ROOT / "docs" / "meanings.yaml"
HANDLER = ROOT / "handler" / "dspy_lambda"
NOTE = "<!-- Written by `make reference` from the code and docs/meanings.yaml. Do not edit. -->"

Rows = list[tuple[str, ...]]
Meanings = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Option:
    """An option, or an argument if its name has no leading hyphen."""

    flags: tuple[str, ...]
    value: str  # the metavariable; empty for a switch
    choices: tuple[str, ...]
    default: str
    help: str


@dataclass(frozen=True)
class Command:
    """A subcommand, or `dspy-lambda` itself if the name is empty."""

    name: str
    help: str
    options: list[Option] = field(default_factory=list)


def config_module() -> ModuleType:
    """Return the module with the whole `Config` and `load_config`: the infra package's if it has its own."""
    name = "dspy_lambda_infra.config"
    return importlib.import_module(name if find_spec(name) else "dspy_lambda.config")


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of a whole `dspy.config.yaml`."""
    schema: dict[str, Any] = config_module().Config.model_json_schema(by_alias=True)
    return schema


def variables(meanings: Meanings) -> Rows:
    """Return each environment variable with default and meaning: the settings, and what Powertools itself reads."""
    from dspy_lambda.settings import TABLE

    own = [
        (row.variable, f"{row.default} {row.unit}" if row.default.isdecimal() and row.unit else row.default, row.doc)
        for row in TABLE
    ]
    return [*own, *((name, about["default"], about["meaning"]) for name, about in meanings["variables"].items())]


def routes() -> Rows:
    """Return method and path of every route; tests/docs/test_reference.py compares them with the application's."""
    from dspy_lambda.api.shared import SHARED_PATHS

    return [("POST", "/{Program}"), *(("GET", path) for path in SHARED_PATHS)]


def errors() -> Rows:
    """Return every way a call can fail: name, HTTP status, outcome, meaning."""
    from dspy_lambda import errors

    known = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.CallError)]
    return [
        (kind.__name__, str(kind.status), kind.outcome, (kind.__doc__ or "").partition("\n")[0])
        for kind in known
        if kind is not errors.CallError
    ]


def metrics() -> Rows:
    """Return each metric's name and unit."""
    from dspy_lambda.telemetry.units import MODEL_UNITS, UNITS

    return list((UNITS | MODEL_UNITS).items())


def log_messages() -> list[str]:
    """Return the messages of the handler's own log lines, except a call's record."""
    found: set[str] = set()
    for path in HANDLER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called in {"log", "_log", "_warn", "log_here"}:
                    texts = [argument.value for argument in node.args[:2] if isinstance(argument, ast.Constant)]
                    found |= {text for text in texts if isinstance(text, str)}
    return sorted(found - {"program call", *logging.getLevelNamesMapping()})


def command_line() -> list[Command]:
    """Return the `dspy-lambda` command and its subcommands."""
    from typer.main import get_command

    from dspy_lambda_infra.cli import app

    root: Any = get_command(app)
    return [_of_typer("", root), *(_of_typer(name, command) for name, command in root.commands.items())]


def _of_typer(name: str, command: Any) -> Command:
    options = []
    for parameter in command.params:
        if parameter.hidden:
            continue
        flags, metavar = tuple(parameter.opts), parameter.metavar or parameter.name.upper()
        is_option = flags[0].startswith("-")
        choices = tuple(_literals(parameter.type_descriptor.annotation))
        default = "" if parameter.default in (None, False, ()) else str(parameter.default)
        value = metavar if is_option and not parameter.is_flag else ""
        options.append(Option(flags if is_option else (metavar,), value, choices, default, parameter.help or ""))
    return Command(name, (command.help or "").partition("\n")[0].rstrip("."), options)


def _literals(annotation: Any) -> Iterator[str]:
    """Yield the values of a `Literal` or an enumeration, even within an optional type."""
    if get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
    elif isinstance(annotation, type) and issubclass(annotation, Enum):
        yield from (str(member.value) for member in annotation)
    else:
        for part in get_args(annotation):
            yield from _literals(part)


def pages() -> dict[str, str]:
    """Return the text of each page by file name."""
    meanings: Meanings = yaml.safe_load(MEANINGS.read_text(encoding="utf-8"))
    return {
        "config.md": _config_page(meanings),
        "environment.md": _variables_page(meanings),
        "http.md": _http_page(meanings),
        "telemetry.md": _telemetry_page(meanings),
        "cli.md": _cli_page(),
    }


def _config_page(meanings: Meanings) -> str:
    parts = [
        "# Config keys",
        "`dspy.config.yaml`, in the project's folder. An unknown key, a duplicate key or a value out of range is an "
        "error that names the file, the key and what is allowed. [Your project](../project.md#the-config) has an "
        "example.",
    ]
    schema = config_schema()
    for heading, rows in _sections(schema, schema, ""):
        meant = [(f"`{key}`", value, default, _meaning(meanings, "config", path)) for path, key, value, default in rows]
        parts += [f"## {heading}", _table(("key", "value", "default", "meaning"), meant)]
    return _page(*parts)


def config_keys() -> list[str]:
    """Return every dotted config key."""
    schema = config_schema()
    return [row[0] for _, rows in _sections(schema, schema, "") for row in rows]


def _sections(root: dict[str, Any], section: dict[str, Any], path: str) -> Iterator[tuple[str, Rows]]:
    """Yield a section's rows (path, key, value, default), then those of its subsections."""
    rows: Rows = []
    below: list[tuple[dict[str, Any], str]] = []
    for key, about in section["properties"].items():
        full = f"{path}{key}"
        kinds = [_resolve(root, kind) for kind in about.get("anyOf", [about])]
        shown = [] if full == "lambda.programs" else kinds
        for kind in shown:
            inner = _resolve(root, kind.get("additionalProperties") or {})
            if "properties" in kind:
                below.append((kind, f"{full}."))
            elif "properties" in inner:
                below.append((inner, f"{full}.<{'alias' if key == 'registry' else 'Name'}>."))
        is_required = key in section.get("required", ())
        rows.append((full, key, "; or ".join(map(_kind, kinds)), "required" if is_required else _default(about)))
    yield (f"`{path.rstrip('.')}`" if path else "Top level"), rows
    for inner, name in below:
        yield from _sections(root, inner, name)


def _resolve(root: dict[str, Any], kind: Any) -> dict[str, Any]:
    if not isinstance(kind, dict):
        return {}
    reference = kind.get("$ref")
    return root["$defs"][reference.rpartition("/")[2]] if reference else kind


def _kind(kind: dict[str, Any]) -> str:
    """Describe the allowed values."""
    if "const" in kind or "enum" in kind:
        return ", ".join(f"`{_word(value)}`" for value in kind.get("enum", [kind.get("const")]))
    name = kind.get("type", "")
    if name in ("integer", "number"):
        return ("whole number" if name == "integer" else "number") + _bounds(kind)
    if name == "array":
        return "list"
    words = {"string": "text", "boolean": "`true`, `false`", "null": "`null`", "object": "mapping"}
    return words.get(name, "any")


def _bounds(kind: dict[str, Any]) -> str:
    least, most, above = kind.get("minimum"), kind.get("maximum"), kind.get("exclusiveMinimum")
    if least is not None and most is not None:
        return f", {least:,} to {most:,}"
    if least is not None:
        return f", {least:,} or more"
    return "" if above is None else f", above {above:,}"


def _default(about: dict[str, Any]) -> str:
    default = about.get("default")
    return "see below" if isinstance(default, dict) and default else f"`{_word(default)}`"


def _word(value: Any) -> str:
    """Return a value in YAML syntax."""
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()


def _variables_page(meanings: Meanings) -> str:
    rows = [(f"`{name}`", default, meaning) for name, default, meaning in variables(meanings)]
    return _page(
        "# Environment variables",
        "Read once, at init. An empty variable counts as not set. Switches accept `true`, `1`, `yes`, `on` or `false`, "
        "`0`, `no`, `off`; any other value fails the init with an error that names the variable.",
        _table(("variable", "default", "meaning"), rows),
    )


def _http_page(meanings: Meanings) -> str:
    known = [(f"`{method}`", f"`{path}`", _meaning(meanings, "routes", path)) for method, path in routes()]
    failures = [(f"`{name}`", status, f"`{outcome}`", meaning) for name, status, outcome, meaning in errors()]
    return _page(
        "# Routes and errors",
        "[Calling a program](../calling.md) describes requests and answers.",
        "## Routes",
        _table(("method", "path", "what it does"), known),
        "## Named errors",
        "The name is what a direct invocation raises, for `Retry` and `Catch` of Step Functions; the outcome is what "
        "the log record has. An event that no source recognizes raises `UnknownEvent`.",
        _table(("name", "status", "outcome", "meaning"), failures),
    )


def _telemetry_page(meanings: Meanings) -> str:
    record = [(f"`{name}`", meaning) for name, meaning in meanings["record"].items()]
    lines = [(f"`{message}`", _meaning(meanings, "messages", message)) for message in log_messages()]
    units = [(f"`{name}`", unit, _meaning(meanings, "metrics", name)) for name, unit in metrics()]
    return _page(
        "# Log lines and metrics",
        "## The log record",
        'Each program call writes one JSON line with `"message": "program call"`.',
        _table(("field", "meaning"), record),
        "## Other lines",
        "Other lines that the handler writes, by their `message`.",
        _table(("message", "meaning"), lines),
        "## Metrics",
        "CloudWatch's embedded metric format, in the namespace `POWERTOOLS_METRICS_NAMESPACE`, with the dimensions "
        "`service` and `program` (`unknown` if there is none). The values of one invocation are written in as few "
        "blobs as the format allows. The last ten are written with `telemetry.model_metrics` only, and have the "
        "dimension `model` as well: the alias, the model of an LM that a program made, or `other` for all after an "
        "environment's first twenty.",
        _table(("metric", "unit", "meaning"), units),
    )


def _cli_page() -> str:
    parts = ["# Command line"]
    for command in command_line():
        parts += [f"## {f'dspy-lambda {command.name}'.strip()}", f"{command.help[:1].upper()}{command.help[1:]}."]
        rows = [(_code(*o.flags), _code(*(o.choices or [o.value])), _code(o.default), o.help) for o in command.options]
        if rows:
            parts.append(_table(("option", "value", "default", "meaning"), rows))
    exits = "Every command exits with 0 on success, 1 on failure, 2 on a usage or configuration error, 130 on Ctrl-C."
    return _page(parts[0], exits, *(part.replace("..", ".") for part in parts[1:]))


def _code(*words: str) -> str:
    return ", ".join(f"`{word}`" for word in words if word)


def _meaning(meanings: Meanings, part: str, name: str) -> str:
    """Return the text from `docs/meanings.yaml`; a test fails if it is missing."""
    return str(meanings[part].get(name, ""))


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    """Return one line; escape what Markdown would read as a tag (outside code) or a cell's end."""
    parts = " ".join(text.split()).replace("|", "&#124;").split("`")
    return "`".join(part if n % 2 else part.replace("<", "&lt;") for n, part in enumerate(parts))


def _page(title: str, *parts: str) -> str:
    return "\n\n".join([title, NOTE, *parts]) + "\n"


def main() -> int:
    """Write the pages."""
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
