"""The catalogue function's manifest: its responses, generated where DSPy is installed."""

from __future__ import annotations

from typing import Any

from dspy_lambda.api.app import describe, listed
from dspy_lambda.errors import ConfigError
from dspy_lambda_infra.project import Project, key_values, project_variables
from dspy_lambda_infra.texts import texts

_SCHEMAS = "openapi.components.schemas."


def manifest(project: Project) -> dict[str, Any]:
    """Return what `dspy_lambda.catalogue` reads. The same project always gives the same manifest.

    Raises:
        ConfigError: it would expose a key; names the location and the variable.
    """
    programs = {name: function.program for name, function in project.functions.items() if function.program is not None}
    config = project.config
    # Programs were imported with these variables set and may contain their values.
    with project_variables(project.root):
        made = {
            "title": config.app_id,
            "description": config.description,
            "cors_origins": config.server.cors_origins,
            "programs": listed(programs, {}),
            "openapi": describe(config, programs),
        }
        _refuse_keys(made, key_values(project, by_name=True))
    return made


def _refuse_keys(made: dict[str, Any], keys: dict[str, str]) -> None:
    found = [
        f"{place.replace(value, '...')}: /openapi.json would expose the value of {name}; read the variable where "
        "the program uses it"
        for place, text in ((".".join(keys_to).removeprefix(_SCHEMAS), text) for keys_to, text in texts(made))
        for name, value in keys.items()
        if value in text
    ]
    if found:
        raise ConfigError("\n".join(dict.fromkeys(found)))
