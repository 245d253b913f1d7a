"""Find and load the public `dspy.Module` classes of a project in dspy-cli's layout."""

from __future__ import annotations

import ast
import dis
import importlib
import inspect
import os
import re
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy

import dspy_lambda
from dspy_lambda.config import Config
from dspy_lambda.errors import ConfigError
from dspy_lambda.introspection import class_name, is_a, traceback_of
from dspy_lambda.programs.arguments import LmOf, constructor_arguments
from dspy_lambda.programs.copies import Copier
from dspy_lambda.programs.interpreters import check_interpreters
from dspy_lambda.programs.program import FailedProgram, Program, choose_entry, defined_at
from dspy_lambda.programs.schemas import schemas_of

_RESERVED = "dspy_lambda"
_placed: dspy.BaseLM | None = None
# Exceptions raised by code in these folders do not quote a project's values.
_TRUSTED = (
    "<frozen importlib.",
    f"{Path(importlib.__file__).parent}{os.sep}",
    *(f"{Path(file).parent}{os.sep}" for file in (dspy.__file__, dspy_lambda.__file__)),
)
_RAISE = dis.opmap["RAISE_VARARGS"]
_NO_PROGRAMS = re.compile(r"Signature|BaseModel|Enum|TypedDict|NamedTuple|Protocol|Exception|Error")


@dataclass(frozen=True)
class ProgramFile:
    """A file that may define programs, and its Python module name."""

    path: Path
    module: str

    def class_names(self) -> list[str]:
        """Return the names of public classes that look like programs, without importing the file."""
        text = self.path.read_text(encoding="utf-8", errors="replace")
        try:
            found = [
                (node.name, ", ".join(ast.unparse(base) for base in node.bases))
                for node in ast.walk(ast.parse(text))
                if isinstance(node, ast.ClassDef)
            ]
        except SyntaxError:
            found = re.findall(r"^class\s+(\w+)\s*\(([^)]*)\)", text, re.MULTILINE)
        return [name for name, bases in found if bases and name[0] != "_" and not _NO_PROGRAMS.search(bases)]


def program_files(project: Path) -> list[ProgramFile]:
    """List a project's `src/<package>/modules/*.py`; file names with a leading underscore are private.

    Raises:
        ConfigError: There are no such files, or a file or folder would shadow this package.
    """
    source = project / "src"
    for place in (source / _RESERVED, project / _RESERVED):
        file = place.with_suffix(".py")
        if file.is_file():
            raise ConfigError(f"{file}: `{_RESERVED}` is dspy-lambda's own package name; rename the file.")
        if place.is_dir() and any(place.rglob("*.py")) and not _is_this_package(place):
            raise ConfigError(f"{place}: `{_RESERVED}` is dspy-lambda's own package name; rename the folder.")
    files = sorted(p for p in source.glob("*/modules/*.py") if not p.name.startswith("_"))
    if not files:
        raise ConfigError(f"{project}: no programs found; put dspy.Module classes in src/<package>/modules/*.py.")
    return [ProgramFile(path, ".".join(path.relative_to(source).with_suffix("").parts)) for path in files]


def _is_this_package(place: Path) -> bool:
    return place.resolve() == Path(dspy_lambda.__file__).resolve().parent


def load_programs(
    project: Path,
    config: Config,
    *,
    only: str | None = None,
    module: str | None = None,
    lm_of: LmOf = lambda _: None,
    to_run: bool = False,
) -> tuple[dict[str, Program], dict[str, FailedProgram]]:
    """Import all programs of a project or, with `only`, one program and only its module.

    A module that fails to import fails only its own programs.

    Args:
        lm_of: returns the LM of an alias, also for constructors that take one. While a program is created,
            `dspy.settings.lm` is the LM of its model. In module-level code, and later in threads, it is the LM of the
            default model or of the only program.
        to_run: whether the programs run here; then they also fail if their code interpreter is not installed.

    Raises:
        ConfigError: Two programs have the same name; or, with `only`, the program does not exist or cannot be loaded.
    """
    files = program_files(project)
    _make_importable(project)
    if only is not None:
        files = _files_of(only, files, module)
    default = config.models.default if only is None else config.model_alias(only)
    set_default_lm(lm_of(default))
    # Import all before creating any: only then is it known which classes are bases of others.
    classes = [(file, _import(file)) for file in files]
    found: dict[str, tuple[Program | FailedProgram, ProgramFile]] = {}
    for file, imported in classes:
        for program in _load(file, imported, config, lm_of, to_run):
            if only not in (None, program.name):
                continue
            if program.name in found:
                other = found[program.name][1].path
                raise ConfigError(
                    f"{file.path}: program {program.name} is also defined in {other}; rename one of them."
                )
            found[program.name] = (program, file)
    set_default_lm(lm_of(default))
    programs = {name: p for name, (p, _) in found.items() if isinstance(p, Program)}
    failed = {name: p for name, (p, _) in found.items() if isinstance(p, FailedProgram)}
    if only is not None and only not in programs:
        raise ConfigError(_why_not(only, failed, files))
    return programs, failed


def _make_importable(project: Path) -> None:
    """Make the packages in src/ importable, then those beside it: on Lambda, the task root is on the path."""
    source, root = str(project / "src"), str(project)
    if source not in sys.path:
        sys.path.insert(0, source)
    if root not in sys.path:
        sys.path.append(root)


def set_default_lm(lm: dspy.BaseLM | None) -> None:
    """Set `dspy.settings.lm` for code outside calls, unless the project has configured an LM itself."""
    global _placed
    if dspy.settings.lm is _placed:
        with suppress(RuntimeError):  # another thread has already configured DSPy
            dspy.configure(lm=lm)
            _placed = lm


def default_lm() -> dspy.BaseLM | None:
    """Return the LM that `set_default_lm` set last."""
    return _placed


def _files_of(only: str, files: list[ProgramFile], module: str | None) -> list[ProgramFile]:
    if module is not None:
        chosen = [file for file in files if file.module == module]
        if not chosen:
            known = ", ".join(file.module for file in files)
            raise ConfigError(f"DSPY_LAMBDA_MODULE: there is no module {module!r}; the project has: {known}.")
        return chosen
    named = {file: file.class_names() for file in files}
    chosen = [file for file, names in named.items() if only in names]
    if len(chosen) > 1:
        raise ConfigError(f"{chosen[1].path}: program {only} is also defined in {chosen[0].path}; rename one of them.")
    if not chosen:
        known = ", ".join(sorted(name for names in named.values() for name in names))
        raise ConfigError(f"DSPY_LAMBDA_PROGRAM: there is no program {only!r}; the project has: {known}.")
    return chosen


def _why_not(only: str, failed: dict[str, FailedProgram], files: list[ProgramFile]) -> str:
    if only in failed:
        return f"program {only} cannot be loaded: {failed[only].error}"
    return f"DSPY_LAMBDA_PROGRAM: {files[0].path} does not define a dspy.Module class named {only!r}."


def _import(file: ProgramFile) -> list[type[dspy.Module]] | BaseException:
    """Return the program classes of a file, or the exception that its import raised."""
    try:
        members = vars(importlib.import_module(file.module))
        # Check the real classes: lazy modules and proxies run code, which may raise, when their attributes are read.
        found = [(name, value) for name, value in sorted(members.items()) if is_a(value, type)]
        return [cls for name, cls in found if name == class_name(cls) and _is_program(cls, file.module)]
    except KeyboardInterrupt:  # from the developer
        raise
    except BaseException as error:
        return error


def _is_program(cls: type, module: str) -> bool:
    return issubclass(cls, dspy.Module) and cls.__module__ == module and not class_name(cls).startswith("_")


def _load(
    file: ProgramFile,
    imported: list[type[dspy.Module]] | BaseException,
    config: Config,
    lm_of: LmOf,
    to_run: bool,
) -> list[Program | FailedProgram]:
    if isinstance(imported, BaseException):
        names = file.class_names() or [file.path.stem]
        return [_failed(name, file, config, imported) for name in names]
    found: list[Program | FailedProgram] = []
    for cls in imported:
        if not _is_only_a_base(cls):
            set_default_lm(lm_of(config.model_alias(class_name(cls))))
            found.append(_load_class(cls, file, config, lm_of, to_run))
    return found


def _is_only_a_base(cls: type[dspy.Module]) -> bool:
    has_entry = defined_at(cls, "forward") is not None or defined_at(cls, "aforward") is not None
    return not has_entry and bool(cls.__subclasses__())


def _load_class(
    cls: type[dspy.Module], file: ProgramFile, config: Config, lm_of: LmOf, to_run: bool
) -> Program | FailedProgram:
    name = class_name(cls)
    try:
        arguments = constructor_arguments(cls, config, lm_of)
        _check_gateways(cls)
        instance = cls(*arguments.positional, **arguments.named)
        if to_run:
            check_interpreters(instance)
        entry = choose_entry(instance)
        schemas = schemas_of(instance, entry.method)
        copier = Copier(instance)
        predictors = _predictor_models(name, instance, copier, config)
    except KeyboardInterrupt:  # from the developer
        raise
    except BaseException as error:
        return _failed(name, file, config, error)
    model, adapter = config.model_alias(name), config.adapter_name(name)
    constructor_models = tuple(dict.fromkeys(arguments.aliases))
    return Program(name, file.module, model, instance, entry, schemas, copier, constructor_models, adapter, predictors)


def _predictor_models(program: str, instance: dspy.Module, copier: Copier, config: Config) -> dict[int, str]:
    """Return the aliases of the program's predictors with a model of their own, by the predictor's `id`."""
    wanted = config.predictor_models.get(program)
    if not wanted:
        return {}
    known = dict(instance.named_predictors())
    for predictor in wanted:
        key = f"predictor_models.{program}.{predictor}"
        if predictor not in known:
            raise TypeError(f"{key}: no such predictor; the program has: {', '.join(known) or 'none'}")
        if not copier.makes_copy_of(known[predictor]):
            raise TypeError(f"{key}: this predictor is in an object that all calls share, so it has no model per call")
    return {id(known[predictor]): alias for predictor, alias in wanted.items()}


def _check_gateways(cls: type[dspy.Module]) -> None:
    """Refuse gateways, which would be ignored: only dspy-cli's server gives programs their routes and schedules."""
    named = getattr(cls, "gateway", None)
    gateways = [g for g in (named if isinstance(named, list | tuple) else [named]) if isinstance(g, type)]
    # Check the base's module name, so that dspy-cli need not be installed.
    if found := [g.__name__ for g in gateways if any(base.__module__.startswith("dspy_cli.") for base in g.__mro__)]:
        raise TypeError(f"dspy-cli's gateways do not run on Lambda yet, but {cls.__name__} uses {', '.join(found)}")


def _failed(name: str, file: ProgramFile, config: Config, error: BaseException) -> FailedProgram:
    why = f"{_place(file, error)}: {_reason(error, file)}"
    return FailedProgram(name, file.module, config.model_alias(name), why, error)


def _place(file: ProgramFile, error: BaseException) -> str:
    if is_a(error, SyntaxError) and _raised_by_python(error):
        return f"{error.filename}:{error.lineno}"  # type: ignore[attr-defined]
    frames = [f for f in traceback.extract_tb(traceback_of(error)) if f.filename == str(file.path)]
    return f"{file.path}:{frames[-1].lineno}" if frames else str(file.path)


def _reason(error: Any, file: ProgramFile) -> str:
    """Describe an exception; quote its text only if Python, DSPy or this package wrote it, as others may be private."""
    name = class_name(type(error))
    if _raised_by_python(error):
        if is_a(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] == "dspy_cli":
            return f"{name}: {error}; Lambda replaces dspy-cli's server, and its gateways do not run here yet"
        if is_a(error, ImportError) and error.name:
            remedy = _how_to_find(error.name, file.path.parents[2], is_found=not is_a(error, ModuleNotFoundError))
            return f"{name}: {error}{remedy and '; '}{remedy}"
        if is_a(error, ImportError, SyntaxError, TypeError):
            return f"{name}: {error}"
        if is_a(error, NameError, AttributeError) and error.name:
            return f"{name}: {error.name!r}"
    if name == "PydanticSchemaGenerationError":
        return "a type hint of its forward or aforward is not a type that can be created from JSON"
    return f"{name} while the module was loaded; run the module directly to see the message"


def _raised_by_python(error: BaseException) -> bool:
    """Whether the interpreter, its import system, DSPy or this package raised an exception.

    Code of a project or another library that raises is at a RAISE_VARARGS instruction in the traceback's last frame.
    """
    entry = traceback_of(error)
    while entry is not None and entry.tb_next is not None:
        entry = entry.tb_next
    if entry is None:
        return False
    code = entry.tb_frame.f_code
    return code.co_filename.startswith(_TRUSTED) or code.co_code[entry.tb_lasti] != _RAISE


def _how_to_find(module: str, source: Path, *, is_found: bool) -> str:
    """Say what to do about a module that was not found or (`is_found`) lacks a name, depending on where this runs."""
    package = module.partition(".")[0]
    loaded = inspect.getattr_static(sys.modules.get(package), "__file__", None)
    for own in (source / package, source / f"{package}.py"):
        if own.exists() and isinstance(loaded, str) and not Path(loaded).is_relative_to(source):
            return f"{own} is shadowed by a package of that name, {loaded}: rename the project's module"
        if own.exists() and not is_found:
            return f"{own} shadows any installed package of that name: rename it if you mean the package"
    if is_found:
        return ""
    if _in_artifact(source):
        return (
            "it is not in the artifact: add it to the project's direct dependencies, because packages that only other "
            "packages require may be left out, and build again"
        )
    known = ("pyproject.toml", "requirements.txt")
    files = [name for name in known if (source.parent / name).is_file()] or known
    return f"add it to the project's dependencies in {source.parent}/{' or '.join(files)}"


def _in_artifact(source: Path) -> bool:
    """Whether the project is next to this package, as in an artifact of `dspy-lambda build`."""
    return Path(dspy_lambda.__file__).resolve().parents[1] == source.parent
