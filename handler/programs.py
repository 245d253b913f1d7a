"""Programs: the public `dspy.Module` classes of a project in dspy-cli's layout, found, loaded and looked at once."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy

from handler.config import Config
from handler.errors import ConfigError
from handler.schemas import Schemas, schemas_of

_RESERVED = ("handler", "infra")


@dataclass(frozen=True)
class Entry:
    """The method that serves a program's calls, whether it is native async, and why."""

    method: Callable[..., Any]
    is_async: bool
    why: str

    def start(self, instance: dspy.Module, inputs: dict[str, Any]) -> Awaitable[Any]:
        """Begin a native async call."""
        awaitable: Awaitable[Any] = (
            instance.acall(**inputs)
            if self.method.__name__ == "aforward"
            else instance(**inputs)  # `async def forward`
        )
        return awaitable


@dataclass(frozen=True)
class Program:
    """One loaded program. `instance` is shared and never called: calls run on `copy()`."""

    name: str
    module: str
    model: str
    instance: dspy.Module
    entry: Entry
    schemas: Schemas

    def copy(self) -> dspy.Module:
        """A shallow copy, so that what one call sets on `self` stays in that call.

        Not `copy.copy`: `dspy.Module.__getstate__` drops the callbacks that the user gave the program.
        """
        clone = object.__new__(type(self.instance))
        clone.__dict__.update(self.instance.__dict__)
        clone.history = []
        return clone


@dataclass(frozen=True)
class FailedProgram:
    """A program that cannot be called, and why: the text is safe to show."""

    name: str
    module: str
    model: str
    error: str


@dataclass(frozen=True)
class ProgramFile:
    """A file that may define programs, and the name of the Python module that it is."""

    path: Path
    module: str

    def class_names(self) -> list[str]:
        """Public classes that look like programs, read without importing the file."""
        pattern = re.compile(r"^class\s+([A-Za-z]\w*)\s*\(([^)]*)\)", re.MULTILINE)
        text = self.path.read_text(encoding="utf-8", errors="replace")
        other = re.compile(r"Signature|BaseModel|Enum|TypedDict|Exception")
        return [name for name, bases in pattern.findall(text) if bases.strip() and not other.search(bases)]


def program_files(project: Path) -> list[ProgramFile]:
    """The files `src/<package>/modules/*.py` of a project; names with a leading underscore are private.

    Raises:
        ConfigError: no such folder, or a folder name that would hide this package's own.
    """
    source = project / "src"
    for name in _RESERVED:
        for place in (source / name, project / name):
            if place.is_dir() and any(place.rglob("*.py")) and not _is_this_package(place):
                raise ConfigError(f"{place}: `{name}` is a package of dspy-lambda itself; rename the folder.")
    files = sorted(p for p in source.glob("*/modules/*.py") if not p.name.startswith("_"))
    if not files:
        raise ConfigError(f"{project}: no programs; put dspy.Module classes into src/<package>/modules/*.py.")
    return [ProgramFile(path, ".".join(path.relative_to(source).with_suffix("").parts)) for path in files]


def _is_this_package(place: Path) -> bool:
    return place.resolve() in (Path(__file__).resolve().parent, Path(__file__).resolve().parent.parent / "infra")


def load_programs(
    project: Path, config: Config, *, only: str | None = None, module: str | None = None
) -> tuple[dict[str, Program], dict[str, FailedProgram]]:
    """Import a project's programs: all, or only the one named (and then only its module).

    A module that fails to import fails its own programs and no other's.

    Raises:
        ConfigError: two programs of one name; or, with `only`, no such program or one that cannot be loaded.
    """
    files = program_files(project)
    source = str(project / "src")
    if source not in sys.path:
        sys.path.insert(0, source)
    if only is not None:
        files = _files_of(only, files, module)
    found: dict[str, tuple[Program | FailedProgram, ProgramFile]] = {}
    for file in files:
        for program in _load_file(file, config, only):
            if program.name in found:
                other = found[program.name][1].path
                raise ConfigError(
                    f"{file.path}: program {program.name} is also defined in {other}; rename one of them."
                )
            found[program.name] = (program, file)
    programs = {name: p for name, (p, _) in found.items() if isinstance(p, Program)}
    failed = {name: p for name, (p, _) in found.items() if isinstance(p, FailedProgram)}
    if only is not None and only not in programs:
        raise ConfigError(_why_not(only, failed, files))
    return programs, failed


def _files_of(only: str, files: list[ProgramFile], module: str | None) -> list[ProgramFile]:
    if module is not None:
        chosen = [file for file in files if file.module == module]
        if not chosen:
            known = ", ".join(file.module for file in files)
            raise ConfigError(f"DSPY_LAMBDA_MODULE: no module {module!r}; the project has: {known}.")
        return chosen
    chosen = [file for file in files if only in file.class_names()]
    if len(chosen) > 1:
        raise ConfigError(f"{chosen[1].path}: program {only} is also defined in {chosen[0].path}; rename one of them.")
    if not chosen:
        known = ", ".join(sorted(name for file in files for name in file.class_names()))
        raise ConfigError(f"DSPY_LAMBDA_PROGRAM: no program {only!r}; the project has: {known}.")
    return chosen


def _why_not(only: str, failed: dict[str, FailedProgram], files: list[ProgramFile]) -> str:
    if only in failed:
        return f"program {only} cannot be loaded: {failed[only].error}"
    return f"DSPY_LAMBDA_PROGRAM: {files[0].path} defines no dspy.Module class named {only!r}."


def _load_file(file: ProgramFile, config: Config, only: str | None) -> Iterable[Program | FailedProgram]:
    try:
        module = importlib.import_module(file.module)
    except (Exception, SystemExit) as error:
        names = file.class_names() or [file.path.stem]
        return [_failed(name, file, config, error) for name in names if only in (None, name)]
    classes = [c for _, c in inspect.getmembers(module, inspect.isclass) if _is_program(c, file.module)]
    return [_load_class(cls, file, config) for cls in classes if only in (None, cls.__name__)]


def _is_program(cls: type, module: str) -> bool:
    return issubclass(cls, dspy.Module) and cls.__module__ == module and not cls.__name__.startswith("_")


def _load_class(cls: type[dspy.Module], file: ProgramFile, config: Config) -> Program | FailedProgram:
    try:
        instance = cls()
        entry = choose_entry(instance)
        schemas = schemas_of(instance, entry.method)
    except (Exception, SystemExit) as error:
        return _failed(cls.__name__, file, config, error)
    return Program(
        name=cls.__name__,
        module=file.module,
        model=config.model_alias(cls.__name__),
        instance=instance,
        entry=entry,
        schemas=schemas,
    )


def choose_entry(instance: dspy.Module) -> Entry:
    """Which method serves the program's calls: decided once, here.

    A program is native async exactly when the class that defines `aforward` stands at or before the class that
    defines `forward` in its MRO: `hasattr` would take an inherited `aforward` that the program's own `forward`
    does not go with, and `cls.__dict__` would miss a subclass of an async program.
    """
    cls = type(instance)
    own = vars(instance).get("forward")
    if own is not None:
        # dspy.syncify puts a synchronous forward into the instance.
        return Entry(own, inspect.iscoroutinefunction(own), "forward is set on the instance")
    sync_at, async_at = _defined_at(cls, "forward"), _defined_at(cls, "aforward")
    if async_at is not None and (sync_at is None or async_at <= sync_at):
        return Entry(inspect.getattr_static(cls, "aforward"), True, f"aforward of {cls.__mro__[async_at].__name__}")
    if sync_at is None:
        raise TypeError(f"{cls.__name__} defines neither forward nor aforward")
    forward: Callable[..., Any] = inspect.getattr_static(cls, "forward")
    is_async = inspect.iscoroutinefunction(forward)
    return Entry(forward, is_async, f"{'async ' if is_async else ''}forward of {cls.__mro__[sync_at].__name__}")


def _defined_at(cls: type, method: str) -> int | None:
    return next((i for i, base in enumerate(cls.__mro__) if method in vars(base)), None)


def _failed(name: str, file: ProgramFile, config: Config, error: BaseException) -> FailedProgram:
    return FailedProgram(name, file.module, config.model_alias(name), f"{_place(file, error)}: {_reason(error)}")


def _place(file: ProgramFile, error: BaseException) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file.path)]
    return f"{file.path}:{frames[-1].lineno}" if frames else str(file.path)


def _reason(error: BaseException) -> str:
    """The exception's text only where Python itself wrote it: the user's own may hold what is private."""
    name = type(error).__name__
    if isinstance(error, ImportError):
        return f"{name}: {error}; add it to the project's dependencies" if error.name else f"{name}: {error}"
    if isinstance(error, SyntaxError | NameError | AttributeError):
        return f"{name}: {error}"
    if isinstance(error, TypeError):
        return f"{name}: {error}; a program's __init__ takes no arguments and its hints are types that JSON can fill"
    return f"{name} while the module was loaded; run it on its own to see the text"
