"""A DSPy project as a list of functions: the common basis of template, local Lambda and invoke."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from dspy_lambda.dspy_patches.start import dspy_import

with dspy_import():
    import dspy
    from dspy.utils.exceptions import LMError

from dspy_lambda.dspy_patches.table import patch_models
from dspy_lambda.errors import ConfigError
from dspy_lambda.programs.discovery import load_programs
from dspy_lambda.programs.program import FailedProgram, Program
from dspy_lambda.settings import METRICS_NAMESPACE, PRECONNECT, SOURCES
from dspy_lambda_infra.collisions import check_names
from dspy_lambda_infra.config import Config, FunctionSettings, load_config
from dspy_lambda_infra.deno import VARIABLES, why_deno
from dspy_lambda_infra.model_names import check_providers

HANDLER = "dspy_lambda.main.lambda_handler"
CATALOGUE_HANDLER = "dspy_lambda.catalogue.lambda_handler"
CATALOGUE = "*"  # not a valid program name
KEY_NAME = re.compile(r"(API_?KEY|ACCESS_?KEY|SECRET|TOKEN|PASSWORD|CREDENTIALS?)$", re.I)
# Set on the LMs of aliases that programs get here, and on their copies: the model, unless a copy has another one.
ALIAS_MODEL = "alias_model"
_LEAST_KEY = 12  # characters: no provider's key is shorter, but ordinary words, which a schema may contain, are


@dataclass(frozen=True)
class Function:
    """One program's Lambda function.

    Attributes:
        name: the program's name, and the stem of its logical id.
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
        """Return its environment variables on any host: its own, and those that make the handler serve this program."""
        narrowed = {"DSPY_LAMBDA_PROGRAM": self.name, "DSPY_LAMBDA_MODULE": self.module}
        names = [name for name, is_used in (("http", self.settings.http), ("sqs", self.settings.sqs)) if is_used]
        sources = {SOURCES: ",".join(names)} if names else {}
        deno = VARIABLES if self.program and why_deno(self.program) else {}
        preconnect = {PRECONNECT: "true"} if self.settings.preconnect else {}
        return {**sources, **deno, **self.settings.environment, **preconnect, **narrowed}

    @property
    def has_alias(self) -> bool:
        """Whether versions are published behind an alias, which then owns the retries and the on-failure queue."""
        return self.settings.snap_start or self.settings.deployment is not None


@dataclass(frozen=True)
class Project:
    """A project's folder, its config and its functions by program name."""

    root: Path
    config: Config
    functions: dict[str, Function]

    @property
    def has_api(self) -> bool:
        """Whether any program is called over HTTP."""
        return any(function.settings.http for function in self.functions.values())

    def loaded(self) -> Project:
        """Return the project without the programs that cannot be loaded.

        Raises:
            ConfigError: no program can be loaded.
        """
        loaded = {name: function for name, function in self.functions.items() if name not in self.failed}
        if not loaded:
            self.require_loaded()
        return replace(self, functions=loaded)

    def require_loaded(self) -> None:
        """Refuse a project with programs that cannot be loaded.

        Raises:
            ConfigError: names them, with the reasons.
        """
        if self.failed:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.failed.items())
            raise ConfigError(f"some programs cannot be loaded: {reasons}")

    @property
    def function_names(self) -> list[str]:
        """Return all functions in the template: those of programs that load, and the catalogue's if there is an API."""
        return [*(name for name in self.functions if name not in self.failed), *([CATALOGUE] if self.has_api else [])]

    def aliases(self, function: Function) -> list[str]:
        """Return the aliases that a function's program may call, its own model's first."""
        return self.config.aliases_of(function.name, function.program.constructor_models if function.program else ())

    def log_level(self, function: Function) -> str | None:
        """Return the level from which Lambda keeps a function's lines; None for Lambda's default, INFO.

        Lambda must let the debug lines of failed calls pass, if the function holds them.
        """
        level = self.config.lambda_.log_level
        holds = function.settings.telemetry.buffer_debug_logs
        return "DEBUG" if holds and level in (None, "INFO") else level

    def secrets(self, function: Function) -> dict[str, str]:
        """Map each secret variable of a function to the location of its value.

        These are its models' keys, its collector's headers unless `environment` has them, and its own secrets.

        A location is `ssm:NAME` or `secretsmanager:NAME[#KEY]` and contains ${Stage}; variables not listed in
        `lambda.secrets` use an SSM SecureString, which is free.
        """
        settings = self.config.lambda_
        keys = [self.config.models.registry[alias].env for alias in self.aliases(function)]
        wanted = dict.fromkeys([*(key for key in keys if key), *secret_headers(function), *function.settings.secrets])
        default = f"ssm:/{self.config.app_id}/{{stage}}/"
        places = {variable: settings.secrets.get(variable, default + variable) for variable in wanted}
        return {variable: place.replace("{stage}", "${Stage}") for variable, place in places.items()}

    @property
    def failed(self) -> dict[str, str]:
        """Return the reasons why programs cannot be loaded, by name."""
        return {name: f.failed for name, f in self.functions.items() if f.failed}


def secret_headers(function: Function) -> list[str]:
    """Return the variable with the collector's headers, if its value is a secret: not one of `environment`'s."""
    name = function.settings.telemetry.headers_env
    return [name] if name and not function.settings.environment.get(name) else []


def shared_variables(service: Any) -> dict[str, Any]:
    """Return the variables that every function has.

    Args:
        service: separates its metrics from those of other stacks: a name, or an intrinsic that yields one.
    """
    return {"POWERTOOLS_SERVICE_NAME": service, "POWERTOOLS_METRICS_NAMESPACE": METRICS_NAMESPACE}


def announce_imports(root: Path) -> None:
    """Announce that importing a program runs its code, for commands that do not look as if they ran anything.

    Raises:
        ConfigError: the config cannot be used, so nothing will run.
    """
    load_config(root.resolve())
    variables = ", with the variables of its .env" if (root / ".env").is_file() else ""
    print(f"importing the programs in {root.resolve() / 'src'}: their code runs here{variables}", file=sys.stderr)


def load_project(root: Path) -> Project:
    """Read a project's config and import its programs.

    Raises:
        ConfigError: the project cannot be served, or the config names an unknown program.
    """
    patch_models()
    root = root.resolve()
    config = load_config(root)
    check_names(root)
    check_providers(config)
    _warn_nested(root)
    # Keep what a module prints out of standard output, and provide `.env` as dspy-cli does. Modules also find the
    # project's files: on Lambda they are in the working directory.
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
    """Return an alias's LM for programs that inspect it when they are constructed; it may have no key here."""
    settings = config.models.registry[alias]
    try:
        lm = dspy.LM(settings.served_as, model_type=settings.model_type)
    except (ValueError, LMError):
        return None
    setattr(lm, ALIAS_MODEL, lm.model)
    return lm


def _warn_nested(root: Path) -> None:
    """Report modules in subfolders, which are not searched (nor does dspy-cli), so that nobody expects their routes."""
    for path in sorted(root.glob("src/*/modules/*/**/*.py")):
        if "dspy.Module)" in path.read_text(encoding="utf-8", errors="replace"):
            print(f"{path}: not searched for programs; put them directly into modules/", file=sys.stderr)


def _check_names(config: Config, functions: dict[str, Function], root: Path) -> None:
    known = ", ".join(functions)
    for key, named in (
        ("lambda.programs", config.lambda_.programs),
        ("program_models", config.program_models),
        ("program_arguments", config.program_arguments),
        ("predictor_models", config.predictor_models),
        ("program_adapters", config.program_adapters),
    ):
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
    """Return the logical ids of a program's resources."""
    stem = logical_name(program)
    return [f"{stem}Function", *([f"{stem}Queue", f"{stem}DeadLetterQueue"] if has_queue else [])]


def read_dotenv(root: Path) -> dict[str, str]:
    """Read the project's `.env`, as dspy-cli does. It is used on this machine only and never part of an artifact."""
    return {key: value for key, value in dotenv_values(root / ".env").items() if value is not None}


def key_values(project: Project, *, by_name: bool = False) -> dict[str, str]:
    """Return the keys among this process's variables: those that the config declares as such.

    Args:
        by_name: whether to include variables that are named like keys; a few hold only the location of a secret.
    """
    settings = project.config.lambda_
    named = {*settings.secrets, *(model.env for model in project.config.models.registry.values())}
    named = named.union(*([*f.settings.secrets, *secret_headers(f)] for f in project.functions.values()))
    return {
        name: value
        for name, value in os.environ.items()
        if len(value) >= _LEAST_KEY and (name in named or (by_name and KEY_NAME.search(name)))
    }


@contextlib.contextmanager
def project_variables(root: Path) -> Iterator[None]:
    """Add the project's `.env` to this process's environment for the duration of the block; existing variables win."""
    before = dict(os.environ)
    os.environ.update({**read_dotenv(root), **before})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def logical_id(name: str) -> str:
    """Return a function's logical id in the template; `name` is its program's name or `CATALOGUE`."""
    return f"{'Catalogue' if name == CATALOGUE else logical_name(name)}Function"


def logical_name(program: str) -> str:
    """Return a program's name as a stem for CloudFormation logical ids, which are alphanumeric."""
    return re.sub(r"[^A-Za-z0-9]", "", program)
