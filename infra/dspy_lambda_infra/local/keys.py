"""Checks that the models' keys and the collectors' headers are set, before anything reports that it is ready."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from dspy_lambda.errors import ConfigError
from dspy_lambda.settings import SECRETS, TRACES
from dspy_lambda_infra.project import Project, read_dotenv


def require_keys(project: Project, programs: Iterable[str], variables: Mapping[str, str]) -> None:
    """Refuse programs for which a model's key is not set here.

    Args:
        variables: variables that override the project's `.env` and this process's own.

    Raises:
        ConfigError: names the variables, their programs and the remedy.
    """
    known, fetched = _known(project, variables)
    missing: dict[str, list[str]] = {}
    for name in programs:
        own = known | project.functions[name].settings.environment
        for model in map(project.config.models.registry.__getitem__, project.aliases(project.functions[name])):
            if model.env and not (own.get(model.env) or model.api_key or model.env in fetched):
                missing.setdefault(model.env, []).append(name)
    if missing:
        listed = "; ".join(f"{variable} (for {', '.join(names)})" for variable, names in missing.items())
        raise ConfigError(
            f"no key in {listed}. Add {next(iter(missing))}=... to {project.root / '.env'}, "
            f"or use --model-server: it answers with samples and needs no key."
        )


def require_headers(project: Project, programs: Iterable[str], variables: Mapping[str, str]) -> None:
    """Refuse programs whose traces would go to a collector without its headers.

    Args:
        variables: as for `require_keys`.

    Raises:
        ConfigError: names the variables, their programs and the remedy.
    """
    known, fetched = _known(project, variables)
    if known.get(TRACES):
        return  # traces go elsewhere
    missing: dict[str, list[str]] = {}
    for name in programs:
        settings = project.functions[name].settings
        variable = settings.telemetry.headers_env
        if variable and variable not in fetched and not (known | settings.environment).get(variable):
            missing.setdefault(variable, []).append(name)
    if missing:
        listed = "; ".join(f"{variable} (for {', '.join(names)})" for variable, names in missing.items())
        raise ConfigError(
            f"no headers for the traces' collector in {listed}. Add {next(iter(missing))}=... to "
            f"{project.root / '.env'}, or set {TRACES}=none: nothing is traced then."
        )


def _known(project: Project, variables: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the variables that are set here, and the names of those that a secret store has."""
    known = {**read_dotenv(project.root), **os.environ, **variables}
    return known, [entry.partition("=")[0] for entry in known.get(SECRETS, "").split()]
