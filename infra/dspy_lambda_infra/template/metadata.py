"""What the config says and no resource shows, in the template, so that two deployments can be compared."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dspy_lambda_infra.project import Project

METADATA = "DspyLambda"
_SHOWN = {"models", "program_models", "server"}


def metadata(project: Project) -> dict[str, Any]:
    """The template's `Metadata`: models, which program has which, limits. No key, nor what a URL may hold of one."""
    found = project.config.model_dump(mode="json", include=_SHOWN, exclude_defaults=True)
    for model in found["models"]["registry"].values():
        model.pop("api_key", None)
        if "api_base" in model:
            model["api_base"] = _address(model["api_base"])
    return {METADATA: {"Config": found}}


def deployed_config(template: dict[str, Any]) -> dict[str, Any] | None:
    """What `metadata` wrote into that template; None if it is older."""
    found = (template.get("Metadata") or {}).get(METADATA)
    return found["Config"] if found else None


def _address(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
