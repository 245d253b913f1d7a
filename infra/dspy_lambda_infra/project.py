"""A DSPy project as the list of functions that it becomes: what template, local Lambda and invoke all start from."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import dspy
from dotenv import dotenv_values
from dspy.utils.exceptions import LMError

from dspy_lambda.config import Config, FunctionSettings, load_config
from dspy_lambda.errors import ConfigError
from dspy_lambda.programs.discovery import load_programs
from dspy_lambda.programs.program import FailedProgram, Program
from dspy_lambda.settings import SOURCES
from dspy_lambda_infra.deno import VARIABLES, why_deno

HANDLER = "dspy_lambda.main.lambda_handler"
CATALOGUE_HANDLER = "dspy_lambda.catalogue.lambda_handler"
CATALOGUE = "*"  # no program can be called that
KEY_NAME = re.compile(r"(API_?KEY|ACCESS_?KEY|SECRET|TOKEN|PASSWORD|CREDENTIALS?)$", re.I)
_LEAST_KEY = 12  # characters: no provider's key is shorter, but words are, which a schema may well hold


@dataclass(frozen=True)
class Function:
    """One program's Lambda function.

    Attributes:
        name: the program's name, and its logical id's stem.
        program: the loaded program, or None.
        failed: why it cannot be loaded, or None.
    """

    name: str
    module: str
    settings: FunctionSettings
    program: Program | None = None
    failed: str | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Its own variables, and those that narrow the handler to this program."""
        narrowed = {"DSPY_LAMBDA_PROGRAM": self.name, "DSPY_LAMBDA_MODULE": self.module}
        names = [name for name, is_used in (("http", self.settings.http), ("sqs", self.settings.sqs)) if is_used]
        sources = {SOURCES: ",".join(names)} if names else {}
        deno = VARIABLES if self.program and why_deno(self.program) else {}
        return {**sources, **deno, **self.settings.environment, **narrowed}

    @property
    def has_alias(self) -> bool:
        """Whether versions are published behind an alias, which then has the retries and the on-failure queue."""
        return self.settings.snap_start or self.settings.deployment is not None


@dataclass(frozen=True)
class Project:
    """A project's folder, its config and its functions, by program name."""

    root: Path
    config: Config
    functions: dict[str, Function]

    @property
    def has_api(self) -> bool:
        """Whether any program is called over HTTP."""
        return any(function.settings.http for function in self.functions.values())

    def loaded(self) -> Project:
        """The project without the programs that cannot be loaded.

        Raises:
            ConfigError: none can.
        """
        loaded = {name: function for name, function in self.functions.items() if name not in self.failed}
        if not loaded:
            self.require_loaded()
        return replace(self, functions=loaded)

    def require_loaded(self) -> None:
        """Refuse a project with programs that cannot be loaded.

        Raises:
            ConfigError: naming them, and why.
        """
        if self.failed:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.failed.items())
            raise ConfigError(f"programs that cannot be loaded have no function: {reasons}")

    @property
    def function_names(self) -> list[str]:
        """Every function that the template has: of programs that load, and the catalogue's where there is an API."""
        return [*(name for name in self.functions if name not in self.failed), *([CATALOGUE] if self.has_api else [])]

    def secrets(self, function: Function) -> dict[str, str]:
        """Variable -> where a function finds its value: its model's key, and what its own settings name.

        A place is `ssm:NAME` or `secretsmanager:NAME[#KEY]`, with ${Stage} in it; what `lambda.secrets` does not name
        is a SecureString in SSM, which costs nothing.
        """
        settings = self.config.lambda_
        key = self.config.models.registry[self.config.model_alias(function.name)].env
        wanted = dict.fromkeys([*([key] if key else []), *function.settings.secrets])
        default = f"ssm:/{self.config.app_id}/{{stage}}/"
        places = {variable: settings.secrets.get(variable, default + variable) for variable in wanted}
        return {variable: place.replace("{stage}", "${Stage}") for variable, place in places.items()}

    @property
    def failed(self) -> dict[str, str]:
        """Why programs cannot be loaded, by name."""
        return {name: f.failed for name, f in self.functions.items() if f.failed}


def say_what_runs(root: Path) -> None:
    """For commands that do not look as if they ran anything: importing a program runs its code.

    Raises:
        ConfigError: nothing will run, since the config cannot be used.
    """
    load_config(root.resolve())
    variables = ", with the variables of its .env" if (root / ".env").is_file() else ""
    print(f"importing the programs of {root.resolve() / 'src'}: their code runs here{variables}", file=sys.stderr)


def load_project(root: Path) -> Project:
    """Read a project's config and import its programs.

    Raises:
        ConfigError: it cannot be served; or the config names a program that it does not have.
    """
    root = root.resolve()
    config = load_config(root)
    _say_nested(root)
    # What a module prints belongs to nobody's standard output; what it reads from `.env` it shall find, as dspy-cli's.
    # So shall it find the project's files: on Lambda the working directory is where they are.
    with project_variables(root), contextlib.chdir(root), contextlib.redirect_stdout(sys.stderr):
        programs, failed = load_programs(root, config, lm_of=partial(_lm_of, config))
    found: dict[str, Program | FailedProgram] = {**programs, **failed}
    functions = {
        name: Function(
            name,
            p.module,
            config.lambda_.function(name),
            program=p if isinstance(p, Program) else None,
            failed=p.error if isinstance(p, FailedProgram) else None,
        )
        for name, p in sorted(found.items())
    }
    _check_names(config, functions, root)
    return Project(root, config, functions)


def _lm_of(config: Config, alias: str) -> dspy.LM | None:
    """An alias's LM for programs that look at it when they are made; it may have no key here."""
    settings = config.models.registry[alias]
    try:
        return dspy.LM(settings.model, model_type=settings.model_type)
    except (ValueError, LMError):
        return None


def _say_nested(root: Path) -> None:
    """Modules further down, which dspy-cli does not look at either: nobody should wait for their routes."""
    for path in sorted(root.glob("src/*/modules/*/**/*.py")):
        if "dspy.Module)" in path.read_text(encoding="utf-8", errors="replace"):
            print(f"{path}: not searched for programs; those are in files directly in modules/", file=sys.stderr)


def _check_names(config: Config, functions: dict[str, Function], root: Path) -> None:
    known = ", ".join(functions)
    for key, named in (("lambda.programs", config.lambda_.programs), ("program_models", config.program_models)):
        for name in named:
            if name not in functions:
                raise ConfigError(f"{root}/dspy.config.yaml: {key}.{name}: no such program; the project has: {known}.")
    taken: dict[str, str] = {"Api": "the API", "Function": "the function that serves all programs"}
    for name, function in functions.items():
        for logical in logical_ids(name, bool(function.settings.sqs)):
            if logical in taken:
                raise ConfigError(f"program {name} and {taken[logical]} would share the logical id {logical}.")
            taken[logical] = f"program {name}"


def logical_ids(program: str, has_queue: bool) -> list[str]:
    """The logical ids of a program's resources."""
    stem = logical_name(program)
    return [f"{stem}Function", *([f"{stem}Queue", f"{stem}DeadLetterQueue"] if has_queue else [])]


def read_dotenv(root: Path) -> dict[str, str]:
    """The project's `.env`, which dspy-cli reads too. Only on this machine: it never goes into an artifact."""
    return {key: value for key, value in dotenv_values(root / ".env").items() if value is not None}


def key_values(project: Project, *, by_name: bool = False) -> dict[str, str]:
    """The keys among this process's variables: those that the config says are some.

    Args:
        by_name: whether those that are called like one are, too; a few hold only the place of a secret.
    """
    settings = project.config.lambda_
    named = {*settings.secrets, *(model.env for model in project.config.models.registry.values())}
    named = named.union(*(function.settings.secrets for function in project.functions.values()))
    return {
        name: value
        for name, value in os.environ.items()
        if len(value) >= _LEAST_KEY and (name in named or (by_name and KEY_NAME.search(name)))
    }


@contextlib.contextmanager
def project_variables(root: Path) -> Iterator[None]:
    """The project's `.env` under this process's own environment, for as long as the block lasts."""
    before = dict(os.environ)
    os.environ.update({**read_dotenv(root), **before})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def logical_id(name: str) -> str:
    """A function's logical id in the template, by its program's name or as `CATALOGUE`."""
    return f"{'Catalogue' if name == CATALOGUE else logical_name(name)}Function"


def logical_name(program: str) -> str:
    """A program's name as the stem of CloudFormation logical ids, which are alphanumeric."""
    return re.sub(r"[^A-Za-z0-9]", "", program)
