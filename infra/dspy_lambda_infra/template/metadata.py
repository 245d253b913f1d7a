"""Stores config that no resource shows in the template, so that two deployments can be compared."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dspy_lambda_infra.project import Project

METADATA = "DspyLambda"
_SHOWN = {"models", "program_models", "predictor_models", "program_adapters", "server"}


def metadata(project: Project) -> dict[str, Any]:
    """Return the template's `Metadata`: models, their programs, limits. Contains no keys, not even from URLs."""
    found = project.config.model_dump(mode="json", include=_SHOWN, exclude_defaults=True)
    for model in found["models"]["registry"].values():
        model.pop("api_key", None)
        if "api_base" in model:
            model["api_base"] = _address(model["api_base"])
    return {METADATA: {"Config": found}}


def deployed_config(template: dict[str, Any]) -> dict[str, Any] | None:
    """Return what `metadata` wrote into a template; None if the template predates it."""
    found = (template.get("Metadata") or {}).get(METADATA)
    return found["Config"] if found else None


def _address(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
